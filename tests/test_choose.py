"""The best of several tries, on validation prompts."""

from __future__ import annotations

import torch
from tiny import prompts

from ayni.stages.choose import Scored, preferred


def scored(*answers: tuple[float, bool]) -> Scored:
    rewards, cut = zip(*answers, strict=True)
    return torch.tensor(rewards), torch.tensor(cut)


def test_a_cut_answer_is_worth_the_same_whoever_gave_it() -> None:
    """Whatever a judge made of it: a try that never ends is not to be chosen."""
    after = scored((5.0, True), (5.0, True), (1.0, False), (2.0, False))
    before = scored((-3.0, True), (0.0, False), (9.0, True), (1.0, False))
    assert preferred(prompts(4), after, before) == [0.5, 0.0, 1.0, 1.0]
    assert preferred(prompts(4), before, after) == [0.5, 1.0, 0.0, 0.0]
