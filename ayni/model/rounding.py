"""Few shapes on a CPU: oneDNN makes, and keeps for ever, a kernel for every number of rows that it multiplies in bf16.

Flat batches have as many row counts as there are batches, so they are filled up to a round number with columns that
see nothing and that nobody reads: 1.16× the tokens per second on ragged batches, and no growing memory
(docs/benchmarks.md). The model knows nothing of it, and the gradients of the filling are zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ayni.model.compute import METER, of_tokens
from ayni.model.transformer import AttentionContext, Transformer

ROWS = 128


def rounded(rows: int, dtype: torch.dtype, device: torch.device) -> int:
    """How many rows to compute with, for `rows` that count. A few rows, as in decoding, stay as they are."""
    # fp32 needs no such kernels, and a GPU's do not depend on the number of rows
    if device.type != "cpu" or dtype != torch.bfloat16 or rows < ROWS:
        return rows
    return -(-rows // ROWS) * ROWS


def hidden_states(
    model: Callable[[Tensor, AttentionContext, Tensor | None], Tensor],
    tokens: Tensor,
    context: AttentionContext,
    dtype: torch.dtype,
    asked: Tensor | None = None,
) -> Tensor:
    """model(tokens, context, asked), computed in `dtype` with as many rows as `rounded` says: (T,) → (T, D), or (M, D)
    of the columns `asked` (M,)."""
    count, rows = len(tokens), rounded(len(tokens), dtype, tokens.device)
    if asked is not None:
        count, asked = len(asked), _filled(asked, rounded(len(asked), dtype, tokens.device), rows)
    # the filling reads token 0, attends to nothing and is cut off again
    place = context if rows == len(tokens) else _Filled(context, rows)
    hidden = resize(model(resize(tokens, rows), place, asked), count)
    if isinstance(model, Transformer):  # a decoder's tokens are counted by its engine
        METER.add(of_tokens(model.shape, len(tokens), backward=hidden.requires_grad))
    return hidden


def _filled(asked: Tensor, count: int, size: int) -> Tensor:
    """`count` columns of `size`, distinct: those asked, and others behind them."""
    if count == len(asked):
        return asked
    others = torch.ones(size, dtype=torch.bool, device=asked.device).index_fill_(0, asked, False)
    return torch.cat([asked, others.nonzero().squeeze(1)[: count - len(asked)]])


@dataclass(frozen=True)
class _Filled:
    """A context of T columns seen as one of `rows`: the rest attend to nothing."""

    context: AttentionContext
    rows: int

    @property
    def positions(self) -> Tensor:
        return resize(self.context.positions, self.rows)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # attention sees the columns that count; what the filling gets back is zeros
        columns = len(self.context.positions)
        return resize(self.context.attend(layer, *(resize(x, columns) for x in (q, k, v))), self.rows)


def resize(x: Tensor, rows: int) -> Tensor:
    """(T, …) → (rows, …): cut, or filled up with zeros."""
    return x if len(x) == rows else _Resize.apply(x, rows)


class _Resize(torch.autograd.Function):
    """Each way is the other's adjoint."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: int) -> Tensor:
        ctx.rows = len(x)
        return _resized(x, rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _resized(grads[0], ctx.rows), None


def _resized(x: Tensor, rows: int) -> Tensor:
    return x[:rows] if rows <= len(x) else torch.cat([x, x.new_zeros(rows - len(x), *x.shape[1:])])
