"""Causal attention over rows of equal length; query heads share key-value heads in groups (GQA)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# On a CPU the plain softmax(QKᵀ)V trains 1.6× faster than the fused kernel while rows are short (docs/benchmarks.md).
PLAIN_BELOW = 512


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (N, H, S, d), k and v (N, KV, S, d) → (N, H, S, d); scale 1/√d, softmax in at least fp32."""
    length = q.shape[2]
    if q.device.type != "cpu" or length >= PLAIN_BELOW:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
    future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    return masked_attention(q, k, v, future)


def masked_attention(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
    """The plain form: q (N, H, S, d), k and v (N, KV, L, d); `hidden` broadcasts to (…, S, L), True = may not see."""
    rows, heads, length, size = q.shape
    groups = heads // k.shape[1]
    grouped = q.reshape(rows, k.shape[1], groups * length, size)
    scores = (grouped @ k.transpose(-1, -2)) * size**-0.5
    scores = scores.view(rows, k.shape[1], groups, length, k.shape[2]).masked_fill(hidden, float("-inf"))
    weights = torch.softmax(scores, -1).view(rows, k.shape[1], groups * length, k.shape[2])
    return (weights @ v).view(rows, heads, length, size)
