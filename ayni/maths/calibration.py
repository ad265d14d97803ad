"""How far to trust a reward model's confidence: reliability in bins, and the expected calibration error."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ayni.maths.clustered import clustered_share
from ayni.maths.statistics import Estimate, vector


@dataclass(frozen=True, slots=True)
class Bin:
    """The predictions between `low` and `high`: their mean confidence and the share that came true."""

    low: float
    high: float
    confidence: float
    observed: Estimate


def reliability(
    differences: ArrayLike, clusters: Sequence[Hashable], bins: int = 5, level: float = 0.95
) -> tuple[Bin, ...]:
    """How far to trust σ(chosen − rejected) of differences (P,): confidences σ(|d|) in equal bins of [½, 1], empty
    ones left out.

    A prediction comes true when d > 0; d = 0 predicts nothing and counts as wrong. `clusters` (P,) say which stand or
    fall together.
    """
    d = vector(differences)
    # Bradley–Terry: the probability that the model gives to its own choice
    confidence = 1 / (1 + np.exp(-np.abs(d)))
    edges = np.linspace(0.5, 1.0, bins + 1)
    # clipped, so that confidence 1 falls into the last bin
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    found = []
    for i in range(bins):
        inside = np.flatnonzero(place == i).tolist()
        if inside:
            observed = clustered_share(d[inside] > 0, [clusters[j] for j in inside], level)
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
