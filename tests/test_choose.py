"""The best of several tries, on validation prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_stages import prepare
from tiny import prompts

from ayni.evaluate.results import read_results
from ayni.files import read_object
from ayni.model_directory import load_model
from ayni.records import Prompt
from ayni.rollout.local import LocalEngine
from ayni.run import name_of
from ayni.stages import choose
from ayni.stages.choose import CHOSEN, Scored, preferred


def scored(*answers: tuple[float, bool]) -> Scored:
    rewards, cut = zip(*answers, strict=True)
    return torch.tensor(rewards), torch.tensor(cut)


def test_a_cut_answer_is_worth_the_same_whoever_gave_it() -> None:
    """Whatever a judge made of it: a try that never ends is not to be chosen."""
    after = scored((5.0, True), (5.0, True), (1.0, False), (2.0, False))
    before = scored((-3.0, True), (0.0, False), (9.0, True), (1.0, False))
    assert preferred(prompts(4), after, before) == [0.5, 0.0, 1.0, 1.0]
    assert preferred(prompts(4), before, after) == [0.5, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("best", [0, 1])
def test_the_try_that_is_preferred_most_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: int) -> None:
    small = prepare(tmp_path)["choose"]
    tries = [Path(path) for path in small.inputs["models"]]  # type: ignore[arg-type, union-attr]
    worth = {name_of(path): float(number == best) for number, path in enumerate(tries)}

    def scored(engine: LocalEngine, asked: list[Prompt], *_: Any) -> Scored:
        rewards = torch.full((len(asked),), worth.get(engine.name, 0.5))
        return rewards, torch.zeros(len(asked), dtype=torch.bool)

    monkeypatch.setattr(choose, "scores_of", scored)
    small.execute(tmp_path / "out")
    names = [name_of(path) for path in tries]
    assert read_object(tmp_path / "out" / CHOSEN) == {"chosen": names[best], "of": names}
    rows = read_results(tmp_path / "out" / "results.json")
    shares = {row.model: row.value for row in rows if row.metric == "preferred"}
    assert shares == {names[best]: 1, names[1 - best]: 0}
    assert [row.value for row in rows if row.metric == "preferred_gain"] == [1]
    kept, wanted = (load_model(path)[0].state_dict() for path in (tmp_path / "out" / "model", tries[best]))
    assert all(torch.equal(kept[name], wanted[name]) for name in wanted)
