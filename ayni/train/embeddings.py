"""What a language model makes of a text, as one vector: the mean of its last hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ayni.model.role import Role
from ayni.model.rounding import hidden_states
from ayni.parallel import Ranks
from ayni.records import TokenSequence
from ayni.train.batch import batch_of, cut


def embeddings(role: Role, rows: Sequence[list[int]], tokens_per_pass: int, ranks: Ranks = Ranks()) -> Tensor:
    """Mean over each row's tokens of the last layer's hidden states, of length 1: (N, D) fp32, in order.

    The ranks share the rows, and all of them have every vector.
    """
    mine = _embedded(role, ranks.share(rows), tokens_per_pass)
    return torch.tensor(ranks.gather(mine.tolist()))


@torch.no_grad()
def _embedded(role: Role, rows: Sequence[list[int]], tokens_per_pass: int) -> Tensor:
    out = torch.zeros(len(rows), role.model.shape.dim)
    # by length: attention pads inside a bucket, and like rows waste least of it
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    done = 0
    for part in cut([TokenSequence(rows[i], [False] * len(rows[i])) for i in order], tokens_per_pass):
        batch = batch_of(part).to(role.device)
        hidden = hidden_states(role.model, batch.tokens, batch.layout, role.dtype).float()
        lengths = batch.layout.offsets.diff()
        owner = torch.repeat_interleave(torch.arange(len(part), device=role.device), lengths)
        sums = hidden.new_zeros(len(part), hidden.shape[1]).index_add_(0, owner, hidden)
        out[torch.tensor(order[done : done + len(part)])] = F.normalize(sums / lengths.unsqueeze(1)).cpu()
        done += len(part)
    return out
