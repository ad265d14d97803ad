"""What stages take and leave: read without torch, true of what they do, and checked before anything runs."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_stages import Small, prepare
from test_cli import call

from ayni.errors import BadInput
from ayni.files import write_json
from ayni.formats import rows
from ayni.model.hugging_face import CAUSAL, CLASSIFIER
from ayni.runs.faces import face_of, load_stage, stage_kinds, summary_of
from ayni.runs.kinds import ARCHITECTURES, kinds_at
from ayni.runs.recipe import read_recipe
from ayni.stage import Face, Input, either


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, records and a tokenizer, as the small stages read them."""
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="module")
def stages(directory: Path) -> dict[str, Small]:
    return prepare(directory)


# The faces themselves


@pytest.mark.parametrize("kind", stage_kinds())
def test_a_face_reads_the_same_from_the_source(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    face = load_stage(kind).face
    monkeypatch.delitem(sys.modules, f"ayni.stages.{kind}")
    assert face_of(kind) == face
    assert summary_of(kind)


def test_faces_are_read_without_torch() -> None:
    code = (
        "import sys; from ayni.runs.faces import *; assert all(map(face_of, stage_kinds()));"
        "assert 'torch' not in sys.modules and 'ayni.stages.ppo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert face_of("no_such_stage") is None
    assert face_of("../x") is None


def test_every_default_is_left_by_some_stage() -> None:
    faces = {kind: load_stage(kind).face for kind in stage_kinds()}
    left = {(path, kind) for face in faces.values() for path, kind in face.leaves.items()}
    wanted = {(spec.default, spec.accepts) for face in faces.values() for spec in face.inputs}
    nobodys = {default for default, accepts in wanted if not any((default, kind) in left for kind in accepts)}
    # questions are the user's; what it has computed every stage leaves
    assert nobodys == {"questions.jsonl", "compute.json"}


def test_which_stages_leave_a_model_to_talk_to() -> None:
    assert {kind for kind in stage_kinds() if load_stage(kind).face.chats} == {
        *("sft", "dpo", "kto", "rrhf", "ppo", "choose")
    }


def test_kinds_in_words() -> None:
    assert either(("texts",)) == "texts"
    assert either(("tokenizer", "reward_model", "critic")) == "a tokenizer, a reward model or a critic"


def test_a_face_knows_its_outputs() -> None:
    face = Face("online", (), {"model": "language_model", "snapshots/*/model": "language_model", "critic": "critic"})
    assert face.left_at(Path("snapshots/000010/model")) == "language_model"
    assert face.left_at(Path("snapshots/000010")) is None
    assert face.where(("language_model", "critic")) == ["model", "critic"]


@pytest.mark.parametrize(
    "kind",
    [
        "tokenizer",
        "pretrain",
        "sft",
        "reward",
        "dpo",
        "kto",
        "rrhf",
        "collect",
        "reject",
        "distill",
        "revise",
        "select",
        "ghost",
        "ppo",
        "choose",
        "village",
    ],
)
def test_a_stage_leaves_what_its_face_says(kind: str, stages: dict[str, Small], tmp_path: Path) -> None:
    counts = ("demonstrations", "prompts", "attacks", "safety_demonstrations", "revising", "obeying")
    sizes = {"words": 400, "heldout_words": 400, "heldout_demonstrations": 5} | dict.fromkeys(counts, 5)
    small = stages.get(kind) or Small(kind, sizes, {})
    small.execute(tmp_path / "out")
    for pattern, left in load_stage(kind).face.leaves.items():
        found = sorted((tmp_path / "out").glob(pattern))
        assert found, pattern
        kinds = kinds_at(found[0]) or ()
        assert {"critic": "reward_model"}.get(left, left) in kinds, pattern


def test_a_setting_asks_for_what_is_left_by_it() -> None:
    stage = load_stage("village")
    for config, some in ((stage.config(), False), (stage.config(obeying=1), True)):
        face = stage.face.under(vars(config))
        assert (face.left_at(Path("obeying.jsonl")) is not None) is some
        assert face.left_at(Path("demonstrations.jsonl")) == "demonstrations"
        assert ("constraints-test.jsonl" in face.leaves) is some
    for kind in stage_kinds():
        stage = load_stage(kind)
        assert {*stage.face.by_setting} <= {*stage.face.leaves}
        assert {*stage.face.by_setting.values()} <= {*stage.config.model_fields}


# What lies at a path


def test_models_are_known_by_their_configuration(directory: Path, stages: dict[str, Small], tmp_path: Path) -> None:
    assert set(ARCHITECTURES) == {CAUSAL, CLASSIFIER}
    assert kinds_at(directory / "policy") == ("language_model",)
    assert kinds_at(directory / "helpful") == ("reward_model",)
    assert kinds_at(directory / "tokenizer") == ("tokenizer",)
    assert kinds_at(directory / "policy" / "tokenizer.model") == ("tokenizer",)
    for task, kind in (("CAUSAL_LM", "language_model"), ("SEQ_CLS", "reward_model")):
        write_json(tmp_path / task / "adapter_config.json", {"task_type": task, "peft_type": "LORA"})
        assert kinds_at(tmp_path / task) == (kind,)
    (tmp_path / "CAUSAL_LM" / "adapter_config.json").write_text("{")
    assert kinds_at(tmp_path / "CAUSAL_LM") is None
    write_json(tmp_path / "other" / "config.json", {"architectures": ["GPT2LMHeadModel"]})
    assert kinds_at(tmp_path / "other") is None


PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}


@pytest.mark.parametrize(
    ("name", "content", "kinds"),
    [
        ("a.jsonl", json.dumps(PAIR) + "\nnonsense", ("comparisons", "prompts")),
        ("a.json", "\ufeff [\n" + json.dumps(PAIR) + ", nonsense", ("comparisons", "prompts")),
        ("a.csv", "prompt,chosen,rejected\na,b,c\n", ("comparisons", "prompts")),
        ("a.jsonl", '{"prompt": "a", "response": "b", "score": 1}', ("judgements", "prompts", "comparisons")),
        ("a.jsonl", '{"text": "a"}', ("texts",)),
        ("a.md", "# A", ("texts",)),
        ("a.jsonl", '[[{"prompt_id": "p"}]]', ("samples",)),
        ("a.jsonl", '{"prompt": {"id": "p"}, "answers": {"m": "x"}}', ("answers",)),
        ("a.py", "def reward(): ...", ("function",)),
        ("a.jsonl", '{"question": "a"}', None),
        ("a.jsonl", '{"question": ', None),
        ("a.jsonl", "", None),
        ("a.csv", "a,b\n", None),
        ("a.csv", 'a,b\n1,"', None),
        ("a.parquet", "PAR1", None),
    ],
)
def test_records_are_known_by_their_first_row(
    name: str, content: str, kinds: tuple[str, ...] | None, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text(content, encoding="utf-8")
    assert kinds_at(tmp_path / "data" / name) == kinds
    if kinds and kinds[-1] in ("prompts", "comparisons", "texts"):
        assert kinds_at(tmp_path / "data") == kinds
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    if name != "a.py":
        assert kinds_at(tmp_path / f"{name}.gz") == kinds


def test_only_the_head_of_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({**PAIR, "source": "x" * 200}))
    assert kinds_at(tmp_path / "a.jsonl") == ("comparisons", "prompts")
    (tmp_path / "c.jsonl").write_text(json.dumps([[{"prompt_id": "x" * 200}]]))
    monkeypatch.setattr(rows, "PEEK", 100)
    assert kinds_at(tmp_path / "a.jsonl") is None
    assert kinds_at(tmp_path / "c.jsonl") == ("samples",)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"x" * 9999)[:-12])  # torn
    assert kinds_at(tmp_path / "b.jsonl.gz") is None


# Recipes and verbs

RECIPE = """\
stages:
  village: {}
  base: {kind: pretrain, tokenizer: $AT/tokenizer, data: village}
  sft: {model: base, data: [village/demonstrations.jsonl]}
  pairs: {kind: collect, model: sft, prompts: village}
  helpful: {kind: reward, model: sft, data: pairs, heldout: pairs}
  best: {kind: reject, model: sft, reward: helpful, prompts: [village, $AT/prompts.jsonl]}
  tuned: {kind: sft, model: $AT/policy, data: [best, $AT/demonstrations.jsonl]}
  ppo: {model: tuned, reward_helpfulness: helpful, prompts: village}
  look: {kind: evaluate, model: ppo/snapshots/000010/model, against: sft, prompts: village}
  hacking: {kind: study, start: tuned, runs: ppo, reward_helpfulness: $AT/helpful, prompts: village}
"""


@pytest.fixture
def recipe(tmp_path: Path, directory: Path, stages: dict[str, Small], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AT", str(directory))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def test_a_recipe_of_the_right_kinds_reads(recipe: Path) -> None:
    assert len(read_recipe(recipe).stages) == 10


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("reward: helpful,", "reward: sft,", 7,
         "best.reward: expected a reward model or a Python file with a reward function, "
         "found a language model (sft/model); give helpful"),
        ("$AT/policy", "helpful", 8,
         "tuned.model: expected a language model, found a reward model (helpful/model); give base or sft or ppo"),
        ("model: base", "model: village", 4, "sft.model: expected a language model, but village leaves no model; give"),
        ("[village/demonstrations.jsonl]", "village", 4,
         "sft.data: expected demonstrations, but village leaves no records.jsonl; "
         "give village/demonstrations.jsonl or best"),
        ("[village/demonstrations.jsonl]", "[village/demonstrations.jsonl, village/corpus.jsonl]", 4,
         "sft.data.1: expected demonstrations, found texts (village/corpus.jsonl); give"),
        ("data: [best,", "data: [pairs,", 8, "tuned.data.0: expected demonstrations, found comparisons (pairs/rec"),
        ("heldout: pairs", "heldout: [village/prompts-test.jsonl]", 6,
         "helpful.heldout.0: expected comparisons, found prompts (village/prompts-test.jsonl); give village/"),
        ("$AT/prompts.jsonl", "$AT/demonstrations.jsonl", None, None),  # prompts can be read out of them
        ("$AT/prompts.jsonl", "$AT/corpus.jsonl", 7, "best.prompts.1: $AT/corpus.jsonl: expected prompts, found texts"),
        ("$AT/policy", "$AT/helpful", 8, "tuned.model: $AT/helpful: expected a language model, found a reward model"),
        ("$AT/policy", "$AT/corpus.jsonl", 8, "tuned.model: $AT/corpus.jsonl: expected a language model, found texts"),
        ("$AT/policy", "$AT", 8, "tuned.model: $AT: no config.json: not a model directory"),
        ("$AT/demonstrations", "$AT/comparisons", 8, "tuned.data.1: $AT/comparisons.jsonl: expected demonstrations, "),
        ("ppo/snapshots/000010/model", "ppo/critic", 10, "look.model: expected a language model, found a critic (ppo"),
        ("runs: ppo", "runs: ppo/model", 11, "hacking.runs: expected a policy's snapshots, found a language model"),
        ("runs: ppo", "runs: look", 11, "hacking.runs: expected a policy's snapshots, but look leaves no snapshots"),
        ("$AT/helpful", "$AT/policy", 11, "hacking.reward_helpfulness: $AT/policy: expected a reward model, found a l"),
        ("$AT/tokenizer", "$AT/policy", None, None),  # a model holds its tokenizer
        ("model: base", "model: $AT/base", None, None),
        ("$AT/demonstrations.jsonl", "sft/model/notes.jsonl", None, None),  # inside an output: who knows
    ],
)  # fmt: skip
def test_a_stage_of_the_wrong_kind_is_refused_with_its_line(
    recipe: Path, old: str, new: str, line: int | None, message: str | None
) -> None:
    assert RECIPE.count(old) == 1
    recipe.write_text(RECIPE.replace(old, new))
    if message is None:
        read_recipe(recipe)
        return
    with pytest.raises(BadInput) as caught:
        read_recipe(recipe)
    assert f"recipe.yaml:{line}: stages.{message}" in str(caught.value)


def test_nothing_is_written_when_a_kind_is_wrong(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(RECIPE.replace("reward: helpful,", "reward: sft,"))
    for more in ([], ["--dry-run"]):
        code, out, err = call(capsys, "run", recipe, "--out", recipe.parent / "run", *more)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "stages.best.reward: expected a reward model" in err
    assert not (recipe.parent / "run").exists()


def verb(capsys: pytest.CaptureFixture[str], *argv: Any) -> str:
    code, out, err = call(capsys, *argv, "--quiet")
    assert (code, out, err.count("\n")) == (2, "", 1)
    return err


def test_verbs_check_too(
    capsys: pytest.CaptureFixture[str], directory: Path, stages: dict[str, Small], tmp_path: Path
) -> None:
    out = ["--out", tmp_path / "o"]
    pairs, policy, rm = directory / "comparisons.jsonl", directory / "policy", directory / "helpful"
    output = verb(capsys, "sft", "--model", rm, "--data", directory / "demonstrations.jsonl", *out)
    assert output == f"{rm}: expected a language model, found a reward model\n"
    assert "found comparisons" in verb(capsys, "sft", "--model", policy, "--data", pairs, *out, "--dry-run")
    assert "found a Python file" in verb(
        capsys, "reject", "--model", __file__, "--reward", rm, "--prompts", directory / "prompts.jsonl", *out
    )
    stages["tokenizer"].execute(tmp_path / "made")
    output = verb(capsys, "sft", "--model", tmp_path / "made", "--data", pairs, *out)
    assert output == f"{tmp_path / 'made'}: expected a language model, but the stage tokenizer left no model\n"
    output = verb(capsys, "tokenizer", "--data", tmp_path / "made", *out)
    assert output == f"{tmp_path / 'made'}: expected texts, but the stage tokenizer left no corpus.jsonl\n"
    assert not (tmp_path / "o").exists()


def test_an_inputs_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    """`setting` and `without` of an input are what its option may say beside a path."""
    assert [spec.name for kind in stage_kinds() for spec in load_stage(kind).face.inputs if spec.setting] == [
        "judge", "judge", "classifier", "reward",
    ]  # fmt: skip
    for kind in stage_kinds():
        stage = load_stage(kind)
        assert all(spec.setting is None or spec.setting in stage.config.model_fields for spec in stage.face.inputs)
    output = " ".join(call(capsys, "evaluate", "--help")[1].replace("│", " ").split())
    assert "A reward model: a path, or the stage that left it (model); an http address; gold." in output
    assert Input("a", "b", ("texts",)).setting is None
