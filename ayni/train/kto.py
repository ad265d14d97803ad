"""KTO: single judgements, thumbs up and thumbs down, without pairs (Ethayarajh et al. 2024).

Where we leave it: the reference point z_0 is the mean over a whole step, of all ranks, so that the gradient does not
depend on the cut; the paper's is a micro-batch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ayni.maths.losses import kto_loss
from ayni.model.role import Role
from ayni.parallel import Ranks
from ayni.records import TokenSequence
from ayni.train.batch import Batch, batch_of
from ayni.train.objectives import Metrics, Objective, sum_by_sequence
from ayni.train.reference import logprob_sums


@dataclass(frozen=True, slots=True)
class Thumb:
    """An answer that was liked or not, and its prompt with another prompt's answer; the reference's summed log-probs
    of both."""

    sequence: TokenSequence
    desirable: bool
    mismatched: TokenSequence
    ref_logprob: float = 0.0
    ref_mismatched: float = 0.0

    def __len__(self) -> int:
        # of the pass with a gradient; the mismatched answer is read apart
        return len(self.sequence.tokens)


@dataclass(frozen=True, slots=True)
class Thumbs(Batch):
    """desirable (N,) bool · ref_logprobs (N,)."""

    desirable: Tensor
    ref_logprobs: Tensor


@dataclass(frozen=True)
class KTO(Objective):
    """Items are answers. `kl` is the step's mean of log π/π_ref over mismatched answers."""

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    kl: float = 0.0

    def settled(self, role: Role, examples: Sequence[Thumb], ranks: Ranks, budget: int) -> KTO:
        # without a gradient, once a step: z_0 is a constant of it; fp64, as sums of hundreds differ by little
        sums = logprob_sums(role, [e.mismatched for e in examples], budget, ranks).double()
        return replace(self, kl=float((sums - torch.tensor([e.ref_mismatched for e in examples])).mean()))

    def batch(self, examples: Sequence[Thumb]) -> Thumbs:
        plain = batch_of([e.sequence for e in examples])
        return Thumbs(
            *(plain.tokens, plain.targets, plain.mask, plain.layout),
            desirable=torch.tensor([e.desirable for e in examples]),
            ref_logprobs=torch.tensor([e.ref_logprob for e in examples], dtype=torch.float64),
        )

    def count(self, batch: Thumbs) -> Tensor:
        return torch.tensor(len(batch.desirable), device=batch.tokens.device)

    def loss(self, role: Role, batch: Thumbs) -> tuple[Tensor, Metrics]:
        # summed, not averaged: h is the log-ratio of whole answers
        sums = sum_by_sequence(role.logprobs(batch), batch)
        reference = batch.ref_logprobs.to(sums.dtype)
        lead = (sums - reference).detach()
        loss = kto_loss(
            sums,
            reference,
            batch.desirable,
            sums.new_tensor(self.kl),
            beta=self.beta,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
        )
        # up and down apart: their mean would hide that one of them goes the wrong way
        up, items = batch.desirable, self.count(batch)
        return loss.sum(), {
            "lead_up": (lead[up].sum(), up.sum()),
            "lead_down": (lead[~up].sum(), (~up).sum()),
            "reference_point": (items * self.kl, items),
        }


def with_references(thumbs: Sequence[Thumb], reference: Role, budget: int, ranks: Ranks = Ranks()) -> list[Thumb]:
    """With the reference's log-probs of every answer, matched and mismatched, computed once."""
    matched, mismatched = (
        logprob_sums(reference, sequences, budget, ranks).tolist()
        for sequences in ([t.sequence for t in thumbs], [t.mismatched for t in thumbs])
    )
    found = zip(thumbs, matched, mismatched, strict=True)
    return [replace(thumb, ref_logprob=a, ref_mismatched=b) for thumb, a, b in found]
