"""Few shapes on a CPU: oneDNN makes, and keeps for ever, a kernel for every number of rows that it multiplies in bf16.

Flat batches have as many row counts as there are batches, so the stream is filled up with zero rows to a round number:
1.16× the tokens per second on ragged batches, and no growing memory (docs/benchmarks.md). Zero rows stay zero through
every layer, and so do their gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS = 128


def rounded(rows: int, dtype: torch.dtype, device: torch.device) -> int:
    """How many rows to compute with, for `rows` that count. A few rows, as in decoding, stay as they are."""
    if device.type != "cpu" or dtype != torch.bfloat16 or rows < ROWS:
        return rows
    return -(-rows // ROWS) * ROWS


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
