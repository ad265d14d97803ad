"""How far a reward model's confidence can be trusted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ayni.maths.calibration import calibration_error, reliability


def test_reliability_of_a_calibrated_judge() -> None:
    generator = np.random.default_rng(2)
    d = generator.normal(0, 2, 20_000)
    right = generator.random(d.size) < 1 / (1 + np.exp(-np.abs(d)))
    bins = reliability(np.where(right, np.abs(d), -np.abs(d)), range(d.size), bins=5)
    assert len(bins) == 5
    assert sum(item.observed.n for item in bins) == d.size
    error = calibration_error(bins)
    assert error is not None
    assert error < 0.015
    bold = calibration_error(reliability(np.where(right, 1.0, -1.0) * np.abs(d) * 5, range(d.size)))
    assert bold is not None
    assert bold > 0.1


def test_reliability_by_hand() -> None:
    (low, high) = reliability([0.0, 0.1, -0.1, 4.0], "ppqr", bins=2)
    assert (low.observed.n, low.observed.clusters, low.observed.value) == (3, 2, pytest.approx(1 / 3))
    assert (high.observed.n, high.observed.value) == (1, 1.0)
    assert low.confidence == pytest.approx((0.5 + 2 / (1 + math.exp(-0.1))) / 3)
    assert calibration_error(()) is None
