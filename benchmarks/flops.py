"""What a pass must multiply: the numerator of every share of a ceiling.

Only what the mathematics needs counts: matrices at real tokens, the causal half of attention, the head at supervised
columns, which alone need what stands behind the last attention. Padding, the other half of the square and what is
computed twice count for nothing, so a share is a floor.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ayni.model.shape import Shape
from ayni.records import TokenSequence
from ayni.train.batch import Pair

TRAINING = 3  # a backward pass multiplies twice what the forward pass does


def matrices(shape: Shape) -> int:
    """Parameters of the blocks' matrices: no embedding, head or norm."""
    d = shape.dim
    return shape.layers * (2 * d * d + 2 * d * shape.kv_heads * shape.head_dim + 3 * d * shape.hidden)


def behind(shape: Shape) -> int:
    """Of these in one block, what a column needs that others only look at, not at its key and value."""
    return 2 * shape.dim * shape.dim + 3 * shape.dim * shape.hidden


@dataclass(frozen=True)
class Row:
    """A sequence of `length` tokens whose first `shared` columns are another's; the head reads the columns `asked`."""

    length: int
    asked: tuple[int, ...]
    shared: int = 0


def row_of(sequence: TokenSequence, shared: int = 0) -> Row:
    """A taught token is predicted at the column before it."""
    asked = (i - 1 for i, taught in enumerate(sequence.mask) if taught)
    return Row(len(sequence.tokens), tuple(asked), shared)


def rows_of(pair: Pair) -> list[Row]:
    """The prompt's columns are the first answer's, but for the last, which is asked for each answer's first token."""
    return [row_of(pair.chosen), row_of(pair.rejected, pair.chosen.mask.index(True) - 1)]


def forward(shape: Shape, rows: Iterable[Row]) -> int:
    """FLOPs of one forward pass: 2 for each number of a matrix and each column that needs it, 4·D for each key that a
    query sees (QKᵀ and the weighted values). The last block's queries are those of the columns asked."""
    rows = list(rows)
    columns = sum(row.length - row.shared for row in rows)
    asked = sum(len(row.asked) for row in rows)
    seen = sum(_seen(row.length) - _seen(row.shared) for row in rows)
    at_last = sum(column + 1 for row in rows for column in row.asked)
    blocks = matrices(shape) * columns - behind(shape) * (columns - asked)
    head = shape.dim * (1 if shape.head == "score" else shape.vocab) * asked
    return 2 * (blocks + head) + 4 * shape.dim * ((shape.layers - 1) * seen + at_last)


def _seen(length: int) -> int:
    """Keys of all queries of a sequence."""
    return length * (length + 1) // 2


def training(shape: Shape, sequences: Iterable[TokenSequence]) -> int:
    """FLOPs of a training step of a language model: forward and backward."""
    return TRAINING * forward(shape, map(row_of, sequences))


def decoding_bytes(shape: Shape, size: int) -> int:
    """Bytes that one decode step reads at least: every matrix and the head once, at `size` bytes a number."""
    return (matrices(shape) + shape.dim * shape.vocab) * size
