"""Some columns of a flat batch: taken out of it, and put back between zeros.

Each is the other's derivative, and both are copies: torch's own derivative of an index adds up, which crawls on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def take(x: Tensor, columns: Tensor | None) -> Tensor:
    """(T, …) → (M, …): x at distinct `columns` (M,), x itself where None."""
    return x if columns is None else _Take.apply(x, columns)


def put(x: Tensor, columns: Tensor | None, size: int) -> Tensor:
    """(M, …) → (size, …): x at distinct `columns` (M,) and zeros elsewhere, x itself where None."""
    return x if columns is None else _Put.apply(x, columns, size)


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(columns)
        ctx.size = len(x)
        return x.index_select(0, columns)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (columns,) = ctx.saved_tensors
        return put(grads[0], columns, ctx.size), None


class _Put(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, columns: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(columns)
        return x.new_zeros(size, *x.shape[1:]).index_copy_(0, columns, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (columns,) = ctx.saved_tensors
        return take(grads[0], columns), None, None
