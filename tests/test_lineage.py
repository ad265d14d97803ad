"""Who made a model: every stage and file that took part, held against its hash, also after an export."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from small_stages import Small, prepare

from ayni.cli import VerbFailure
from ayni.cli.lineage import show_lineage
from ayni.cli.weights import export_weights
from ayni.errors import BadInput
from ayni.runs.lineage import LINEAGE, lineage


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """samples ← sft, and v1 ← sft, samples."""
    stages = prepare(tmp_path / "inputs")
    stages["sft"].execute(tmp_path / "sft")
    sampled = {**stages["reject"].inputs, "model": tmp_path / "sft" / "model"}
    Small("reject", stages["reject"].settings, sampled).execute(tmp_path / "samples", finished_only=False)
    tuned = {"model": tmp_path / "sft" / "model", "data": [tmp_path / "samples" / "records.jsonl"]}
    Small("sft", stages["sft"].settings, tuned).execute(tmp_path / "v1")
    return tmp_path


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_every_stage_and_file_that_took_part(chain: Path) -> None:
    steps = lineage(chain / "v1" / "model")
    assert [step.name for step in steps] == ["sft", "samples", "v1"]
    assert all(step.sound for step in steps)
    read = {(each.input, each.stage) for each in steps[1].read}
    assert {("model", "sft"), ("reward", None), ("prompts", None)} <= read
    assert (steps[2].seed, steps[2].config["epochs"]) == (1, 2)
    value = show_lineage(chain / "v1", as_json=True)
    assert isinstance(value, dict)
    assert value["wrong"] == {}


def test_what_nobody_made_has_none(chain: Path) -> None:
    with pytest.raises(BadInput, match=r"no stage made it, and no lineage\.json beside it says which"):
        show_lineage(chain / "inputs" / "policy", as_json=True)


@pytest.mark.parametrize(
    ("file", "wrong"),
    [
        ("sft/model/model.safetensors", {"sft": "has changed", "samples": "sft changed", "v1": "sft changed"}),
        ("samples/records.jsonl", {"samples": "has changed", "v1": "samples changed"}),
        ("samples/samples.jsonl", {"samples": "has changed"}),
    ],
)
def test_what_has_changed_since_is_named(chain: Path, file: str, wrong: dict[str, str]) -> None:
    flip(chain / file)
    found = show_lineage(chain / "v1" / "model", as_json=True)
    assert isinstance(found, VerbFailure)
    assert found.value["wrong"].keys() == wrong.keys()
    assert all(what in found.value["wrong"][name] for name, what in wrong.items())


def test_a_file_that_was_read_and_is_gone(chain: Path) -> None:
    steps = lineage(chain / "v1")
    prompts = next(Path(each.path) for each in steps[1].read if each.input == "prompts")
    prompts.unlink()
    found = show_lineage(chain / "v1", as_json=True)
    assert isinstance(found, VerbFailure)
    assert found.value["wrong"] == {"samples": f"{prompts} gone"}


@pytest.mark.parametrize("format", ["hf", "meta", "llama2c"])
def test_an_export_remembers_and_is_verified(chain: Path, format: str) -> None:
    out = chain / ("out.bin" if format == "llama2c" else "out")
    export_weights(chain / "v1" / "model", out, format, as_json=True)
    value = show_lineage(out, as_json=True)
    assert isinstance(value, dict)
    assert value["exported"]
    assert [step["name"] for step in value["steps"]] == ["sft", "samples", "v1"]
    weights = out if out.is_file() else next(file for file in out.iterdir() if file.suffix in (".safetensors", ".pth"))
    flip(weights)
    found = show_lineage(out, as_json=True)
    assert isinstance(found, VerbFailure)
    assert found.value["wrong"] == {weights.name: "has changed"}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"steps": 3}, "steps: Input should be a valid array"),
        ({"steps": [{"name": "a"}]}, "steps.0.kind: Field required"),
        ({"files": {"../a": "b"}}, "files: a file that is not beside it; export the model again"),
        ({"files": {"/a": "b"}}, "files: a file that is not beside it; export the model again"),
        ({"oops": 3}, "oops: Unexpected keyword argument"),
    ],
)
def test_a_lineage_that_nobody_wrote(chain: Path, change: dict[str, object], what: str) -> None:
    export_weights(chain / "v1" / "model", chain / "out", "hf", as_json=True)
    kept = json.loads((chain / "out" / LINEAGE).read_text())
    (chain / "out" / LINEAGE).write_text(json.dumps(kept | change))
    with pytest.raises(BadInput, match=re.escape(what)):
        show_lineage(chain / "out", as_json=True)
