"""Causal attention: over rows of equal length, or over the flat batch where a kernel can; heads share keys (GQA)."""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ayni.cores import side_by_side
from ayni.model.native import passes

# On a CPU in bf16 plain products beat the fused kernel up to here, ten times on rows of 32 (docs/performance.md).
PLAIN_BELOW = 1024
QUERIES = 256  # rows of one plain product: its queries see no key behind the last of them


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (N, H, S, d), k and v (N, KV, S, d) → (N, H, S, d); scale 1/√d."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] < PLAIN_BELOW:
        return plain_attention(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(QKᵀ/√d + triangle)V as products of matrices, sizes as above.

    Grouped queries are laid one below the other, so keys are never repeated.
    """
    rows, heads, length, size = q.shape
    groups = heads // k.shape[1]
    # one batch of products: a row and a key-value head each
    keys, values = (x.reshape(-1, length, size) for x in (k, v))
    grouped = q.reshape(len(keys), groups, length, size)
    # −∞ before the softmax is weight 0 after it; one triangle for all of them
    future = q.new_full((length, length), float("-inf")).triu_(1)
    out = []
    for start in range(0, length, QUERIES):
        end = min(start + QUERIES, length)
        queries = grouped[:, :, start:end].reshape(len(keys), -1, size)
        # scaled and masked by the product itself: neither is a pass over the scores of its own
        bias = future[start:end, :end].repeat(groups, 1)
        scores = torch.baddbmm(bias, queries, keys[:, :end].transpose(1, 2), alpha=size**-0.5)
        attended = torch.bmm(torch.softmax(scores, -1), values[:, :end])
        out.append(attended.view(rows, heads, end - start, size))
    return out[0] if len(out) == 1 else torch.cat(out, 2)


@cache
def _variable_length() -> Callable[..., Tensor] | None:
    """Torch's kernel over sequences laid end to end, where this torch has one that masks causally and shares keys."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    takes = inspect.signature(varlen_attn).parameters
    return cast(Callable[..., Tensor], varlen_attn) if {"window_size", "enable_gqa"} <= takes.keys() else None


def takes_variable_length(q: Tensor) -> bool:
    """Whether `variable_length_attention` can be asked: bf16 on a GPU from Ampere on."""
    fits = q.dtype == torch.bfloat16 and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256
    return (
        fits and q.is_cuda and torch.cuda.get_device_capability(q.device) >= (8, 0) and _variable_length() is not None
    )


def variable_length_attention(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, longest: int) -> Tensor:
    """Causal attention inside every sequence of a flat batch, without padding: q (T, H, d), k and v (T, KV, d), offsets
    (N+1,) → (T, H, d)."""
    kernel, ends = _variable_length(), offsets.to(torch.int32)
    assert kernel is not None
    share = q.shape[1] != k.shape[1]
    # (−1, 0): all keys before a query, none behind it
    return kernel(q, k, v, ends, ends, longest, longest, window_size=(-1, 0), enable_gqa=share)


class _Sequences(ctypes.Structure):
    """As attention.c has them."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("heads", "kv_heads", "size")),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("first", "shared", "start", "end")),
    ]


def takes_native(q: Tensor) -> bool:
    """Whether `native_attention` can be asked: on a CPU where attention.c could be compiled, heads of whole vectors."""
    library = passes(q.dtype) if q.device.type == "cpu" else None
    return library is not None and bool(library.panel_pays()) and q.shape[-1] % 16 == 0


def native_attention(q: Tensor, k: Tensor, v: Tensor, first: Tensor, shared: Tensor, offsets: Tensor) -> Tensor:
    """Causal attention inside every sequence of a flat batch, without padding or copies: q (T, H, d), k and v
    (T, KV, d) → (T, H, d).

    A sequence begins with `shared` (N,) columns from column `first` (N,) on, which are another's; its own, and its
    queries, lie between `offsets` (N+1,).
    """
    return _Native.apply(q, k, v, first, shared, offsets)


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, *places: Tensor) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        out, logs = torch.empty_like(q), torch.empty(q.shape[:2])
        _in_parts("attention", q, k, v, places, out, logs)
        ctx.save_for_backward(q, k, v, out, logs, *places)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, logs, *places = ctx.saved_tensors
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros(k.shape), torch.zeros(v.shape)
        _in_parts("attention_backward", q, k, v, places, out, logs, grads[0].contiguous(), d_q, d_k, d_v)
        return d_q, d_k.to(k.dtype), d_v.to(v.dtype), None, None, None


def _in_parts(name: str, q: Tensor, k: Tensor, v: Tensor, places: Sequence[Tensor], *others: Tensor) -> None:
    """The passes over all sequences, each core over some."""
    first, shared, offsets = places
    heads, size = q.shape[1:]
    starts = (first, shared, offsets[:-1], offsets[1:])
    of = _Sequences(heads, k.shape[1], size, size**-0.5, *(x.data_ptr() for x in starts))
    lengths = offsets.diff() + shared
    longest, function = int(lengths.max()), getattr(passes(q.dtype), name)
    pointers = [x.data_ptr() for x in (q, k, v, *others)]

    def one(part: tuple[int, int]) -> int:
        return int(function(ctypes.addressof(of), *part, longest, *pointers))

    if any(side_by_side(one, _parts(lengths, shared, torch.get_num_threads()), alone=True)):
        raise MemoryError


def _parts(lengths: Tensor, shared: Tensor, count: int) -> list[tuple[int, int]]:
    """Ranges of sequences of about as much work, who shares columns in one of them: their gradients add up."""
    if count == 1:
        return [(0, len(lengths))]
    done = lengths.double().square().cumsum(0)
    bounds = torch.searchsorted(done, done[-1] * torch.arange(1, count) / count) + 1
    alone = (shared == 0).nonzero().squeeze(1)
    # the next sequence that begins with columns of its own
    cuts = [int(alone[at]) for at in torch.searchsorted(alone, bounds).tolist() if at < len(alone)]
    edges = sorted({0, *cuts, len(lengths)})
    return list(pairwise(edges))
