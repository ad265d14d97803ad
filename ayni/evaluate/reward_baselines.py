"""What a reward model must beat to have earned its training: the longer answer, and which words stand in an answer.

The third baseline, the same model from a random start, is another run of the stage (docs/stages/reward.md).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ayni.records import Comparison

Floats = NDArray[np.float64]
# ½·10·‖w‖²: on hh-rlhf's harmlessness pairs the best of 1, 3, 10, 30 and 100, which differ by two points at most
L2 = 10.0
LEAST = 2  # training pairs in which a word must tell the answers apart
_WORD = re.compile(r"\w+(?:'\w+)?")


def longer(comparisons: Sequence[Comparison]) -> Floats:
    """By how many characters the chosen answer is longer: (P,)."""
    return np.array([len(c.chosen.strip()) - len(c.rejected.strip()) for c in comparisons], np.float64)


@dataclass(frozen=True)
class WordRegression:
    """Logistic regression on word presence: P(chosen over rejected) = σ(Σ w of words that only the chosen answer has
    − Σ w of those that only the rejected one has). No intercept: which answer stands first says nothing."""

    columns: dict[str, int]
    weights: Floats

    @classmethod
    def fit(cls, comparisons: Sequence[Comparison], l2: float = L2) -> WordRegression:
        """The minimum of Σ −log P + ½ l2 ‖w‖², which is one; by L-BFGS."""
        told = [_told_apart(c) for c in comparisons]
        counts = Counter(word for pair in told for word in pair)
        columns = {word: i for i, word in enumerate(sorted(word for word in counts if counts[word] >= LEAST))}
        matrix = _Sparse.of(told, columns)
        weights = torch.zeros(len(columns), dtype=torch.float64)
        search = torch.optim.LBFGS([weights], max_iter=200, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

        def loss() -> float:
            w = weights.numpy()
            lead = matrix @ w
            # d −log σ(z) / dz = −σ(−z)
            weights.grad = torch.from_numpy(l2 * w - matrix.transposed(1 / (1 + np.exp(np.clip(lead, None, 500)))))
            return float(np.logaddexp(0, -lead).sum() + l2 / 2 * (w @ w))

        if columns:
            search.step(loss)
        return cls(columns, weights.numpy())

    def leads(self, comparisons: Sequence[Comparison]) -> Floats:
        """log-odds of the chosen answer: (P,)."""
        return _Sparse.of([_told_apart(c) for c in comparisons], self.columns) @ self.weights


def _told_apart(c: Comparison) -> dict[str, float]:
    """+1 for the words that only the chosen answer has, −1 for those that only the rejected one has."""
    chosen, rejected = (set(_WORD.findall(text.casefold())) for text in (c.chosen, c.rejected))
    return dict.fromkeys(chosen - rejected, 1.0) | dict.fromkeys(rejected - chosen, -1.0)


@dataclass(frozen=True)
class _Sparse:
    """A (P, V) matrix by its entries."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: Floats
    shape: tuple[int, int]

    @classmethod
    def of(cls, pairs: Sequence[dict[str, float]], columns: dict[str, int]) -> _Sparse:
        # sorted: a set's order changes with the process, and sums with the order
        entries = [(i, columns[w], pair[w]) for i, pair in enumerate(pairs) for w in sorted(pair) if w in columns]
        rows, where, values = (np.array([entry[k] for entry in entries]) for k in range(3))
        return cls(rows.astype(np.int64), where.astype(np.int64), values.astype(np.float64), (len(pairs), len(columns)))

    def __matmul__(self, w: Floats) -> Floats:
        return np.bincount(self.rows, self.values * w[self.columns], self.shape[0]).astype(np.float64, copy=False)

    def transposed(self, x: Floats) -> Floats:
        return np.bincount(self.columns, self.values * x[self.rows], self.shape[1]).astype(np.float64, copy=False)
