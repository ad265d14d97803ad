"""Ranked candidates: raise the likelihood of the better ones of a group over that of the others, imitate the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ayni.maths.losses import pro_loss, rrhf_loss
from ayni.model.role import Role
from ayni.train.batch import Groups, groups_of
from ayni.train.objectives import Metrics, Objective, sum_by_sequence


@dataclass(frozen=True)
class RRHF(Objective):
    """Rank candidates by length-normalised log-probability, and imitate the best (Yuan et al. 2023). Items are groups.

    The imitation term is the best answer's cross-entropy, summed over its tokens (equation 4). Without the ranking term
    (`ranking` 0) it is rejection sampling: supervised fine-tuning on the best answers.
    """

    imitation: float = 1.0
    ranking: float = 1.0

    def batch(self, examples: Sequence[Any]) -> Groups:
        return groups_of(examples)

    def count(self, batch: Groups) -> Tensor:
        return torch.tensor(len(batch.rewards) // batch.size, device=batch.tokens.device)

    def loss(self, role: Role, batch: Groups) -> tuple[Tensor, Metrics]:
        logprobs = role.logprobs(batch)
        lengths = sum_by_sequence(torch.ones_like(logprobs), batch)
        # an answer without a supervised token has mean 0, not 0/0
        sums = sum_by_sequence(logprobs, batch).view(-1, batch.size)
        means = sums / lengths.clamp(min=1).view(-1, batch.size)
        rewards = batch.rewards.to(means.dtype).view(-1, batch.size)
        best = rewards.argmax(1, keepdim=True)
        imitation = -sums.gather(1, best).sum()
        agree = (means.argmax(1, keepdim=True) == best).sum()
        loss = self.ranking * self.ranked(means, rewards).sum() + self.imitation * imitation
        return loss, {"agreement": (agree, self.count(batch))}

    def ranked(self, means: Tensor, rewards: Tensor) -> Tensor:
        """What the order of each group costs: both (G, K) → (G,)."""
        return rrhf_loss(means, rewards)


@dataclass(frozen=True)
class PRO(RRHF):
    """The same, but each candidate is to be the likeliest of those that are no better (Song et al. 2023)."""

    def ranked(self, means: Tensor, rewards: Tensor) -> Tensor:
        return pro_loss(means, rewards)
