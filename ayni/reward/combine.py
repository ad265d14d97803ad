"""A helpfulness and a safety reward model as one reward (paper §3.2.3)."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ayni.maths.rewards import combine_rewards
from ayni.parallel import Ranks
from ayni.records import Prompt, Sample
from ayni.reward.model import Reward, load_reward
from ayni.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Scores:
    """Raw scores of N answers; `combined` is logit(R_c), not yet whitened. All (N,)."""

    helpfulness: Tensor
    safety: Tensor | None
    combined: Tensor


@dataclass(frozen=True)
class Judges:
    """The rewards of one run; without one for safety, helpfulness alone decides. Each of the `ranks`
    scores its share."""

    helpfulness: Reward
    safety: Reward | None
    threshold: float = 0.15
    ranks: Ranks = Ranks()

    def __call__(self, prompts: Many[Prompt], groups: Many[Many[Sample]], policy: Tokenizer) -> Scores:
        helpfulness = self._scores(self.helpfulness, prompts, groups, policy)
        if self.safety is None:
            return Scores(helpfulness, None, helpfulness)
        safety = self._scores(self.safety, prompts, groups, policy)
        tagged = torch.tensor(
            [p.task == "safety" for p, group in zip(prompts, groups, strict=True) for _ in group], dtype=torch.bool
        )
        return Scores(helpfulness, safety, combine_rewards(helpfulness, safety, tagged, self.threshold))

    def _scores(self, reward: Reward, prompts: Many[Prompt], groups: Many[Many[Sample]], policy: Tokenizer) -> Tensor:
        mine = self.ranks.share(groups)
        scores = reward.score_samples(self.ranks.share(prompts), mine, policy)
        return self.ranks.gather_rows(scores, [len(group) for group in mine])


def judges_of(
    helpfulness: Reward,
    safety: Path | None,
    ranks: Ranks,
    *,
    threshold: float = 0.15,
    dtype: torch.dtype = torch.float32,
) -> Judges:
    """With the safety reward model in the directory `safety`, where there is one."""
    safe = None if safety is None else load_reward(safety, dtype=dtype, device=ranks.device)
    return Judges(helpfulness, safe, threshold, ranks)
