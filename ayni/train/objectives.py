"""Objectives: (model, batch) → a SUM over items, and how many items. The trainer divides, once, for the whole world.

An algorithm is its ten lines: all share the batches, the loop and the heads.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ayni.maths.losses import (
    dpo_loss,
    ipo_loss,
    policy_clip_loss,
    ranking_loss,
    rrhf_loss,
    safety_loss,
    value_clip_loss,
)
from ayni.model.heads import column_values, sequence_scores, token_logprobs
from ayni.model.transformer import Transformer
from ayni.train.batch import Batch, Experience, Groups, Pairs, batch_of, experience_of, groups_of, pairs_of

Metrics = dict[str, tuple[Tensor, Tensor]]  # name → (sum, count); summed over micro-batches and ranks, then divided


class Objective(Protocol):
    """`batch` lays examples out, `count` says how many items the loss sums over, `loss` returns that sum."""

    def batch(self, examples: Many[Any]) -> Any: ...

    def count(self, batch: Any) -> Tensor: ...

    def loss(self, model: Transformer, batch: Any) -> tuple[Tensor, Metrics]: ...


def sum_by_sequence(x: Tensor, batch: Batch) -> Tensor:
    """Sums of masked-column values x (M,) per sequence: (N,)."""
    layout = batch.layout
    lengths = layout.offsets.diff()
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=x.device), lengths)[batch.mask]
    return x.new_zeros(len(lengths)).index_add(0, owner, x)


@dataclass(frozen=True)
class NextToken:
    """Cross-entropy on the masked tokens: pretraining and supervised fine-tuning (paper §3.1)."""

    def batch(self, examples: Many[Any]) -> Batch:
        return batch_of(examples)

    def count(self, batch: Batch) -> Tensor:
        return batch.mask.sum()

    def loss(self, model: Transformer, batch: Batch) -> tuple[Tensor, Metrics]:
        hidden = model(batch.tokens, batch.layout)
        return -token_logprobs(hidden, model.head, batch.targets, batch.mask).sum(), {}


@dataclass(frozen=True)
class Ranking:
    """Ranking loss with margins, plus the safety auxiliary loss where labels exist (paper §3.2.2). Items are pairs."""

    safety_weight: float = 0.0

    def batch(self, examples: Many[Any]) -> Pairs:
        return pairs_of(examples)

    def count(self, batch: Pairs) -> Tensor:
        return torch.tensor(len(batch.margin), device=batch.tokens.device)

    def loss(self, model: Transformer, batch: Pairs) -> tuple[Tensor, Metrics]:
        scores = sequence_scores(model, model(batch.tokens, batch.layout), batch.layout)
        chosen, rejected = scores[0::2], scores[1::2]
        loss = ranking_loss(chosen, rejected, batch.margin.to(scores.dtype)).sum()
        pairs = self.count(batch)
        metrics = {"accuracy": ((chosen > rejected).sum(), pairs), "lead": ((chosen - rejected).detach().sum(), pairs)}
        said = batch.safe >= 0
        if self.safety_weight:
            # ½: both answers of a pair carry a label, and the item is the pair
            auxiliary = safety_loss(scores[said], batch.safe[said]).sum()
            loss = loss + 0.5 * self.safety_weight * auxiliary
            metrics["safety_loss"] = (auxiliary.detach(), said.sum())
        return loss, metrics


@dataclass(frozen=True)
class DPO:
    """Direct preference optimisation, or IPO: log-probs summed over the answer (Rafailov et al. 2023)."""

    beta: float = 0.1
    smoothing: float = 0.0
    ipo: bool = False

    def batch(self, examples: Many[Any]) -> Pairs:
        return pairs_of(examples)

    def count(self, batch: Pairs) -> Tensor:
        return torch.tensor(len(batch.margin), device=batch.tokens.device)

    def loss(self, model: Transformer, batch: Pairs) -> tuple[Tensor, Metrics]:
        hidden = model(batch.tokens, batch.layout)
        sums = sum_by_sequence(token_logprobs(hidden, model.head, batch.targets, batch.mask), batch)
        reference = batch.ref_logprobs.to(sums.dtype)
        four = (sums[0::2], sums[1::2], reference[0::2], reference[1::2])
        loss = (
            ipo_loss(*four, beta=self.beta) if self.ipo else dpo_loss(*four, beta=self.beta, smoothing=self.smoothing)
        )
        lead = self.beta * ((four[0] - four[1]) - (four[2] - four[3])).detach()
        pairs = self.count(batch)
        return loss.sum(), {"accuracy": ((lead > 0).sum(), pairs), "lead": (lead.sum(), pairs)}


@dataclass(frozen=True)
class RRHF:
    """Rank candidates by length-normalised log-probability, and imitate the best (Yuan et al. 2023). Items are groups.

    The imitation term is the best answer's mean cross-entropy, so that both terms speak per token.
    """

    imitation: float = 1.0

    def batch(self, examples: Many[Any]) -> Groups:
        return groups_of(examples)

    def count(self, batch: Groups) -> Tensor:
        return torch.tensor(len(batch.rewards) // batch.size, device=batch.tokens.device)

    def loss(self, model: Transformer, batch: Groups) -> tuple[Tensor, Metrics]:
        hidden = model(batch.tokens, batch.layout)
        logprobs = token_logprobs(hidden, model.head, batch.targets, batch.mask)
        lengths = sum_by_sequence(torch.ones_like(logprobs), batch)
        means = (sum_by_sequence(logprobs, batch) / lengths.clamp(min=1)).view(-1, batch.size)
        rewards = batch.rewards.to(means.dtype).view(-1, batch.size)
        best = rewards.argmax(1, keepdim=True)
        ranking = rrhf_loss(means, rewards).sum()
        imitation = -means.gather(1, best).sum()
        agree = (means.argmax(1, keepdim=True) == best).sum()
        return ranking + self.imitation * imitation, {"agreement": (agree, self.count(batch))}


@dataclass(frozen=True)
class PolicyClip:
    """PPO's clipped policy loss over sampled tokens, at the sampler's temperature (paper §3.2.3)."""

    clip: float = 0.2
    temperature: float = 1.0

    def batch(self, examples: Many[Any]) -> Experience:
        return experience_of(examples)

    def count(self, batch: Experience) -> Tensor:
        return batch.mask.sum()

    def loss(self, model: Transformer, batch: Experience) -> tuple[Tensor, Metrics]:
        hidden = model(batch.tokens, batch.layout)
        logprobs = token_logprobs(hidden, model.head, batch.targets, batch.mask, self.temperature)
        old = batch.logprobs[batch.mask].to(logprobs.dtype)
        advantages = batch.advantages[batch.mask].to(logprobs.dtype)
        loss = policy_clip_loss(logprobs, old, advantages, clip=self.clip).sum()
        ratio, items = (logprobs - old).detach().exp(), self.count(batch)
        log_ratio = (logprobs - old).detach()
        return loss, {
            "ratio": (ratio.sum(), items),
            "clipped": (((ratio - 1).abs() > self.clip).sum(), items),
            "approx_kl": ((ratio - 1 - log_ratio).sum(), items),
        }


@dataclass(frozen=True)
class ValueClip:
    """The critic's clipped squared error over the same tokens."""

    clip: float = 0.2

    def batch(self, examples: Many[Any]) -> Experience:
        return experience_of(examples)

    def count(self, batch: Experience) -> Tensor:
        return batch.mask.sum()

    def loss(self, model: Transformer, batch: Experience) -> tuple[Tensor, Metrics]:
        values = column_values(model, model(batch.tokens, batch.layout), batch.mask.nonzero().squeeze(-1))
        old, returns = (x[batch.mask].to(values.dtype) for x in (batch.values, batch.returns))
        return value_clip_loss(values, old, returns, clip=self.clip).sum(), {}
