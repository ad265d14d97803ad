"""Causal attention over rows of equal length; query heads share key-value heads in groups (GQA)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# On a CPU plain softmax(QKᵀ)V is 1.5 to 6 times as fast as the fused kernel on short rows (docs/benchmarks.md).
PLAIN_BELOW = 512


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (N, H, S, d), k and v (N, KV, S, d) → (N, H, S, d); scale 1/√d, softmax in at least fp32."""
    length = q.shape[2]
    if q.device.type != "cpu" or length >= PLAIN_BELOW:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
    # one triangle for all rows and heads; −∞ before the softmax is weight 0 after it
    bias = q.new_full((length, length), float("-inf")).triu_(1)
    return plain_attention(q, k, v, bias)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(QKᵀ/√d + bias)V: q (N, H, S, d), k and v (N, KV, L, d); `bias` broadcasts to (N, KV, H/KV, S, L).

    −∞ in the bias hides a key. Grouped queries are laid side by side, so keys are never repeated.
    """
    rows, heads, length, size = q.shape
    shared, keys = k.shape[1], k.shape[2]
    # q is scaled, not the scores: d numbers a query instead of L
    grouped = (q * size**-0.5).reshape(rows, shared, -1, size)
    scores = (grouped @ k.transpose(-1, -2)).view(rows, shared, heads // shared, length, keys).add_(bias)
    weights = torch.softmax(scores, -1).view(rows, shared, -1, keys)
    return (weights @ v).view(rows, heads, length, size)
