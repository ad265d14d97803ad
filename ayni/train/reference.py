"""Log-probabilities of whole answers under a model that does not learn: a reference's, or an evaluation's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ayni.cores import side_by_side
from ayni.model.role import Role
from ayni.parallel import Ranks
from ayni.records import TokenSequence
from ayni.train.batch import Pair, batch_of
from ayni.train.objectives import sum_by_sequence
from ayni.train.shares import shares


@torch.no_grad()
def logprob_sums(role: Role, sequences: Sequence[TokenSequence], budget: int, ranks: Ranks = Ranks()) -> Tensor:
    """Σ log p of every sequence's supervised tokens: (N,) on the CPU; each of the `ranks` reads its share."""
    mine = ranks.share(sequences)

    def read(part: Sequence[TokenSequence]) -> Tensor:
        batch = batch_of(part, alike=True).to(role.device)
        return sum_by_sequence(role.logprobs(batch), batch).cpu()

    sums = side_by_side(read, shares(mine, budget, role.device))
    # a rank without a share has nothing else to join
    return ranks.gather_rows(torch.cat([torch.empty(0), *sums]), [1] * len(mine))


def with_reference(pairs: Sequence[Pair], reference: Role, budget: int, ranks: Ranks = Ranks()) -> list[Pair]:
    """The pairs with the reference's summed log-probs, computed once."""
    # chosen and rejected side by side, as pairs_of lays them out
    sums = logprob_sums(reference, [s for p in pairs for s in (p.chosen, p.rejected)], budget, ranks).view(-1, 2)
    return [replace(pair, ref_logprobs=(a, b)) for pair, (a, b) in zip(pairs, sums.tolist(), strict=True)]
