"""Where sequences lie in a flat batch, and attention over them.

Sequences stand end to end in one axis of T columns: no pad id, no attention mask. Answers to one prompt may share its
columns: everything but attention then reads the prompt once. Attention in C, and a GPU's variable-length kernel, take
the flat axis as it is. Other kernels need rows; they get them per length bucket, right-padded inside the bucket, and
the pad rows are dropped on the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ayni.model.attention import (
    causal_attention,
    native_attention,
    takes_native,
    takes_variable_length,
    variable_length_attention,
)
from ayni.model.columns import take

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
class Places:
    """Where columns stand on an axis of `size` places, on which every sequence is in one piece: `own` (T,) is a
    column's own place; each of `again`, (places, columns), are distinct columns that stand in one more sequence."""

    size: int
    own: Tensor
    again: tuple[tuple[Tensor, Tensor], ...]

    def to(self, device: torch.device | str) -> Places:
        again = tuple((places.to(device), columns.to(device)) for places, columns in self.again)
        return Places(self.size, self.own.to(device), again)


@dataclass(frozen=True, slots=True)
class Layout:
    """offsets (N+1,): between which columns a sequence's own lie · positions (T,) · ends (N,) = offsets[1:] − 1 ·
    lengths, in tokens · the `shared` (N,) columns from `first` (N,) on that a sequence begins with.

    Attention in C takes that; other kernels want sequences `padded` in the buckets, or `whole`, end to end between
    `bounds` (N+1,): None where nothing is shared, and they are whole as they lie."""

    offsets: Tensor
    positions: Tensor
    ends: Tensor
    first: Tensor
    shared: Tensor
    bounds: Tensor
    padded: Places
    whole: Places | None
    buckets: tuple[Bucket, ...]
    lengths: tuple[int, ...]

    @classmethod
    def of(
        cls, lengths: Sequence[int], device: torch.device | str = "cpu", shared: Sequence[int] | None = None
    ) -> Layout:
        """The layout of sequences with these lengths, in this order; of each the first `shared` tokens are columns of
        the last sequence before it that shares none. Raises ValueError on a sequence without a column of its own."""
        begins = [0] * len(lengths) if shared is None else list(shared)
        if not lengths or any(n <= begin for n, begin in zip(lengths, begins, strict=True)) or min(begins) < 0:
            raise ValueError("a flat batch needs at least one sequence, and no sequence may be empty")
        size, begin = torch.tensor(lengths), torch.tensor(begins)
        own = size - begin
        offsets = torch.cat([size.new_zeros(1), own.cumsum(0)])
        positions = torch.arange(int(offsets[-1])) - torch.repeat_interleave(offsets[:-1] - begin, own)
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
        again = _again(begins, offsets)
        # of the last sequence before it that shares none
        leaders = torch.where(begin > 0, 0, torch.arange(len(lengths))).cummax(0).values

        def places(starts: Tensor, size: int) -> Places:
            own_places = torch.repeat_interleave(starts, own) + positions
            copies = (
                (torch.cat([starts[i] + torch.arange(begins[i]) for i in followers]), columns)
                for followers, columns in again
            )
            return Places(size, own_places, tuple(copies))

        bounds = torch.cat([size.new_zeros(1), size.cumsum(0)]) if again else offsets
        whole = places(bounds[:-1], sum(lengths)) if again else None
        padded = places(padded_start, start)
        spans = tuple(int(n) for n in lengths)
        first = offsets[leaders]
        return cls(offsets, positions, offsets[1:] - 1, first, begin, bounds, padded, whole, tuple(buckets), spans).to(
            device
        )

    def to(self, device: torch.device | str) -> Layout:
        names = ("offsets", "positions", "ends", "first", "shared", "bounds", "padded")
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in names}
        return replace(self, whole=None if self.whole is None else self.whole.to(device), **moved)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention inside every sequence: q (T, H, d), k and v (T, KV, d) → (T, H, d)."""
        del layer  # a cache needs it, a layout does not
        if takes_variable_length(q):
            q, k, v = (_placed(x, self.whole) for x in (q, k, v))
            return _taken(variable_length_attention(q, k, v, self.bounds, max(self.lengths)), self.whole)
        if takes_native(q):
            return native_attention(q, k, v, self.first, self.shared, self.offsets)
        # packed pretraining, rows of equal lengths already: no copy in, no copy out
        flat = len(self.buckets) == 1 and self.padded.size == len(q)
        places = None if flat else self.padded
        q, k, v = (_placed(x, places) for x in (q, k, v))
        # split, not slices: a slice's backward fills and adds the whole tensor once per bucket
        parts = zip(*(x.split([b.rows * b.length for b in self.buckets]) for x in (q, k, v)), strict=True)
        out = []
        for bucket, part in zip(self.buckets, parts, strict=True):
            # (rows·length, H, d) → (rows, H, length, d)
            rows = (x.unflatten(0, (bucket.rows, bucket.length)).transpose(1, 2) for x in part)
            out.append(causal_attention(*rows).transpose(1, 2).flatten(0, 1))
        return _taken(out[0] if len(out) == 1 else torch.cat(out), places)


def _again(begins: Sequence[int], offsets: Tensor) -> list[tuple[list[int], Tensor]]:
    """(sequences, the columns that they share): in each, no two of one prompt."""
    found: list[tuple[list[int], list[Tensor]]] = []
    first, nth = 0, 0
    for i, begin in enumerate(begins):
        if not begin:
            first, nth = i, 0
            continue
        if nth == len(found):
            found.append(([], []))
        found[nth][0].append(i)
        found[nth][1].append(offsets[first] + torch.arange(begin))
        nth += 1
    return [(followers, torch.cat(columns)) for followers, columns in found]


def _placed(x: Tensor, places: Places | None) -> Tensor:
    return x if places is None else _Place.apply(x, places)


def _taken(x: Tensor, places: Places | None) -> Tensor:
    """(P, …) → (T, …): every column from its own place."""
    return take(x, None if places is None else places.own)


class _Place(torch.autograd.Function):
    """(T, …) → (P, …), zero where nothing stands. Copies both ways; gradients of shared columns add up in one order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Places) -> Tensor:
        ctx.places = places
        out = x.new_zeros(places.size, *x.shape[1:]).index_copy_(0, places.own, x)
        for copies, columns in places.again:
            out.index_copy_(0, copies, x.index_select(0, columns))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        places, (grad,) = ctx.places, grads
        out = grad.index_select(0, places.own)
        for copies, columns in places.again:
            out.index_copy_(0, columns, out.index_select(0, columns) + grad.index_select(0, copies))
        return out, None
