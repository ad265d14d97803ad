"""Sampled and scored answers as one flat batch, with what the roles say of every token (paper §3.2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ayni.cores import side_by_side
from ayni.maths.estimators import sum_per_answer
from ayni.maths.losses import kl_k1, kl_k3
from ayni.model.role import Role
from ayni.parallel import Ranks
from ayni.records import TokenSequence
from ayni.train.batch import Batch, Trajectory, batch_of
from ayni.train.shares import shares


@dataclass(frozen=True)
class RoleOutputs:
    """What the roles say of the answers, on one flat axis on the CPU: (T,), zero where the mask is False; None where
    there is no such role."""

    logprobs: Tensor
    ref_logprobs: Tensor | None
    values: Tensor | None


@dataclass(frozen=True)
class ScoredAnswers:
    """N answers, those of one prompt side by side, `n` each; `rewards` (N,) are what is optimised, before any KL.

    `greedy` (N/n,) are the rewards of the greedy answers, where the estimator asked for them; `beta` is the weight of
    the KL to the reference.
    """

    sequences: Sequence[TokenSequence]
    batch: Batch
    outputs: RoleOutputs
    rewards: Tensor
    n: int = 1
    greedy: Tensor | None = None
    beta: float = 0.0

    def log_ratios(self) -> Tensor:
        """log π − log π_ref of every sampled token: (T,); zero without a reference."""
        outputs = self.outputs
        if outputs.ref_logprobs is None:
            # nobody to drift from: β charges nothing
            return torch.zeros_like(outputs.logprobs)
        gaps = kl_k1(outputs.logprobs, outputs.ref_logprobs)
        return torch.where(self.batch.mask, gaps, torch.zeros_like(gaps))

    def kl(self) -> Tensor:
        """Σ_t log π/π_ref of every answer, in nats: (N,)."""
        return sum_per_answer(self.log_ratios(), self.batch.mask, self.batch.layout.offsets)

    def mean_k3(self) -> float:
        """The mean KL per answer as `kl` has it, by the estimator that is never negative: Σ_t π_ref/π − 1 − log."""
        gaps = self.log_ratios()
        return float(kl_k3(gaps, torch.zeros_like(gaps)).sum()) / len(self.sequences)


@torch.no_grad()
def read_answers(
    sequences: Sequence[TokenSequence],
    policy: Role,
    reference: Role | None,
    critic: Role | None,
    *,
    temperature: float,
    tokens_per_micro_batch: int,
    ranks: Ranks = Ranks(),
) -> RoleOutputs:
    """Each of the `ranks` reads its share of the sequences.

    Old log-probs come from the training forward pass, not from the sampler: the first ratio is then exactly 1 in
    any dtype and with any sampler. Log-probs are those of the sampling temperature.
    """
    # whole sequences, for gather_rows puts them back one by one
    mine = ranks.share(sequences)

    def read(part: Sequence[TokenSequence]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        batch = batch_of(part).to(policy.device)
        return (
            _spread(policy.logprobs(batch, temperature), batch),
            None if reference is None else _spread(reference.logprobs(batch, temperature), batch),
            None if critic is None else _spread(critic.values(batch), batch),
        )

    found = side_by_side(read, shares(mine, tokens_per_micro_batch, policy.device))
    lengths = [len(s.tokens) for s in mine]

    def whole(which: int) -> Tensor:
        rows = [x for parts in found if (x := parts[which]) is not None]
        return ranks.gather_rows(torch.cat([torch.empty(0), *rows]), lengths)

    return RoleOutputs(whole(0), None if reference is None else whole(1), None if critic is None else whole(2))


def _spread(x: Tensor, batch: Batch) -> Tensor:
    """(M,) → (T,), on the CPU."""
    # an iteration's numbers are few, and are shuffled and cut there
    out = x.new_zeros(len(batch.tokens))
    out[batch.mask] = x
    return out.cpu()


def trajectories(answers: ScoredAnswers, advantages: Tensor, returns: Tensor | None) -> list[Trajectory]:
    """One per answer, ready to be shuffled and cut: advantages and returns (T,)."""
    # prompt columns too: what is cut here is laid out again on the same axis
    sizes = list(answers.batch.layout.lengths)
    outputs = answers.outputs
    columns = (outputs.logprobs, advantages, outputs.ref_logprobs, outputs.values, returns)
    parts = [[None] * len(sizes) if x is None else x.split(sizes) for x in columns]
    return [Trajectory(*row) for row in zip(answers.sequences, *parts, strict=True)]
