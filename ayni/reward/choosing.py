"""One answer out of several, at inference: the best of N samples, or the best that a search finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ayni.errors import BadInput
from ayni.records import Prompt, Sample
from ayni.reward.combine import CombinedReward, best_of
from ayni.reward.model import RewardModel
from ayni.rollout.engine import Engine, rollout
from ayni.rollout.sampling import Sampling
from ayni.rollout.search import Search, Spent, search
from ayni.text.tokenizer import Tokenizer


class Chosen(NamedTuple):
    """An answer, what its chooser said of it and of all that it chose from, and what they cost."""

    sample: Sample
    score: float
    scores: list[float]
    spent: Spent


@dataclass(frozen=True)
class Chooser:
    """Of `n` samples, or of what a `search` finds, the answer that `reward` likes best.

    `critic` guides the search, else `reward`; without a reward the critic chooses, too. An answer that was cut off wins
    over no finished one.
    """

    reward: CombinedReward | None
    n: int = 1
    search: Search | None = None
    critic: RewardModel | None = None

    @property
    def name(self) -> str:
        return chosen_how(self.n, self.search, self.critic is not None)

    @property
    def context(self) -> float:
        """Tokens of prompt and answer that can be read."""
        critic = float("inf") if self.critic is None else self.critic.role.context
        return critic if self.reward is None else min(critic, self.reward.context)

    def __call__(self, engine: Engine, prompts: Sequence[Prompt], *, sampling: Sampling, seed: int) -> list[Chosen]:
        """The answer to every prompt, in order; seeds as of `rollout` and `search`."""
        if self.search is not None:
            return self._searched(engine, prompts, self.search, sampling, seed)
        assert self.reward is not None  # chooser_of has looked
        groups = rollout(engine, prompts, n=self.n, sampling=sampling, seed=seed)
        rows = self.reward(prompts, groups).combined.view(len(groups), -1).tolist()
        return [
            _chosen(group, row, Spent(len(group[0].prompt_tokens), _tokens(group), self.reward.readers * _read(group)))
            for group, row in zip(groups, rows, strict=True)
        ]

    def _searched(
        self, engine: Engine, prompts: Sequence[Prompt], settings: Search, sampling: Sampling, seed: int
    ) -> list[Chosen]:
        def guide(asked: Sequence[Prompt], groups: Sequence[Sequence[Sample]]) -> list[float]:
            if self.critic is not None:
                return values_of(self.critic, groups)
            assert self.reward is not None
            return [float(score) for score in self.reward(asked, groups).combined]

        readers = 1 if self.critic is not None else self.reward.readers if self.reward is not None else 0
        found = search(engine, prompts, guide, settings, sampling=sampling, seed=seed, readers=readers)
        if self.critic is None or self.reward is None:
            return [_chosen(each.samples, each.values, each.spent) for each in found]
        # a critic tells what is to be expected; what a whole answer is worth the reward says
        scores = iter(self.reward(prompts, [each.samples for each in found]).combined.tolist())
        chosen = []
        for each in found:
            each.spent.scored += self.reward.readers * _read(each.samples)
            chosen.append(_chosen(each.samples, [next(scores) for _ in each.samples], each.spent))
        return chosen


def chooser_of(
    reward: CombinedReward | None, n: int, search: Search | None, critic: RewardModel | None, tokenizer: Tokenizer
) -> Chooser | None:
    """None where nothing is to be chosen; BadInput for what does not go together."""
    if n > 1 and search is not None:
        raise BadInput(
            "an answer is the best of several, or what a search finds", field="best_of", fix="give one of both"
        )
    if critic is not None and search is None:
        raise BadInput("a critic guides a search", field="critic", fix="give search, or no critic")
    if search is not None and reward is None and critic is None:
        raise BadInput("a search asks a reward model or a critic", field="search", fix="give one")
    if search is None and (reward is not None) != (n > 1):
        raise BadInput("best_of and a reward model belong together", field="best_of", fix="give both, or neither")
    if critic is not None and critic.tokenizer.fingerprint != tokenizer.fingerprint:
        raise BadInput("the critic reads the policy's tokens, but their tokenizers differ", field="critic")
    return None if reward is None and critic is None else Chooser(reward, n, search, critic)


def chosen_how(n: int, search: Search | None, guided: bool) -> str:
    """In a model's name: "best of 8", "beam 2×2", "beam 2×2 by critic" if one guides; empty where nothing is chosen."""
    if search is not None:
        return f"{search} by critic" if guided else str(search)
    return f"best of {n}" if n > 1 else ""


def values_of(critic: RewardModel, groups: Sequence[Sequence[Sample]]) -> list[float]:
    """The critic's value of every partial answer, up to its scale; of a finished one, before its EOS was drawn.

    V(s) stands at the last token of s, where a reward model's score stands; after EOS there is nothing to come.
    """
    rows = [
        [*s.prompt_tokens, *(s.tokens[:-1] if s.finished == "stop" else s.tokens)] for group in groups for s in group
    ]
    return [float(value) for value in critic.score_tokens(rows)]


def _chosen(samples: Sequence[Sample], scores: Sequence[float], spent: Spent) -> Chosen:
    best = best_of(scores, samples)
    return Chosen(samples[best], scores[best], list(scores), spent)


def _tokens(samples: Sequence[Sample]) -> int:
    return sum(len(sample.tokens) for sample in samples)


def _read(samples: Sequence[Sample]) -> int:
    return sum(len(sample.prompt_tokens) + len(sample.tokens) for sample in samples)
