"""`ayni doctor PATH`: what is sound, what is not, and how to go on, for everything a path can be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from feedback_cases import item
from safetensors.torch import load_file, save_file
from small_models import build, edit_json, small_tokenizer
from small_stages import Small, prepare

from ayni import cli
from ayni.conversion import export_model
from ayni.feedback.entries import PreferenceBatch
from ayni.feedback.store import open_store
from ayni.files import Killed
from ayni.model.adapters import Lora, with_adapter
from ayni.model_directory import load_model, save_model
from ayni.train.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Small]:
    return prepare(tmp_path_factory.mktemp("inputs"))


def doctor(capsys: pytest.CaptureFixture[str], path: object) -> tuple[int, dict[str, Any], str]:
    """(exit code, what --json prints, what is printed without it)."""
    capsys.readouterr()
    code = cli.run(["doctor", str(path), "--json"])
    value = json.loads(capsys.readouterr().out)
    assert cli.run(["doctor", str(path)]) == code
    return code, value, capsys.readouterr().out


def killed(stage: Small, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AYNI_FAILPOINT", "stage-finished")
    with pytest.raises(Killed):
        stage.execute(directory)
    monkeypatch.delenv("AYNI_FAILPOINT")
    return directory


def test_models_of_every_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(tmp_path / "m", build(kv_heads=2), small_tokenizer())
    export_model(tmp_path / "m", tmp_path / "meta", "meta")
    export_model(tmp_path / "m", tmp_path / "c" / "m.bin", "llama2c")
    adapter = with_adapter(load_model(tmp_path / "m")[0], Lora(rank=2, alpha=4), seed=0)
    save_model(tmp_path / "a", adapter, small_tokenizer())
    for place, kind in (("m", "hf"), ("meta", "meta"), ("c/m.bin", "llama2c"), ("a", "peft")):
        code, found, out = doctor(capsys, tmp_path / place)
        assert (code, found["kind"], found["parameters"], found["tokens"]) == (
            0,
            kind,
            build(kv_heads=2).shape.parameters,
            284,
        )
        assert "every number is there and finite" in out
    assert found["base"] == str(tmp_path / "m")


def test_what_is_wrong_with_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(tmp_path / "m", build(), small_tokenizer())
    save_model(tmp_path / "a", with_adapter(load_model(tmp_path / "m")[0], Lora(rank=2), seed=0), small_tokenizer())
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    save_file(tensors | {"lm_head.weight": torch.full((284, 16), float("nan"))}, tmp_path / "m" / "model.safetensors")
    code, found, _ = doctor(capsys, tmp_path / "m")
    assert (code, found["error"].endswith("lm_head.weight: the weight holds NaN or infinity")) == (2, True)
    code, found, _ = doctor(capsys, tmp_path / "a")
    assert (code, "holds other numbers" in found["error"]) == (2, True)
    edit_json(tmp_path / "m" / "config.json", vocab_size=200)
    code, found, _ = doctor(capsys, tmp_path / "m")
    assert (code, "lm_head.weight" in found["error"] or "embed_tokens" in found["error"]) == (2, True)


def test_checkpoints_of_a_stage_that_was_stopped(
    stages: dict[str, Small], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = killed(stages["sft"], tmp_path / "sft", monkeypatch)
    code, found, out = doctor(capsys, place)
    newest, older = sorted((path.name for path in (place / "checkpoints").iterdir()), reverse=True)
    assert (code, found["stages"][0]["state"], found["stages"][0]["go_on"]) == (0, "unfinished", newest)
    assert f"the same command goes on from {newest}" in out
    assert "to go on: the same command again" in out

    (place / "checkpoints" / newest / "numbers.json").write_text("{}")
    code, found, out = doctor(capsys, place)
    assert (code, found["stages"][0]["go_on"]) == (0, older)
    assert f"{newest}: is not what was written" in out
    assert doctor(capsys, place / "checkpoints")[1]["go_on"] == older
    assert doctor(capsys, place / "checkpoints" / older)[0] == 0
    assert doctor(capsys, place / "checkpoints" / newest)[0] == 2

    shutil.rmtree(place / "checkpoints" / older)
    code, found, _ = doctor(capsys, place)
    assert (code, found["stages"][0]["wrong"]) == (2, {"checkpoints": "holds none that is whole"})
    assert doctor(capsys, place / "checkpoints")[0] == 2


def test_samples_of_a_stage_that_was_stopped(
    stages: dict[str, Small], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = killed(stages["reject"], tmp_path / "reject", monkeypatch)
    assert doctor(capsys, place)[0] == 0
    store = place / "samples.jsonl"
    whole = store.read_bytes()
    store.write_bytes(whole[:-9])  # torn by a kill: drawn again
    assert doctor(capsys, place)[0] == 0
    assert store.read_bytes() == whole[:-9]
    store.write_bytes(whole.replace(b'"finished":"', b'"finished":"un', 1))
    code, found, _ = doctor(capsys, place)
    assert (code, [*found["stages"][0]["wrong"]]) == (2, ["samples.jsonl"])
    store.write_bytes(whole)
    (place / "inputs.json").write_text("[]")
    assert doctor(capsys, place)[1]["stages"][0]["wrong"] == {"inputs.json": "expected an object"}


def test_a_sealed_model(stages: dict[str, Small], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages["sft"].execute(tmp_path / "sft")
    code, found, _ = doctor(capsys, tmp_path / "sft" / "model")
    assert (code, found["sealed"]) == (0, True)
    weights = tmp_path / "sft" / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    for verb in (["doctor"], ["generate", "--text", "a"], ["export", str(tmp_path / "out"), "--format", "hf"]):
        assert cli.run([verb[0], str(tmp_path / "sft" / "model"), *verb[1:]]) == 2
        assert "model.safetensors: has changed since its stage finished" in capsys.readouterr().err
    code, found, _ = doctor(capsys, tmp_path / "sft")
    assert (code, found["stages"][0]["wrong"]) == (2, {"model/model.safetensors": "has changed"})


def test_a_store_of_preferences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_store(str(tmp_path / "week.db")) as store:
        store.add_batch(PreferenceBatch("week-1"), [item("a")])
    code, found, _ = doctor(capsys, tmp_path / "week.db")
    assert (code, found["judged"]) == (0, 0)


def test_nothing_it_prints_drives_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "stages" / "01-\x1b[2J\u202e").mkdir(parents=True)
    save_checkpoint(tmp_path / "stages" / "01-\x1b[2J\u202e" / "checkpoints", 5, {"a": torch.ones(1)}, {})
    out = doctor(capsys, tmp_path)[2]
    assert "01-\ufffd[2J\ufffd" in out
    assert not {"\x1b", "\u202e"} & {*out}


def test_what_a_stage_s_metrics_warn_of_is_said_and_is_no_damage(
    stages: dict[str, Small], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = killed(stages["ppo"], tmp_path / "ppo", monkeypatch)
    rows = [{"step": i, "kl": 0.1 * i, "kl_k3": 0.1 * (i - 1), "first_ratio": 1 + 0.1 * (i > 2)} for i in range(1, 5)]
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, found, out = doctor(capsys, place)
    (alarm,) = found["stages"][0]["alarms"]
    assert (code, alarm["name"], alarm["step"]) == (0, "first ratio", 3)
    assert "alarm      first ratio, step 3: the first mini-batch's ratio is 1.1000, not 1" in out
    assert f"why: {alarm['cause']}" in out
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    assert doctor(capsys, place)[1]["stages"][0]["alarms"] == []
    sft = killed(stages["sft"], tmp_path / "sft", monkeypatch)
    (sft / "metrics.jsonl").write_text((json.dumps(rows[3]) + "\n") * 3)
    assert doctor(capsys, sft)[1]["stages"][0]["alarms"] == []
