"""Honest numbers: every share or mean comes with its interval, here for items that are independent.

The paper drops ties and prints bare win rates (§3.4.2, Fig. 11). We give both counts, ties out and ties as half
a win, each with a score interval. Items that stand or fall together: `clustered.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its interval, which holds the truth in `level` of repetitions; None: nothing counted, or too little.

    `n` items in so many `clusters`; None where nobody asked whether items stand or fall together.
    """

    value: float | None
    interval: tuple[float, float] | None
    n: int
    level: float = 0.95
    method: str = "wilson"
    clusters: int | None = None

    @property
    def low(self) -> float:
        """The lower bound; ValueError when there is no interval."""
        if self.interval is None:
            raise ValueError("nothing was counted, or too little: there is no interval")
        return self.interval[0]

    @property
    def high(self) -> float:
        if self.interval is None:
            raise ValueError("nothing was counted, or too little: there is no interval")
        return self.interval[1]


def normal_quantile(level: float) -> float:
    """The z with P(|Z| ≤ z) = level: 1.96 at 0.95."""
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    return NormalDist().inv_cdf(0.5 + level / 2)


def score_interval(share: float, ties: float, n: float, z: float) -> tuple[float, float]:
    """The roots μ of (share − μ)² = z²/n · (μ(1 − μ) − t/4), where t is `ties`, the share of n that scored a half.

    t is shrunk by n/(n + z²), so that all ties still leave some doubt.
    """
    a = z**2 / n
    ties /= 1 + a
    centre = (share + a / 2) / (1 + a)
    # the discriminant; at a share of 0 or 1 rounding can leave it a hair below 0
    spread = a * (4 * share * (1 - share) - ties + a * (1 - ties))
    half = math.sqrt(max(spread, 0.0)) / (2 * (1 + a))
    return max(0.0, centre - half), min(1.0, centre + half)


def proportion(successes: int, n: int, level: float = 0.95) -> Estimate:
    """`successes / n` with Wilson's score interval (Wilson 1927), sound at 0 and at n."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is not a share")
    if n == 0:
        return Estimate(None, None, 0, level)
    share = successes / n
    return Estimate(share, score_interval(share, 0.0, n, normal_quantile(level)), n, level)


def win_rate(wins: int, ties: int, losses: int, level: float = 0.95) -> Estimate:
    """Ties out: `wins / (wins + losses)` with Wilson's interval. `n` counts decided comparisons only."""
    if min(wins, ties, losses) < 0:
        raise ValueError("counts cannot be negative")
    return proportion(wins, wins + losses, level)


def half_tie_rate(wins: int, ties: int, losses: int, level: float = 0.95) -> Estimate:
    """Ties as half a win: `(wins + ties/2) / n`.

    The interval inverts the score test with the variance μ(1 − μ) − t/4 of scores {0, ½, 1} with tie share t:
    Wilson's when there are no ties.
    """
    n = wins + ties + losses
    if min(wins, ties, losses) < 0:
        raise ValueError("counts cannot be negative")
    if n == 0:
        return Estimate(None, None, 0, level, "wilson-ties")
    share = (wins + ties / 2) / n
    return Estimate(share, score_interval(share, ties / n, n, normal_quantile(level)), n, level, "wilson-ties")


def vector(values: ArrayLike) -> Floats:
    """As float64 (n,). Raises ValueError for another shape, or a value that is not finite."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"expected a vector, got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("a value is not finite")
    return x
