"""Intervals for items that stand or fall together: prompts of one topic, comparisons of one prompt, texts of one book.

What was drawn is the cluster. 560 prompts of 20 topics are 20 draws, and an interval that counts 560 holds the truth
in 60 repetitions of 100 where it says 95. The spread is therefore that between clusters, by leaving out one after the
other (the delete-one-group jackknife, which is fair to clusters of unequal size), with Student's t. A share keeps
Wilson's interval, of as many independent items as would spread so far (Korn and Graubard 1998), so it is sound at
0 and 1. How often they hold the truth: docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ayni.maths.statistics import Estimate, half_tie_rate, proportion, score_interval, vector
from ayni.maths.students_t import t_quantile

FEWEST = 5  # clusters: fewer tell too little about their spread for an interval

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Clusters:
    """Which of `count` clusters each item belongs to: `owners` (n,), numbered as they first appear."""

    owners: NDArray[np.int64]
    count: int

    @classmethod
    def of(cls, names: Sequence[Hashable]) -> Clusters:
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return cls(np.array([numbers[name] for name in names], np.int64), len(numbers))

    def sums(self, values: Floats) -> Floats:
        """(n,) → (clusters,)."""
        return np.bincount(self.owners, values, minlength=self.count).astype(np.float64, copy=False)


def clustered_share(scores: ArrayLike, clusters: Sequence[Hashable], level: float = 0.95) -> Estimate:
    """The mean of scores 1, ½ (a tie) and 0 (n,), with Wilson's interval of n / (design effect) independent items.

    Never narrower than Wilson's of n, and just that where every item is a cluster by itself. Without a spread (all
    scores alike) clusters count as if their items were one. Below FEWEST clusters there is no interval.
    """
    x = vector(scores)
    if not np.isin(x, (0.0, 0.5, 1.0)).all():
        raise ValueError("a score is none of 1, ½ and 0")
    wins, ties, losses = (int((x == score).sum()) for score in (1.0, 0.5, 0.0))
    plain = half_tie_rate(wins, ties, losses, level) if ties else proportion(wins, wins + losses, level)
    groups = _checked(x, clusters)
    if plain.value is None or plain.interval is None or groups.count == x.size:
        return replace(plain, clusters=groups.count)
    found = replace(plain, method="wilson-clustered", clusters=groups.count)
    effective = _effective(groups.sums(np.ones(x.size)))
    if groups.count < FEWEST or effective < 2:
        return replace(found, interval=None)
    spread = float(((x - plain.value) ** 2).mean())
    # of independent items the jackknife gives spread / (n − 1)
    design = _variance(x, np.ones(x.size), groups) / (spread / (x.size - 1)) if spread else x.size / effective
    t = t_quantile(level, min(round(effective) - 1, _telling(x, groups)))
    low, high = score_interval(plain.value, ties / x.size, x.size / max(design, 1e-9), t)
    return replace(found, interval=(min(low, plain.low), max(high, plain.high)))


def clustered_fraction(values: ArrayLike, clusters: Sequence[Hashable], level: float = 0.95) -> Estimate:
    """The mean of values from 0 to 1 (n,), with Wilson's interval of as many independent ones and zeros as would spread
    as far. Near 1 it is wider below than above and never beyond 1. No interval below FEWEST clusters.
    """
    x = vector(values)
    if not ((x >= -1e-9) & (x <= 1 + 1e-9)).all():  # what was divided may lie a rounding beyond 1
        raise ValueError("a value lies outside [0, 1]")
    x = x.clip(0, 1)
    groups = _checked(x, clusters)
    if x.size == 0:
        return Estimate(None, None, 0, level, "wilson-clustered", groups.count)
    value = float(x.mean())
    found = Estimate(value, None, x.size, level, "wilson-clustered", groups.count)
    effective = _effective(groups.sums(np.ones(x.size)))
    if groups.count < FEWEST or effective < 2:
        return found
    variance = _variance(x, np.ones(x.size), groups)
    # where nothing spreads a cluster counts as one item
    independent = value * (1 - value) / variance if variance > 1e-12 else effective
    t = t_quantile(level, min(round(effective) - 1, _telling(x, groups)))
    return replace(found, interval=score_interval(value, 0.0, independent, t))


def clustered_gain(differences: ArrayLike, clusters: Sequence[Hashable], level: float = 0.95) -> Estimate:
    """The mean of differences 1, 0 and −1 (n,): 2 · share − 1 of a contest that they win, tie and lose."""
    share = clustered_share((vector(differences) + 1) / 2, clusters, level)
    value = None if share.value is None else 2 * share.value - 1
    interval = None if share.interval is None else (2 * share.low - 1, 2 * share.high - 1)
    return replace(share, value=value, interval=interval)


def clustered_mean(values: ArrayLike, clusters: Sequence[Hashable], level: float = 0.95) -> Estimate:
    """The mean of values (n,) ± t standard errors; no interval below FEWEST clusters."""
    x = vector(values)
    return clustered_ratio(x, np.ones(x.size), clusters, level)


def clustered_median(values: ArrayLike, clusters: Sequence[Hashable], level: float = 0.95) -> Estimate:
    """The median of values (n,); see `clustered_quantile`."""
    return clustered_quantile(values, clusters, 0.5, level)


def clustered_quantile(values: ArrayLike, clusters: Sequence[Hashable], share: float, level: float = 0.95) -> Estimate:
    """The value below which a `share` of the values (n,) lies, with Woodruff's (1952) interval: between the values
    below which the lower and the upper bound of that share, clustered, lie. No interval below FEWEST clusters.
    """
    x = vector(values)
    groups = _checked(x, clusters)
    if x.size == 0:
        return Estimate(None, None, 0, level, "woodruff", groups.count)
    value = float(np.quantile(x, share))
    # a value equal to it is half below it, so that ties leave the share near what it was
    below = clustered_share(np.where(x < value, 1.0, np.where(x == value, 0.5, 0.0)), clusters, level)
    found = Estimate(value, None, x.size, level, "woodruff", groups.count)
    if groups.count < FEWEST or below.interval is None:
        return found
    low, high = np.quantile(x, (below.low, below.high), method="inverted_cdf")
    return replace(found, interval=(min(float(low), value), max(float(high), value)))


def clustered_ratio(
    numerators: ArrayLike, denominators: ArrayLike, clusters: Sequence[Hashable], level: float = 0.95
) -> Estimate:
    """Σ numerators / Σ denominators of items (n,) ± t standard errors; no interval below FEWEST clusters."""
    top, bottom = vector(numerators), vector(denominators)
    if top.shape != bottom.shape:
        raise ValueError(f"{top.size} numerators but {bottom.size} denominators")
    groups = _checked(top, clusters)
    if top.size == 0:
        return Estimate(None, None, 0, level, "jackknife", groups.count)
    value = float(top.sum() / bottom.sum())
    found = Estimate(value, None, top.size, level, "jackknife", groups.count)
    effective = _effective(groups.sums(bottom))
    if groups.count < FEWEST or effective < 2:
        return found
    half = t_quantile(level, round(effective) - 1) * _variance(top, bottom, groups) ** 0.5
    return replace(found, interval=(value - half, value + half))


def clustered_statistic(
    statistic: Callable[[NDArray[np.int64]], float | None],
    clusters: Sequence[Hashable],
    level: float = 0.95,
    *,
    most: float = np.inf,
    method: str = "jackknife",
) -> Estimate:
    """Any statistic of the items with these indices, ± t standard errors, at `most` what it can be.

    No interval below FEWEST clusters, where it has no value without one of them, or where none of them moves it.
    """
    groups = Clusters.of(clusters)
    every = np.arange(len(clusters))
    value = statistic(every) if every.size else None
    found = Estimate(value, None, every.size, level, method, groups.count)
    effective = _effective(groups.sums(np.ones(every.size))) if every.size else 0.0
    if value is None or groups.count < FEWEST or effective < 2:
        return found
    left_out = [statistic(every[groups.owners != cluster]) for cluster in range(groups.count)]
    known = np.array([each for each in left_out if each is not None])
    error = float((groups.count - 1) / groups.count * ((known - value) ** 2).sum()) ** 0.5
    if known.size < groups.count or error < 1e-12:
        return found
    half = t_quantile(level, round(effective) - 1) * error
    return replace(found, interval=(value - half, min(value + half, most)))


def length_controlled_share(
    scores: ArrayLike, longer: ArrayLike, clusters: Sequence[Hashable], level: float = 0.95
) -> Estimate:
    """The mean of scores 1, ½ and 0 (n,), had both answers been equally long (Dubois et al. 2024, without their term
    for how hard a prompt is).

    P(win) = σ(θ + φ · tanh(δ / s)), where δ (n,) is by how much the scored answer is `longer` and s its deviation, is
    fitted to the scores with the penalty φ²/2, and the value is σ(θ). The interval is σ(θ ± t standard errors), by the
    jackknife over clusters, each fit one Newton step from the whole one. Where all scores are alike, length explains
    nothing: that is `clustered_share`. No interval below FEWEST clusters.
    """
    y, delta = vector(scores), vector(longer)
    if y.shape != delta.shape:
        raise ValueError(f"{y.size} scores but {delta.size} lengths")
    plain = clustered_share(y, clusters, level)
    if y.size == 0 or np.ptp(y) == 0:
        return plain
    deviation = float(delta.std())
    design = np.stack([np.ones(y.size), np.tanh(delta / deviation) if deviation else np.zeros(y.size)], 1)
    fit = _logistic(design, y)
    p = _sigmoid(design @ fit)
    found = Estimate(float(_sigmoid(fit[0])), None, y.size, level, "logistic-jackknife", plain.clusters)
    groups = Clusters.of(clusters)
    effective = _effective(groups.sums(np.ones(y.size)))
    if groups.count < FEWEST or effective < 2:
        return found
    # what each cluster adds to the gradient (G, 2) and to the curvature (G, 2, 2)
    gradients = np.stack([groups.sums((y - p) * x) for x in design.T], -1)
    curved = [[groups.sums(p * (1 - p) * x * z) for x in design.T] for z in design.T]
    curvatures = np.moveaxis(np.array(curved), -1, 0)
    left_out = np.linalg.solve(curvatures.sum(0) + _RIDGE - curvatures, gradients[..., None])[:, 0, 0]
    error = float((groups.count - 1) / groups.count * (left_out**2).sum()) ** 0.5
    half = t_quantile(level, min(round(effective) - 1, _telling(y, groups))) * error
    return replace(found, interval=(float(_sigmoid(fit[0] - half)), float(_sigmoid(fit[0] + half))))


_RIDGE = np.diag([0.0, 1.0])  # a length that tells every verdict apart must not be worth infinitely much


def _logistic(design: Floats, y: Floats) -> Floats:
    """The most likely coefficients (2,) of P(y) = σ(design (n, 2) · coefficients), under the ridge."""
    found = np.zeros(2)
    for _ in range(200):
        p = _sigmoid(design @ found)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + _RIDGE
        step = np.linalg.solve(curvature, design.T @ (y - p) - _RIDGE @ found)
        # a whole step from where the curve is flat would overshoot
        found = found + step * min(1.0, 1 / max(float(np.abs(step).max()), 1e-300))
        if np.abs(step).max() < 1e-12 * (1 + np.abs(found).max()):
            break
    return found


def _sigmoid(x: ArrayLike) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(np.asarray(x, np.float64) / 2)))


def _checked(items: Floats, clusters: Sequence[Hashable]) -> Clusters:
    if len(clusters) != items.size:
        raise ValueError(f"{items.size} items but {len(clusters)} clusters")
    return Clusters.of(clusters)


def _effective(sizes: Floats) -> float:
    """(Σ m)² / Σ m² of the clusters' sizes: how many of equal size would count as much."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _variance(top: Floats, bottom: Floats, groups: Clusters) -> float:
    """Of Σ top / Σ bottom, from what it becomes without each cluster; the leave-one-out ratios are exact."""
    tops, bottoms = groups.sums(top), groups.sums(bottom)
    left_out = (tops.sum() - tops) / (bottoms.sum() - bottoms)
    # around the ratio itself, not around their mean: with unequal clusters that is the larger
    return float((groups.count - 1) / groups.count * ((left_out - tops.sum() / bottoms.sum()) ** 2).sum())


def _telling(x: Floats, groups: Clusters) -> int:
    """The degrees of freedom that a share's spread can have: clusters with another than the commonest score, plus one.

    Where all failures lie in three topics, three topics tell how far topics differ, however many there are. Where all
    scores are alike nothing limits it, as no spread was measured.
    """
    scores, counts = np.unique(x, return_counts=True)
    if scores.size == 1 or counts.max() == 1:
        return groups.count
    commonest = scores[counts == counts.max()]
    return 1 + min(np.unique(groups.owners[x != score]).size for score in commonest)
