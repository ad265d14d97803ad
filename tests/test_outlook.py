"""The time left of a whole run: from what the recipe says of its stages, at this machine's pace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ayni.errors import BadInput
from ayni.run import Run
from ayni.runs.outlook import Outlook
from ayni.runs.pipeline import run_recipe
from ayni.runs.recipe import read_recipe

EXPECTED = {"a": 10.0, "b": 20.0, "c": 30.0}


def test_before_anything_has_run_the_recipe_is_believed() -> None:
    outlook = Outlook(EXPECTED, ["a", "b", "c"])
    assert outlook.left() == 60
    assert outlook.told() == ", 1m00s left"


def test_stages_that_ran_here_set_the_pace_and_those_found_do_not() -> None:
    outlook = Outlook(EXPECTED, ["a", "b", "c"])
    outlook.finished("a", None)
    assert outlook.left() == 50
    outlook.finished("b", 40.0)
    assert outlook.left() == 60  # twice as slow
    outlook.finished("c", 70.0)
    assert outlook.told() == ""


def test_a_running_stage_counts_as_far_as_it_is_known() -> None:
    outlook = Outlook(EXPECTED, ["a", "b", "c"])
    # half of it is left and takes 10 s where 5 were foreseen: the others will take twice as long, too
    assert outlook.while_running("a", 10.0, 0.5) == 10 + 2 * 50
    outlook.finished("a", 10.0)
    assert outlook.while_running("b", 20.0, 0.5) == 20 + (10 + 20) / (10 + 10) * 30


def test_of_an_unknown_stage_nobody_knows() -> None:
    outlook = Outlook({"a": 1.0}, ["a", "b"])
    assert outlook.left() is None
    assert outlook.while_running("a", 1.0, 0.5) is None
    outlook.finished("a", 1.0)
    assert outlook.told() == ""


def test_progress_says_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("ayni.run.time.monotonic", lambda: now[0])
    run = Run(tmp_path, name="base", foresee=lambda left, share: left + 100 if share == 0.5 else 0.0)
    run.progress(0, 10)
    now[0] = 10
    run.progress(5, 10)
    assert "10s left (1m50s of the run)" in capsys.readouterr().err


RECIPE = """\
name: two
seconds: {village: 5, tokenizer: 10}
stages:
  village: {words: 3000, demonstrations: 5, exercises: 5}
  tokenizer: {data: [village/corpus.jsonl], vocab_size: 500}
"""


def test_a_run_says_how_long_it_takes_from_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "two.yaml").write_text(RECIPE)
    run_recipe(tmp_path / "two.yaml", tmp_path / "run")
    said = capsys.readouterr().err
    assert said.startswith("two: 2 stages, 15s left\n")
    assert re.search(r"\[1/2\] village: ran in \d+ s, \d+s left\n", said)
    assert re.search(r"\[2/2\] tokenizer: ran in \d+ s\n", said)


def test_a_time_of_no_stage_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(RECIPE.replace("tokenizer: 10", "tokeniser: 10"))
    with pytest.raises(BadInput, match=r"two.yaml:2: seconds.tokeniser: there is no stage 'tokeniser'; .*tokenizer"):
        read_recipe(tmp_path / "two.yaml")


@pytest.mark.parametrize("name", ["mini", "tiny", "measured"])
def test_the_recipes_that_people_wait_for_tell_their_time(name: str) -> None:
    recipe = read_recipe(Path(__file__).parent.parent / "recipes" / f"{name}.yaml")
    assert recipe.seconds.keys() == {stage.name for stage in recipe.stages}
