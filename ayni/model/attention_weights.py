"""What a model attends to: the weights behind the attention that the kernels return only the results of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ayni.model.transformer import Transformer


class Watched:
    """The place of one sequence to attend in (an AttentionContext) that computes the weights one head at a time.

    strongest (T,): of each column the largest that any head of any layer gives to one of the tokens [begin, end).
    """

    def __init__(self, length: int, begin: int, end: int, device: torch.device) -> None:
        self.begin, self.end = begin, end
        self.positions = torch.arange(length, device=device)
        self.strongest = torch.zeros(length, device=device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (T, H, d), k and v (T, KV, d) → (T, H, d)."""
        del layer  # all count
        length, heads, size = q.shape
        group = heads // k.shape[1]
        future = torch.full((length, length), float("-inf"), device=q.device).triu_(1)
        out = []
        for head in range(heads):
            keys, values = k[:, head // group], v[:, head // group]
            weights = torch.softmax((q[:, head] @ keys.T).float() * size**-0.5 + future, -1)
            self.strongest = torch.maximum(self.strongest, weights[:, self.begin : self.end].amax(1))
            out.append(weights.to(values.dtype) @ values)
        return torch.stack(out, 1)


@torch.no_grad()
def strongest_attention(model: Transformer, tokens: Sequence[int], begin: int, end: int) -> Tensor:
    """The largest weight over all layers and heads that each column gives to one of the tokens [begin, end): (T,).

    A column sees itself and what is before it: 0 before `begin`. The paper's Figure 10 shows this of a system message.
    """
    if not 0 <= begin < end <= len(tokens):
        raise ValueError(f"[{begin}, {end}) is no span of {len(tokens)} tokens")
    watched = Watched(len(tokens), begin, end, model.device)
    model(torch.tensor(list(tokens), device=model.device), watched)
    return watched.strongest
