"""What a pass must multiply: the numerator of every share of a ceiling.

Only what the mathematics needs counts: matrices at real tokens, the causal half of attention, the head at supervised
columns. Padding, the other half of the square and what is computed twice count for nothing, so a share is a floor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ayni.model.shape import Shape
from ayni.records import TokenSequence

TRAINING = 3  # a backward pass multiplies twice what the forward pass does


def matrices(shape: Shape) -> int:
    """Parameters of the blocks' matrices: no embedding, head or norm."""
    d = shape.dim
    return shape.layers * (2 * d * d + 2 * d * shape.kv_heads * shape.head_dim + 3 * d * shape.hidden)


def forward(shape: Shape, lengths: Iterable[int], columns: int) -> int:
    """FLOPs of one forward pass over sequences of these lengths, with the head at so many columns.

    2·matrices·T + 2·2·L·D·ΣL(L+1)/2 (QKᵀ and the weighted values) + 2·D·V·columns; V = 1 under a score head.
    """
    lengths = list(lengths)
    seen = sum(n * (n + 1) // 2 for n in lengths)
    head = 2 * shape.dim * (1 if shape.head == "score" else shape.vocab) * columns
    return 2 * matrices(shape) * sum(lengths) + 4 * shape.layers * shape.dim * seen + head


def training(shape: Shape, sequences: Sequence[TokenSequence]) -> int:
    """FLOPs of a training step of a language model: forward and backward."""
    return TRAINING * forward(shape, (len(s.tokens) for s in sequences), supervised(sequences))


def supervised(sequences: Sequence[TokenSequence]) -> int:
    return sum(sum(s.mask) for s in sequences)


def decoding_bytes(shape: Shape, size: int) -> int:
    """Bytes that one decode step reads at least: every matrix and the head once, at `size` bytes a number."""
    return (matrices(shape) + shape.dim * shape.vocab) * size
