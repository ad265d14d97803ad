"""Log-probabilities of whole answers under a model that does not learn: a reference's, or an evaluation's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from ayni.cores import side_by_side
from ayni.model.role import Role
from ayni.parallel import Ranks
from ayni.records import TokenSequence
from ayni.train.batch import Batch, Pair, batch_of, pairs_of
from ayni.train.objectives import sum_by_sequence
from ayni.train.shares import shares

E = TypeVar("E")


def logprob_sums(role: Role, sequences: Sequence[TokenSequence], budget: int, ranks: Ranks = Ranks()) -> Tensor:
    """Σ log p of every sequence's supervised tokens: (N,) on the CPU; each of the `ranks` reads its share."""
    return _sums(role, sequences, partial(batch_of, alike=True), 1, budget, ranks)


def with_reference(pairs: Sequence[Pair], reference: Role, budget: int, ranks: Ranks = Ranks()) -> list[Pair]:
    """The pairs with the reference's summed log-probs, computed once."""
    # pair by pair, as they are learnt from: both answers share their prompt's columns
    sums = _sums(reference, pairs, pairs_of, 2, budget, ranks).view(-1, 2)
    return [replace(pair, ref_logprobs=(a, b)) for pair, (a, b) in zip(pairs, sums.tolist(), strict=True)]


@torch.no_grad()
def _sums(
    role: Role,
    examples: Sequence[E],
    laid_out: Callable[[Sequence[E]], Batch],
    answers: int,
    budget: int,
    ranks: Ranks,
) -> Tensor:
    """Of examples of so many answers each: (N · answers,)."""
    mine = ranks.share(examples)

    def read(part: Sequence[E]) -> Tensor:
        batch = laid_out(part).to(role.device)
        return sum_by_sequence(role.logprobs(batch), batch).cpu()

    sums = side_by_side(read, shares(mine, budget, role.device))
    # a rank without a share has nothing else to join
    return ranks.gather_rows(torch.cat([torch.empty(0), *sums]), [answers] * len(mine))
