"""recipes/own.yaml: files of a user's own, from a base model to a win rate by a judge that no model learnt from."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_recipes import RECIPES, unmeasured
from small_stages import comparisons, prepare
from tiny import prompts

from ayni.errors import BadInput
from ayni.files import read_jsonl, read_object, write_jsonl
from ayni.records import to_dict
from ayni.runs.pipeline import run_recipe
from ayni.runs.recipe import read_recipe
from ayni.runs.status import stage_directories


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The base is what a finished stage left, named by its directory."""
    inputs = prepare(tmp_path)
    inputs["pretrain"].execute(tmp_path / "pretrained")
    write_jsonl(tmp_path / "asked.jsonl", map(to_dict, prompts(60, seed=11)))
    write_jsonl(tmp_path / "pairs.jsonl", map(to_dict, comparisons(40, seed=3)))
    monkeypatch.setenv("BASE", str(tmp_path / "pretrained"))
    for name, file in (("CHATS", "demonstrations"), ("PAIRS", "pairs"), ("PROMPTS", "asked")):
        monkeypatch.setenv(name, str(tmp_path / f"{file}.jsonl"))
    return tmp_path


def test_from_files_of_ones_own_to_a_verdict(files: Path) -> None:
    assert unmeasured(RECIPES / "own.yaml", files / "run") == []
    where = stage_directories(files / "run")
    for name in ("chooser", "judge"):  # each knows the half that the other does not
        assert read_object(where[name] / "inputs.json")["inputs"]["data"][0]["path"] == str(files / "pairs.jsonl")
    halves = [{line["pair"] for _, line in read_jsonl(where[name] / "leads.jsonl")} for name in ("chooser", "judge")]
    assert halves[0]
    assert halves[1]
    assert not halves[0] & halves[1]


def test_a_recipe_takes_a_finished_stage_for_what_it_left(files: Path) -> None:
    sft = next(stage for stage in read_recipe(RECIPES / "own.yaml").stages if stage.name == "sft")
    assert [reference.path for reference in sft.inputs["model"]] == [files / "pretrained" / "model"]


def test_a_whole_run_is_refused_with_its_stages(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_recipe(RECIPES / "tiny.yaml", files / "tiny", ["village.words=20000"], only=["tokenizer"], quiet=True)
    monkeypatch.setenv("BASE", str(files / "tiny"))
    with pytest.raises(
        BadInput, match=r"own.yaml:\d+: stages.sft.model: \$BASE is a whole run; name one of its stages"
    ):
        read_recipe(RECIPES / "own.yaml")
