"""Honest numbers: every share, mean or difference comes with its interval.

The paper drops ties and prints bare win rates (§3.4.2, Fig. 11). We give both counts, ties out and ties as half
a win, each with a score interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ayni.seeds import rng

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its interval, which holds the truth in `level` of repetitions; None: nothing counted."""

    value: float | None
    interval: tuple[float, float] | None
    n: int
    level: float = 0.95
    method: str = "wilson"

    @property
    def low(self) -> float:
        """The lower bound; ValueError when there is no interval."""
        if self.interval is None:
            raise ValueError("nothing was counted: there is no interval")
        return self.interval[0]

    @property
    def high(self) -> float:
        if self.interval is None:
            raise ValueError("nothing was counted: there is no interval")
        return self.interval[1]


def normal_quantile(level: float) -> float:
    """The z with P(|Z| ≤ z) = level: 1.96 at 0.95."""
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    return NormalDist().inv_cdf(0.5 + level / 2)


def _score_interval(share: float, ties: float, n: int, level: float) -> tuple[float, float]:
    """The roots μ of (share − μ)² = z²/n · (μ(1 − μ) − ties/4); `ties` is the share that scored a half."""
    a = normal_quantile(level) ** 2 / n
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
    return Estimate(share, _score_interval(share, 0.0, n, level), n, level)


def win_rate(wins: int, ties: int, losses: int, level: float = 0.95) -> Estimate:
    """Ties out: `wins / (wins + losses)` with Wilson's interval. `n` counts decided comparisons only."""
    if min(wins, ties, losses) < 0:
        raise ValueError("counts cannot be negative")
    return proportion(wins, wins + losses, level)


def half_tie_rate(wins: int, ties: int, losses: int, level: float = 0.95) -> Estimate:
    """Ties as half a win: `(wins + ties/2) / n`.

    The interval inverts the score test with the variance μ(1 − μ) − t/4 of scores {0, ½, 1} with tie share t:
    Wilson's when there are no ties. t is shrunk by n/(n + z²), so that all ties still leave some doubt.
    """
    n = wins + ties + losses
    if min(wins, ties, losses) < 0:
        raise ValueError("counts cannot be negative")
    if n == 0:
        return Estimate(None, None, 0, level, "wilson-ties")
    tie_share = ties / (n + normal_quantile(level) ** 2)
    share = (wins + ties / 2) / n
    return Estimate(share, _score_interval(share, tie_share, n, level), n, level, "wilson-ties")


def mean(values: ArrayLike, level: float = 0.95) -> Estimate:
    """The mean of `values` (n,) ± z standard errors."""
    x = _vector(values)
    if x.size == 0:
        return Estimate(None, None, 0, level, "normal")
    middle = float(x.mean())
    # one number has no spread to read an interval from
    if x.size == 1:
        return Estimate(middle, None, 1, level, "normal")
    # ddof 1: the spread is around the sample's own mean
    half = normal_quantile(level) * float(x.std(ddof=1)) / math.sqrt(x.size)
    return Estimate(middle, (middle - half, middle + half), x.size, level, "normal")


def bootstrap_ratio(
    numerators: ArrayLike, denominators: ArrayLike, *, seed: int, level: float = 0.95, resamples: int = 2000
) -> Estimate:
    """Σ numerators / Σ denominators over items (n,) drawn together, with a percentile bootstrap interval."""
    top, bottom = _vector(numerators), _vector(denominators)
    if top.shape != bottom.shape:
        raise ValueError(f"{top.size} numerators but {bottom.size} denominators")
    if top.size == 0:
        return Estimate(None, None, 0, level, "bootstrap")
    value = float(top.sum() / bottom.sum())
    # sizes name the stream: equal sizes draw equal items, so two ratios of them can be compared
    generator = rng(seed, "bootstrap", top.size, resamples)
    draws = np.empty(resamples)
    # one at a time: all at once are resamples × n indices, 160 MB for 10,000 items
    for i in range(resamples):
        chosen = generator.integers(0, top.size, top.size)
        draws[i] = top[chosen].sum() / bottom[chosen].sum()
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, (float(low), float(high)), top.size, level, "bootstrap")


def paired_difference(a: ArrayLike, b: ArrayLike, *, seed: int, level: float = 0.95, resamples: int = 2000) -> Estimate:
    """mean(a − b) over items (n,) both were measured on; the bootstrap draws items, never halves of a pair."""
    x, y = _vector(a), _vector(b)
    if x.shape != y.shape:
        raise ValueError(f"a holds {x.size} items, b {y.size}: they are not paired")
    return bootstrap_ratio(x - y, np.ones(x.size), seed=seed, level=level, resamples=resamples)


@dataclass(frozen=True, slots=True)
class Bin:
    """The predictions between `low` and `high`: their mean confidence and the share that came true."""

    low: float
    high: float
    confidence: float
    observed: Estimate


def reliability(differences: ArrayLike, bins: int = 5, level: float = 0.95) -> tuple[Bin, ...]:
    """How far to trust σ(chosen − rejected): confidences σ(|d|) in equal bins of [½, 1], empty ones left out.

    A prediction comes true when d > 0; d = 0 predicts nothing and counts as wrong.
    """
    d = _vector(differences)
    # Bradley–Terry: the probability that the model gives to its own choice
    confidence = 1 / (1 + np.exp(-np.abs(d)))
    edges = np.linspace(0.5, 1.0, bins + 1)
    # clipped, so that confidence 1 falls into the last bin
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    found = []
    for i in range(bins):
        inside = place == i
        count = int(inside.sum())
        if count:
            observed = proportion(int((d[inside] > 0).sum()), count, level)
            found.append(Bin(float(edges[i]), float(edges[i + 1]), float(confidence[inside].mean()), observed))
    return tuple(found)


def calibration_error(bins: Sequence[Bin]) -> float | None:
    """Expected calibration error, |observed − confidence| per prediction (Guo et al. 2017, eq. 3)."""
    total = sum(item.observed.n for item in bins)
    if total == 0:
        return None
    # by predictions, not by bins: an almost empty bin says almost nothing
    gaps = (abs((item.observed.value or 0.0) - item.confidence) * item.observed.n for item in bins)
    return sum(gaps) / total


def pearson(x: ArrayLike, y: ArrayLike) -> float | None:
    """Linear correlation of two series (n,); None when either never changes."""
    a, b = _vector(x), _vector(y)
    if a.shape != b.shape:
        raise ValueError(f"{a.size} values against {b.size}")
    # 0/0
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / math.sqrt(float((a * a).sum() * (b * b).sum())))


def spearman(x: ArrayLike, y: ArrayLike) -> float | None:
    """Rank correlation of two series (n,); equal values share their mean rank."""
    return pearson(ranks(x), ranks(y))


def ranks(values: ArrayLike) -> Floats:
    """Ranks from 1, equal values sharing their mean rank; (n,) → (n,)."""
    x = _vector(values)
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _vector(values: ArrayLike) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"expected a vector, got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("a value is not finite")
    return x
