"""Objectives: (role, batch) → a SUM over items, and how many items. The trainer divides, once, for the whole world.

An algorithm is its ten lines: all share the batches, the loop and the heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ayni.maths.losses import (
    dpo_loss,
    ipo_loss,
    kl_k3,
    policy_clip_loss,
    policy_gradient_loss,
    policy_penalty_loss,
    ranking_loss,
    safety_loss,
    value_clip_loss,
)
from ayni.model.role import Role
from ayni.parallel import Ranks
from ayni.train.batch import Batch, Experience, PairBatch, batch_of, experience_of, pairs_of

Metrics = dict[str, tuple[Tensor, Tensor]]  # name → (sum, count); summed over micro-batches and ranks, then divided


class Objective(Protocol):
    """`batch` lays examples out, `count` says how many items the loss sums over, `loss` returns that sum."""

    def batch(self, examples: Sequence[Any]) -> Any: ...

    def count(self, batch: Any) -> Tensor: ...

    def loss(self, role: Role, batch: Any) -> tuple[Tensor, Metrics]: ...

    def settled(self, role: Role, examples: Sequence[Any], ranks: Ranks, budget: int) -> Objective:
        """This objective, knowing what must be known of a whole step before it is cut: a statistic of the examples of
        all ranks under the model as it is. Most need none."""
        return self


def sum_by_sequence(x: Tensor, batch: Batch) -> Tensor:
    """Sums of masked-column values x (M,) per sequence: (N,)."""
    layout = batch.layout
    lengths = layout.offsets.diff()
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=x.device), lengths)[batch.mask]
    return x.new_zeros(len(lengths)).index_add(0, owner, x)


@dataclass(frozen=True)
class NextToken(Objective):
    """Cross-entropy on the masked tokens: pretraining and supervised fine-tuning (paper §3.1)."""

    def batch(self, examples: Sequence[Any]) -> Batch:
        return batch_of(examples)

    def count(self, batch: Batch) -> Tensor:
        return batch.mask.sum()

    def loss(self, role: Role, batch: Batch) -> tuple[Tensor, Metrics]:
        # a sum over tokens: every answer token of a step counts alike, whatever the dialogue's length
        return -role.logprobs(batch).sum(), {}


@dataclass(frozen=True)
class Ranking(Objective):
    """Ranking loss with margins, plus the safety auxiliary loss where labels exist (paper §3.2.2). Items are pairs,
    a pair's loss counts `weight` times; a soft label is learnt as the probability it is."""

    safety_weight: float = 0.0

    def batch(self, examples: Sequence[Any]) -> PairBatch:
        return pairs_of(examples)

    def count(self, batch: PairBatch) -> Tensor:
        return torch.tensor(len(batch.margin), device=batch.tokens.device)

    def loss(self, role: Role, batch: PairBatch) -> tuple[Tensor, Metrics]:
        scores = role.scores(batch)
        # as pairs_of lays them out
        chosen, rejected = scores[0::2], scores[1::2]
        weight = batch.weight.to(scores.dtype)
        margin, probability = batch.margin.to(scores.dtype), batch.probability.to(scores.dtype)
        loss = (weight * ranking_loss(chosen, rejected, margin, probability)).sum()
        pairs = self.count(batch)
        # strictly more: a model that gives both the same score has not told them apart
        metrics = {"accuracy": ((chosen > rejected).sum(), pairs), "lead": ((chosen - rejected).detach().sum(), pairs)}
        if self.safety_weight:
            # ½: both answers of a pair carry a label, and the item is the pair
            auxiliary = safety_loss(scores[batch.labelled], batch.safe[batch.labelled])
            loss = loss + 0.5 * self.safety_weight * (weight.repeat_interleave(2)[batch.labelled] * auxiliary).sum()
            metrics["safety_loss"] = (auxiliary.detach().sum(), batch.labelled.sum())
        return loss, metrics


@dataclass(frozen=True)
class DPO(Objective):
    """Direct preference optimisation, or IPO: log-probs summed over the answer (Rafailov et al. 2023)."""

    beta: float = 0.1
    smoothing: float = 0.0
    ipo: bool = False

    def batch(self, examples: Sequence[Any]) -> PairBatch:
        return pairs_of(examples)

    def count(self, batch: PairBatch) -> Tensor:
        return torch.tensor(len(batch.margin), device=batch.tokens.device)

    def loss(self, role: Role, batch: PairBatch) -> tuple[Tensor, Metrics]:
        sums = sum_by_sequence(role.logprobs(batch), batch)
        # computed once, before training: no second forward pass here
        reference = batch.ref_logprobs.to(sums.dtype)
        four = (sums[0::2], sums[1::2], reference[0::2], reference[1::2])
        loss = (
            ipo_loss(*four, beta=self.beta) if self.ipo else dpo_loss(*four, beta=self.beta, smoothing=self.smoothing)
        )
        # the margin of DPO's implicit rewards β log π/π_ref
        lead = self.beta * ((four[0] - four[1]) - (four[2] - four[3])).detach()
        pairs = self.count(batch)
        return loss.sum(), {"accuracy": ((lead > 0).sum(), pairs), "lead": (lead.sum(), pairs)}


class OnTokens(Objective):
    """Of online learning: items are sampled tokens."""

    def batch(self, examples: Sequence[Any]) -> Experience:
        return experience_of(examples)

    def count(self, batch: Experience) -> Tensor:
        return batch.mask.sum()


@dataclass(frozen=True)
class PolicyClip(OnTokens):
    """PPO's clipped policy loss over sampled tokens, at the sampler's temperature (paper §3.2.3).

    GRPO's two additions: `kl`·k3(π‖π_ref) in the loss, and `by_answer`, where items are answers and an answer's loss
    is its tokens' mean (Shao et al. 2024, eq. 3).
    """

    clip: float = 0.2
    temperature: float = 1.0
    kl: float = 0.0
    by_answer: bool = False

    def count(self, batch: Experience) -> Tensor:
        # GRPO averages over answers; over tokens, long answers weigh as much as they are long
        return (
            torch.tensor(len(batch.layout.lengths), device=batch.tokens.device) if self.by_answer else batch.mask.sum()
        )

    def loss(self, role: Role, batch: Experience) -> tuple[Tensor, Metrics]:
        logprobs = role.logprobs(batch, self.temperature)
        old = batch.logprobs[batch.mask].to(logprobs.dtype)
        advantages = batch.advantages[batch.mask].to(logprobs.dtype)
        loss = policy_clip_loss(logprobs, old, advantages, clip=self.clip)
        metrics = policy_metrics(logprobs, old)
        # for the log only
        ratio = (logprobs - old).detach().exp()
        metrics["clipped"] = (((ratio - 1).abs() > self.clip).sum(), batch.mask.sum())
        if self.kl and batch.ref_logprobs is not None:
            # k3 because it is never negative and vanishes at π = π_ref (Shao et al. 2024, eq. 4)
            divergence = kl_k3(logprobs, batch.ref_logprobs[batch.mask].to(logprobs.dtype))
            loss = loss + self.kl * divergence
        if self.by_answer:
            return (sum_by_sequence(loss, batch) / sum_by_sequence(torch.ones_like(loss), batch)).sum(), metrics
        return loss.sum(), metrics


@dataclass(frozen=True)
class PolicyPenalty(OnTokens):
    """PPO-penalty: −A ρ + β k3 of KL(π_old‖π) (Schulman et al. 2017, eq. 8)."""

    beta: float = 1.0
    temperature: float = 1.0

    def at(self, beta: float) -> PolicyPenalty:
        """The same at another β."""
        return replace(self, beta=beta)

    def loss(self, role: Role, batch: Experience) -> tuple[Tensor, Metrics]:
        logprobs = role.logprobs(batch, self.temperature)
        old = batch.logprobs[batch.mask].to(logprobs.dtype)
        advantages = batch.advantages[batch.mask].to(logprobs.dtype)
        # nats per token: β and its target (step_kl) do not depend on the answers' lengths
        return policy_penalty_loss(logprobs, old, advantages, beta=self.beta).sum(), policy_metrics(logprobs, old)


@dataclass(frozen=True)
class PolicyGradient(OnTokens):
    """−A log π: REINFORCE and actor-critic, for samples of the policy itself (Williams 1992)."""

    temperature: float = 1.0

    def loss(self, role: Role, batch: Experience) -> tuple[Tensor, Metrics]:
        logprobs = role.logprobs(batch, self.temperature)
        old = batch.logprobs[batch.mask].to(logprobs.dtype)
        advantages = batch.advantages[batch.mask].to(logprobs.dtype)
        # no ratio: right for the first step on these samples only, so epochs and small mini-batches bias it
        return policy_gradient_loss(logprobs, advantages).sum(), policy_metrics(logprobs, old)


def policy_metrics(logprobs: Tensor, old: Tensor) -> Metrics:
    """The mean ratio π/π_old, and how far the policy has moved from the one that sampled: k3 of KL(π_old‖π)."""
    log_ratio = (logprobs - old).detach()
    ratio, items = log_ratio.exp(), torch.tensor(len(log_ratio), device=log_ratio.device)
    return {"ratio": (ratio.sum(), items), "approx_kl": ((ratio - 1 - log_ratio).sum(), items)}


@dataclass(frozen=True)
class ValueClip(OnTokens):
    """The critic's clipped squared error over the same tokens, in units of `scale`."""

    clip: float = 0.2
    scale: float = 1.0

    def at(self, scale: float) -> ValueClip:
        """The same in other units."""
        return replace(self, scale=scale)

    def loss(self, role: Role, batch: Experience) -> tuple[Tensor, Metrics]:
        assert batch.values is not None and batch.returns is not None  # noqa: PT018 - a critic made them
        # the old values bound the step as π_old does the policy's; OpenAI's PPO has it, the paper (§3.2.3) not
        values = role.values(batch)
        old, returns = (x[batch.mask].to(values.dtype) for x in (batch.values, batch.returns))
        parts = (x / self.scale for x in (values, old, returns))
        return value_clip_loss(*parts, clip=self.clip).sum(), {}
