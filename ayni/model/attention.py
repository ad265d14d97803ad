"""Causal attention over rows of equal length; query heads share key-value heads in groups (GQA)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

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
