"""Student's t distribution, as far as intervals need it: its quantiles, for whole degrees of freedom."""

from __future__ import annotations

import math

import numpy as np

from ayni.maths.statistics import normal_quantile


def t_quantile(level: float, df: int) -> float:
    """The t with P(|T| ≤ t) = level for T with `df` degrees of freedom: 2.228 at 0.95 and 10."""
    if df < 1:
        raise ValueError(f"{df} degrees of freedom")
    t = normal_quantile(level)
    scale = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    for _ in range(200):  # Newton from the left of a concave function: it never passes the root
        density = 2 * math.exp(scale - (df + 1) / 2 * math.log1p(t * t / df))
        step = (level - _within(t, df)) / density
        t += step
        if abs(step) <= 1e-13 * t:
            break
    return t


def _within(t: float, df: int) -> float:
    """P(|T| ≤ t): the finite series of Abramowitz and Stegun (1964), 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(df))
    square = df / (df + t * t)  # cos² of it
    odd = df % 2
    k = np.arange(1, (df - odd) // 2, dtype=np.float64)
    series = 1 + float(np.cumprod(square * (2 * k / (2 * k + 1) if odd else (2 * k - 1) / (2 * k))).sum())
    if not odd:
        return math.sin(angle) * series
    return 2 / math.pi * (angle + (math.sin(angle) * math.cos(angle) * series if df > 1 else 0.0))
