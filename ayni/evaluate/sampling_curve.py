"""What more answers to a prompt are worth: the best and the median reward of the first N (paper Figure 7), and what
another temperature adds to the best (Figure 8)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from ayni.evaluate.results import Result, result
from ayni.maths.clustered import clustered_mean


def doublings(n: int) -> list[int]:
    """1, 2, 4, … and n itself."""
    return [*(1 << k for k in range(n.bit_length()) if 1 << k < n), n]


def sampling_curve(rewards: Sequence[Sequence[float]], clusters: Sequence[Hashable], **where: Any) -> list[Result]:
    """Rows `best:N` and `median:N`, from every prompt's rewards in the order they were drawn, N = 1, 2, 4, … and all.

    `best_added:N` and `median_added:N` are what that N has over the one before, prompt by prompt. `clusters` say which
    prompts stand or fall together. Prompts of fewer answers count as far as all have some.
    """
    drawn = np.array([list(row)[: min(map(len, rewards))] for row in rewards], np.float64)
    rows = []
    for name, of in (("best", np.max), ("median", np.median)):
        before = None
        for n in doublings(drawn.shape[1]):
            found = of(drawn[:, :n], axis=1)
            rows.append(result(f"{name}:{n}", clustered_mean(found, clusters), **where))
            if before is not None:
                rows.append(result(f"{name}_added:{n}", clustered_mean(found - before, clusters), **where))
            before = found
    return rows


def temperature_curve(
    best: Mapping[float, Sequence[float]], n: int, clusters: Sequence[Hashable], **where: Any
) -> list[Result]:
    """Rows `best_of_N:TEMPERATURE` of the best rewards of the same prompts, and `temperature_gain:TEMPERATURE`: over
    the first temperature given, prompt by prompt."""
    rows = [result(f"best_of_{n}:{t:g}", clustered_mean(found, clusters), **where) for t, found in best.items()]
    first, *others = best
    for t in others:
        gain = clustered_mean(np.subtract(best[t], best[first]), clusters)
        rows.append(result(f"temperature_gain:{t:g}", gain, **where))
    return rows
