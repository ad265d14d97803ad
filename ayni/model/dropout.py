"""Residual dropout that rises from the bottom block to the top one (LIMA, Zhou et al. 2023, §3).

What is dropped of a column depends on the seed of its step, on its sequence's tokens and its place in it, on the layer
and on the channel: not on the micro-batch, the process or the thread that computes it. So any cut of a step and any
number of ranks drop the same, and a step that is taken again drops it again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ayni.model.counter import GOLDEN, mixed
from ayni.seeds import seed_of

_LANES = 4  # 16-bit numbers of a mixed one: rates in steps of 2⁻¹⁶
_SIZE = 1 << 16


@dataclass(frozen=True, slots=True)
class Dropout:
    """The share of a branch's numbers that is dropped before it is added: 0 at the bottom, `top` at the last block."""

    top: float
    seed: int

    def at(self, step: int) -> Dropout:
        """Of one optimiser step."""
        return replace(self, seed=seed_of(self.seed, step))

    def rate(self, layer: int, layers: int) -> float:
        """Linear in the layer; the only block of a model is its bottom."""
        return self.top * layer / max(layers - 1, 1)

    def on(self, tokens: Tensor, positions: Tensor, layers: int) -> ColumnDropout:
        """For columns laid end to end: tokens (T,), positions (T,), 0 where a sequence begins."""
        own = mixed(tokens + positions * GOLDEN + self.seed)
        # a sequence is known by the sum over its columns, whatever stands beside it
        owner = (positions == 0).cumsum(0) - 1
        whole = torch.zeros_like(own).index_add_(0, owner, own)
        return ColumnDropout(self, mixed(own + whole[owner]), layers)


@dataclass(frozen=True, slots=True)
class ColumnDropout:
    """The columns of one forward pass, each with its key (T,)."""

    dropout: Dropout
    keys: Tensor
    layers: int

    def at(self, asked: Tensor | None) -> ColumnDropout:
        """These columns alone, all where None."""
        return self if asked is None else replace(self, keys=self.keys[asked])

    def drop(self, branch: Tensor, layer: int, which: int) -> Tensor:
        """The branch (T, D), 0 where dropped and larger where not, so that its mean stays; `which` of its block's."""
        dropped = round(self.dropout.rate(layer, self.layers) * _SIZE)  # of _SIZE
        if dropped == 0:
            return branch
        dim = branch.shape[1]
        counters = torch.arange(-(-dim // _LANES), device=branch.device) + (2 * layer + which) * dim
        bits = mixed(self.keys.unsqueeze(1) + (counters + 1) * GOLDEN).view(torch.int16)[:, :dim]
        keep = bits >= dropped - _SIZE // 2
        return torch.where(keep, branch * (_SIZE / (_SIZE - dropped)), branch.new_zeros(()))
