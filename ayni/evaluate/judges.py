"""Who decides which of two answers is better: the village's gold scores, or a reward model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ayni.errors import BadInput
from ayni.records import Prompt, Sample, Task
from ayni.reward.model import RewardModel
from ayni.text.tokenizer import Tokenizer
from ayni.village.gold import TIE, Gold
from ayni.village.village import Village


class Scorer(Protocol):
    """Scores the answers of the policy with this tokenizer alone, on one axis; scores within `tie` are as good as
    equal."""

    name: str
    tie: float

    def scores(
        self, prompts: Sequence[Prompt], answers: Sequence[Sample], axis: Task, tokenizer: Tokenizer
    ) -> list[float]: ...


class GoldScorer:
    """The hidden scores of the prompts' village. Raises BadInput for prompts of another world."""

    name, tie = "gold", TIE

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        worlds = {prompt.source for prompt in prompts}
        name = next(iter(worlds), "")
        seed = name.removeprefix("village-")
        if len(worlds) != 1 or not name.startswith("village-") or not seed.isdigit():
            raise BadInput("the gold judge knows the prompts of one village only", fix="give a reward model as judge")
        self.gold = Gold(Village(int(seed)))

    def scores(
        self, prompts: Sequence[Prompt], answers: Sequence[Sample], axis: Task, tokenizer: Tokenizer
    ) -> list[float]:
        return [self.gold.score(prompt, answer.text, axis) for prompt, answer in zip(prompts, answers, strict=True)]


class RewardScorer:
    """A reward model's raw scores, whatever the axis; it reads the tokens as they were drawn, where it can."""

    tie = 0.0

    def __init__(self, reward: RewardModel) -> None:
        self.name, self.reward = reward.name or "reward", reward
        self.normalised = reward.scale.normalisation  # so that two reward models' scores can be compared

    def scores(
        self, prompts: Sequence[Prompt], answers: Sequence[Sample], axis: Task, tokenizer: Tokenizer
    ) -> list[float]:
        return self.reward.score_samples(prompts, [[answer] for answer in answers], tokenizer).tolist()
