"""What `ayni chat` and `ayni generate` choose an answer by: the best of N, or a search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ayni.cli.stages import checked, reward_at
from ayni.errors import BadInput
from ayni.reward.choosing import Chooser, chooser_of
from ayni.reward.combine import CombinedReward, check_threshold
from ayni.reward.model import load_reward
from ayni.rollout.engine import Engine
from ayni.rollout.search import Search
from ayni.runs.status import output_of


@dataclass(frozen=True)
class Choice:
    """The options, as typed."""

    best_of: int = 1
    reward: str | Path | None = None
    reward_safety: str | Path | None = None
    threshold: float = 0.15
    search: Literal["beam", "tree"] | None = None
    critic: Path | None = None
    width: int = 2
    expand: int = 2
    step: int = 32
    sentences: bool = True
    budget: int = 1000

    def check(self) -> None:
        """BadInput for options that do not go together, before any model is read."""
        if self.search is None and (self.best_of > 1) != (self.reward is not None):
            raise BadInput("--best-of N and --reward RM go together")
        if self.reward_safety is not None and self.reward is None:
            raise BadInput("--reward-safety RM stands beside --reward RM")
        if self.search is not None and self.reward is None and self.critic is None:
            raise BadInput("--search asks a --reward RM or a --critic, or both")
        if self.search is not None and self.best_of > 1:
            raise BadInput("an answer is the best of N (--best-of) or what a --search finds")
        if self.critic is not None and self.search is None:
            raise BadInput("a --critic guides a --search")

    def chooser(self, engine: Engine) -> Chooser | None:
        """None where there is nothing to choose."""
        searched = None
        if self.search is not None:
            searched = Search(
                how=self.search,
                width=self.width,
                expand=self.expand,
                step=self.step,
                sentences=self.sentences,
                budget=self.budget,
            )
        reward = None
        if self.reward is not None:
            safety = None
            if self.reward_safety is not None:
                safety = reward_at(self.reward_safety)
                fix = "train it on comparisons with safety labels"
                check_threshold(safety, self.threshold, Path(self.reward_safety), fix)
            reward = CombinedReward(reward_at(self.reward), safety, engine.tokenizer, self.threshold)
        critic = None if self.critic is None else load_reward(checked(output_of(self.critic, "critic")))
        return chooser_of(reward, self.best_of, searched, critic, engine.tokenizer)
