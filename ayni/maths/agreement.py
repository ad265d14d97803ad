"""How far annotators agree beyond chance: Gwet's AC1 and AC2, Krippendorff's alpha, each with its interval.

`ratings` are (items, annotators), NaN where somebody did not rate; any number of annotators, and each item may have
its own. Decided once, for all of them:

- An item that fewer than two have rated compares nothing. Alpha leaves it out; AC1 and AC2 use it for how often a
  category is chosen, as Gwet does.
- Nothing to compare, or one category only where the scale is not given (and for alpha in any case, as it then expects
  no disagreement): `value` is None.
- One item, or items that all say the same of the agreement (perfect agreement is that): no interval, as the spread
  between items is all that it could be read from.
- What no data can cause is a ValueError: arrays of another shape, ratings outside the categories, unknown names.

Sources: Gwet, Computing inter-rater reliability and its variance in the presence of high agreement (2008); Gwet,
Handbook of Inter-Rater Reliability, 4th ed. (2014); Krippendorff, Computing Krippendorff's
alpha-reliability (2011). The intervals are ± Student's t with (items − 1) degrees of freedom, at most 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ayni.maths.students_t import t_quantile
from ayni.seeds import rng

Floats = NDArray[np.float64]
Weights = Literal["identity", "linear", "quadratic", "ordinal"]
Metric = Literal["nominal", "ordinal", "interval", "ratio"]
_NO_SPREAD = 1e-12  # standard errors below this are rounding


@dataclass(frozen=True, slots=True)
class Agreement:
    """A coefficient: 1 is perfect agreement, 0 what chance would give, None nothing to compare.

    `n`: items that two or more have rated. `observed` and `expected`: of AC1 and AC2 the agreement p_a and p_e, of
    alpha the disagreement D_o and D_e, in units of its metric. `error`: the standard error.
    """

    value: float | None
    interval: tuple[float, float] | None
    n: int
    level: float = 0.95
    method: str = ""
    error: float | None = None
    observed: float | None = None
    expected: float | None = None


def gwet_ac(
    ratings: ArrayLike, *, weights: Weights = "identity", categories: Sequence[float] | None = None, level: float = 0.95
) -> Agreement:
    """Gwet's AC1 (identity weights) or AC2 of `ratings` (items, annotators).

    With r_ik ratings of item i in category k, r_i in all, w the weights, r*_ik = Σ_l w_kl r_il, q categories:

        p_a = mean over items with r_i ≥ 2 of Σ_k r_ik (r*_ik − 1) / (r_i (r_i − 1))
        p_e = Σ_kl w_kl / (q (q − 1)) · Σ_k π_k (1 − π_k),   π_k = mean over rated items of r_ik / r_i
        AC = (p_a − p_e) / (1 − p_e)

    `categories`: the scale; without it, the ratings that occur. The interval is Gwet's (2008, 2014), which takes
    the share of items with two ratings as given; where many have one, it is wide: leave those out for a narrower one.
    """
    counts, values = _counts(ratings, categories)
    r = counts.sum(1)
    w = weight_matrix(values, weights)
    # what one annotator alone rated says how often categories are chosen, nothing about agreement
    several = r >= 2
    agreed = np.zeros(len(r))
    c = counts[several]
    # − 1: nobody is paired with himself
    agreed[several] = (c * (c @ w - 1)).sum(1) / (r * (r - 1))[several]
    return _gwet(agreed, counts / r[:, None], several, w, level, _name(weights))


def gwet_ac_against(
    own: ArrayLike,
    others: ArrayLike,
    *,
    weights: Weights = "identity",
    categories: Sequence[float] | None = None,
    level: float = 0.95,
) -> Agreement:
    """One annotator's AC1 or AC2 with the others: `own` (items,), `others` (items, annotators).

    What `gwet_ac` gives of the two columns "own" and "one of the others, drawn anew for every item", with the mean over
    the draws in place of a draw. Items that only one side has rated are left out.
    """
    mine, theirs, values = _two_sides(own, others, categories)
    w = weight_matrix(values, weights)
    agreed = ((mine @ w) * theirs).sum(1)
    return _gwet(agreed, (mine + theirs) / 2, np.ones(len(mine), bool), w, level, _name(weights))


def krippendorff_alpha(
    ratings: ArrayLike,
    *,
    metric: Metric = "nominal",
    level: float = 0.95,
    seed: int | None = None,
    resamples: int = 1000,
) -> Agreement:
    """Krippendorff's alpha of `ratings` (items, annotators).

    With n_ic ratings of item i in category c, m_i in all, over items with m_i ≥ 2, and n_c = Σ_i n_ic, n = Σ_c n_c:

        o_ck = Σ_i n_ic (n_ik − [c = k]) / (m_i − 1),   D_o = Σ_ck o_ck δ²_ck / n
        D_e = Σ_ck n_c n_k δ²_ck / (n (n − 1)),   alpha = 1 − D_o / D_e

        δ²_ck: nominal [c ≠ k] · interval (c − k)² · ratio ((c − k) / (c + k))² ·
               ordinal (Σ_{g=c}^k n_g − (n_c + n_k) / 2)²

    The standard error is linearised over items (as Gwet 2014 has it): the variance of what each item's weight changes.
    For the ordinal metric this includes that δ moves with the ratings. With a `seed` the interval is the percentiles
    of a bootstrap over items instead; draws in which everybody says the same are left out, as alpha has no value there.
    """
    counts, values = _counts(ratings, None)
    counts = counts[counts.sum(1) >= 2]
    pairs = counts / (counts.sum(1) - 1)[:, None]
    return _alpha(pairs, counts, counts, values, metric, level, seed, resamples)


def alpha_against(
    own: ArrayLike,
    others: ArrayLike,
    *,
    metric: Metric = "nominal",
    level: float = 0.95,
    seed: int | None = None,
    resamples: int = 1000,
) -> Agreement:
    """One annotator's alpha with the others, as `gwet_ac_against`: `own` (items,), `others` (items, annotators)."""
    mine, theirs, values = _two_sides(own, others, None)
    return _alpha(2 * mine, theirs, mine + theirs, values, metric, level, seed, resamples)


def weight_matrix(values: ArrayLike, weights: Weights) -> Floats:
    """Gwet's weights between the categories `values` (q,), in order: (q, q), 1 on the diagonal, 0 for the farthest.

    linear 1 − |c − k| / range · quadratic 1 − (c − k)² / range² · ordinal 1 − d (d + 1) / (q (q − 1)) for d steps apart
    """
    v = np.asarray(values, np.float64)
    if weights not in get_args(Weights):
        raise ValueError(f"weights {weights!r} are none of {', '.join(get_args(Weights))}")
    if weights == "identity" or v.size < 2:
        return np.eye(v.size)
    if weights == "ordinal":
        steps = np.abs(np.subtract.outer(np.arange(v.size), np.arange(v.size)))
        return 1 - steps * (steps + 1) / (v.size * (v.size - 1))
    apart = np.abs(np.subtract.outer(v, v)) / np.ptp(v)
    return 1 - (apart if weights == "linear" else apart**2)


def _gwet(agreed: Floats, shares: Floats, several: NDArray[np.bool_], w: Floats, level: float, name: str) -> Agreement:
    """From each item's agreement (n,), its shares of categories (n, q), and whether two have rated it (n,)."""
    n, q = shares.shape
    compared = int(several.sum())
    if compared == 0 or q < 2:
        return Agreement(None, None, compared, level, name)
    p_a = float(agreed[several].mean())
    pi = shares.mean(0)
    # 1 / (q − 1) for AC1: if all categories are chosen alike, p_e is 1 / q
    factor = float(w.sum()) / (q * (q - 1))
    p_e = factor * float((pi * (1 - pi)).sum())
    # of the agreement that chance leaves to be had, the part that is there
    value = (p_a - p_e) / (1 - p_e)
    # how each item moves p_e, through π: the error covers both p_a and p_e
    chance = factor * (shares @ (1 - pi)) - p_e
    each = (n / compared * (agreed - p_e) * several - 2 * (1 - value) * chance) / (1 - p_e) - value
    error = math.sqrt(float((each**2).sum()) / (n * (n - 1))) if n > 1 else None
    return Agreement(value, _around(value, error, n, level), compared, level, name, error, p_a, p_e)


def _alpha(
    left: Floats,
    right: Floats,
    counts: Floats,
    values: Floats,
    metric: Metric,
    level: float,
    seed: int | None,
    resamples: int,
) -> Agreement:
    """From pairs of ratings, of item i left_i ⊗ right_i (its diagonal does not count), and `counts`; all are (n, q)."""
    if metric not in get_args(Metric):
        raise ValueError(f"metric {metric!r} is none of {', '.join(get_args(Metric))}")
    if metric == "ratio" and (values < 0).any():
        raise ValueError("ratios need ratings ≥ 0")
    n, name = len(counts), f"alpha {metric}"
    once = np.ones(n)
    observed, expected = _disagreement(once, left, right, counts, values, metric)
    # everybody says the same: chance leaves no disagreement to compare with
    if expected <= 0:
        return Agreement(None, None, n, level, name)
    value = 1 - observed / expected
    error = None
    if n > 1:
        error = math.sqrt(n / (n - 1) * float((_influence(left, right, counts, values, metric) ** 2).sum()))
    interval = _around(value, error, n, level)
    if seed is not None and interval is not None:
        draw = rng(seed, "alpha", n, resamples)
        drawn = []
        for _ in range(resamples):
            # items are drawn, not ratings: those of one item belong together
            times = np.bincount(draw.integers(0, n, n), minlength=n).astype(np.float64)
            top, bottom = _disagreement(times, left, right, counts, values, metric)
            drawn += [1 - top / bottom] if bottom > 0 else []
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        interval, name = (float(low), float(high)), f"{name}, bootstrap"
    return Agreement(value, interval, n, level, name, error, observed, expected)


def _disagreement(
    weights: Floats, left: Floats, right: Floats, counts: Floats, values: Floats, metric: Metric
) -> tuple[float, float]:
    """(D_o, D_e) with item i counted `weights[i]` times."""
    totals = weights @ counts
    n = float(totals.sum())
    if n <= 1:
        return 0.0, 0.0
    delta = _delta(values, totals, metric)
    observed = float((((weights[:, None] * left).T @ right) * delta).sum()) / n
    return observed, float(totals @ delta @ totals) / (n * (n - 1))


def _influence(left: Floats, right: Floats, counts: Floats, values: Floats, metric: Metric) -> Floats:
    """The derivative of 1 − n D_o / ((n − 1) D_e) by each item's weight, at weight 1: (items,), its sum 0."""
    totals = counts.sum(0)
    n = totals.sum()
    delta = _delta(values, totals, metric)
    pairs = left.T @ right
    # own against others counts as others against own
    pairs = (pairs + pairs.T) / 2
    top, bottom = float((pairs * delta).sum()), float(totals @ delta @ totals)
    by_pairs, by_chance = ((left @ delta) * right).sum(1), 2 * counts @ (delta @ totals)
    if metric == "ordinal":  # δ_ck is the distance of c's and k's middle ranks, which every rating moves
        middles, moves = _middle_ranks(totals), _middle_ranks(counts)
        by_pairs += 4 * moves @ (middles * pairs.sum(1) - pairs @ middles)
        by_chance += 4 * moves @ (middles * totals * n - totals * (totals @ middles))
    return -n / bottom * (top * counts.sum(1) / n + by_pairs - top * by_chance / bottom)


def _delta(values: Floats, totals: Floats, metric: Metric) -> Floats:
    """δ², (q, q). The sum in the ordinal one is the distance of middle ranks."""
    if metric == "nominal":
        return 1 - np.eye(values.size)
    v = _middle_ranks(totals) if metric == "ordinal" else values
    apart = np.subtract.outer(v, v)
    if metric == "ratio":
        # (0 − 0) / (0 + 0) counts as no distance
        sums = np.add.outer(v, v)
        apart = np.divide(apart, sums, out=np.zeros_like(apart), where=sums > 0)
    return apart**2


def _middle_ranks(counts: Floats) -> Floats:
    """How many ratings lie below each category, plus half of its own: (…, q) → (…, q)."""
    return np.cumsum(counts, -1) - counts / 2


def _counts(ratings: ArrayLike, categories: Sequence[float] | None) -> tuple[Floats, Floats]:
    """How many rated each item as each category (rated items, q), and the categories (q,) in order."""
    x = np.asarray(ratings, np.float64)
    if x.ndim != 2:
        raise ValueError(f"expected (items, annotators), got shape {x.shape}")
    values = _categories(x, categories)
    counts = np.stack([(x == value).sum(1) for value in values], 1) if values.size else np.zeros((len(x), 0))
    counts = counts.astype(np.float64)
    return counts[counts.sum(1) > 0], values


def _categories(x: Floats, categories: Sequence[float] | None) -> Floats:
    seen = np.unique(x[~np.isnan(x)])
    if categories is None:
        return seen
    values = np.asarray(categories, np.float64)
    if values.size < 2 or (np.diff(values) <= 0).any():
        raise ValueError("categories: two or more, ascending")
    strange = seen[~np.isin(seen, values)]
    if strange.size:
        raise ValueError(f"the rating {strange[0]:g} is none of the categories")
    return values


def _two_sides(own: ArrayLike, others: ArrayLike, categories: Sequence[float] | None) -> tuple[Floats, Floats, Floats]:
    """Of items that both sides have rated: own rating and the others' shares, each (n, q) with rows that sum to 1."""
    mine, theirs = np.asarray(own, np.float64), np.asarray(others, np.float64)
    if mine.ndim != 1 or theirs.ndim != 2 or len(mine) != len(theirs):
        raise ValueError(f"expected (items,) and (items, annotators), got {mine.shape} and {theirs.shape}")
    both = ~np.isnan(mine) & ~np.isnan(theirs).all(1)
    mine, theirs = mine[both], theirs[both]
    values = _categories(np.concatenate([mine, theirs.ravel()]), categories)
    first = (mine[:, None] == values).astype(np.float64)
    second = (theirs[:, :, None] == values).sum(1).astype(np.float64)
    # shares: the mean over a draw of one of the others
    return first, second / second.sum(1, keepdims=True), values


def _around(value: float, error: float | None, n: int, level: float) -> tuple[float, float] | None:
    if error is None or error < _NO_SPREAD:
        return None
    half = t_quantile(level, n - 1) * error
    return value - half, min(1.0, value + half)


def _name(weights: Weights) -> str:
    return "AC1" if weights == "identity" else f"AC2 {weights}"
