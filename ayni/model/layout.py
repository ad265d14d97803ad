"""Where sequences lie in a flat batch, and attention over them.

Sequences stand end to end in one axis of T columns: no pad id, no attention mask. Only attention needs rows; it gets
them per length bucket, right-padded inside the bucket, and the pad rows are dropped on the way out. A GPU's
variable-length kernel takes the flat axis as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ayni.model.attention import causal_attention, takes_variable_length, variable_length_attention

SHORT = 256
STRIDE = 32  # rows of a bucket are a multiple of this long: few shapes, for the sake of ayni.model.rounding


@dataclass(frozen=True, slots=True)
class Bucket:
    """`rows` sequences of at most `length` tokens, a multiple of STRIDE.

    They fill the padded columns [start, start + rows·length).
    """

    start: int
    rows: int
    length: int


@dataclass(frozen=True, slots=True)
class Layout:
    """offsets (N+1,) · positions (T,) · ends (N,) = offsets[1:] − 1 · padded (T,): a column's place in the buckets."""

    offsets: Tensor
    positions: Tensor
    ends: Tensor
    padded: Tensor
    buckets: tuple[Bucket, ...]
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> Layout:
        """The layout of sequences with these lengths, in this order. Raises ValueError on an empty one."""
        if not lengths or min(lengths) < 1:
            raise ValueError("a flat batch needs at least one sequence, and no sequence may be empty")
        size = torch.tensor(lengths)
        offsets = torch.cat([size.new_zeros(1), size.cumsum(0)])
        total = int(offsets[-1])
        positions = torch.arange(total) - torch.repeat_interleave(offsets[:-1], size)
        padded_start = torch.empty_like(size)
        buckets: list[Bucket] = []
        start = 0
        # by length: only rows of nearly one length share the padding of a bucket
        order = sorted(range(len(lengths)), key=lambda i: lengths[i])
        while order:
            longest = lengths[order[-1]]
            length = -(-longest // STRIDE) * STRIDE
            # Short rows share a bucket down to half its length: there, a kernel call costs more than its padding.
            # Long rows only down to ⅞, as attention grows with the square of the length.
            least = longest // 2 if longest <= SHORT else longest - longest // 8
            rows = [i for i in order if lengths[i] >= least]
            order = order[: len(order) - len(rows)]
            padded_start[rows] = start + torch.arange(len(rows)) * length
            buckets.append(Bucket(start, len(rows), length))
            start += len(rows) * length
        padded = torch.repeat_interleave(padded_start, size) + positions
        return cls(
            offsets.to(device),
            positions.to(device),
            (offsets[1:] - 1).to(device),
            padded.to(device),
            tuple(buckets),
            tuple(int(n) for n in lengths),
        )

    def to(self, device: torch.device | str) -> Layout:
        offsets, positions, ends, padded = (
            t.to(device) for t in (self.offsets, self.positions, self.ends, self.padded)
        )
        return Layout(offsets, positions, ends, padded, self.buckets, self.lengths)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention inside every sequence: q (T, H, d), k and v (T, KV, d) → (T, H, d)."""
        del layer  # a cache needs it, a layout does not
        if takes_variable_length(q):
            return variable_length_attention(q, k, v, self.offsets, max(self.lengths))
        last = self.buckets[-1]
        size = last.start + last.rows * last.length
        # packed pretraining: no copy in, no copy out
        flat = len(self.buckets) == 1 and size == len(q)  # equal lengths are rows already
        if not flat:
            q, k, v = (_Pad.apply(x, self.padded, size) for x in (q, k, v))
        # split, not slices: a slice's backward fills and adds the whole tensor once per bucket
        parts = zip(*(x.split([b.rows * b.length for b in self.buckets]) for x in (q, k, v)), strict=True)
        out = []
        for bucket, part in zip(self.buckets, parts, strict=True):
            # (rows·length, H, d) → (rows, H, length, d)
            rows = (x.unflatten(0, (bucket.rows, bucket.length)).transpose(1, 2) for x in part)
            out.append(causal_attention(*rows).transpose(1, 2).flatten(0, 1))
        joined = out[0] if len(out) == 1 else torch.cat(out)
        return joined if flat else _Unpad.apply(joined, self.padded)


class _Pad(torch.autograd.Function):
    """(T, …) → (P, …), zero where padded. Each is the other's adjoint, and neither ever accumulates."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, padded: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(padded)
        return x.new_zeros(size, *x.shape[1:]).index_copy_(0, padded, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (padded,) = ctx.saved_tensors
        return grads[0].index_select(0, padded), None, None


class _Unpad(torch.autograd.Function):
    """(P, …) → (T, …)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, padded: Tensor) -> Tensor:
        ctx.save_for_backward(padded)
        ctx.size = len(x)
        return x.index_select(0, padded)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (padded,) = ctx.saved_tensors
        grad = grads[0]
        return grad.new_zeros(ctx.size, *grad.shape[1:]).index_copy_(0, padded, grad), None
