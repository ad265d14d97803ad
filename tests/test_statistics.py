"""Intervals against closed forms, scipy, and how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from ayni.maths import statistics as st


def test_normal_quantile_is_scipys() -> None:
    for level in (0.5, 0.9, 0.95, 0.999):
        assert st.normal_quantile(level) == pytest.approx(scipy.stats.norm.ppf(0.5 + level / 2), rel=1e-12)
    with pytest.raises(ValueError, match="between 0 and 1"):
        st.normal_quantile(95)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 7), (281, 400), (1, 1)])
def test_proportion_is_wilsons(successes: int, n: int) -> None:
    ours = st.proportion(successes, n)
    theirs = scipy.stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert ours.value == successes / n
    assert ours.low == pytest.approx(theirs.low, abs=1e-12)
    assert ours.high == pytest.approx(theirs.high, abs=1e-12)


def test_nothing_counted_is_none_not_zero() -> None:
    empty = st.proportion(0, 0)
    assert empty.value is None
    assert empty.interval is None
    with pytest.raises(ValueError, match="nothing was counted"):
        _ = empty.low
    assert st.half_tie_rate(0, 0, 0).value is None
    assert st.win_rate(0, 12, 0).value is None


def test_win_rate_leaves_ties_out() -> None:
    rate = st.win_rate(70, 100, 30)
    assert rate.value == 0.7
    assert rate.n == 100
    assert rate.interval == st.proportion(70, 100).interval
    with pytest.raises(ValueError, match="negative"):
        st.win_rate(3, -1, 2)


def test_half_ties_without_ties_is_wilson_and_is_symmetric() -> None:
    plain, wilson = st.half_tie_rate(33, 0, 17), st.proportion(33, 50)
    assert (plain.low, plain.high) == pytest.approx((wilson.low, wilson.high), abs=1e-12)
    ours, mirrored = st.half_tie_rate(20, 25, 5), st.half_tie_rate(5, 25, 20)
    assert ours.value == (20 + 12.5) / 50
    assert ours.low == pytest.approx(1 - mirrored.high, abs=1e-12)
    all_tied = st.half_tie_rate(0, 30, 0)
    assert all_tied.low < 0.5 < all_tied.high


def test_ties_narrow_the_interval_like_their_variance() -> None:
    tied, untied = st.half_tie_rate(100, 800, 100), st.half_tie_rate(500, 0, 500)
    ratio = (tied.high - tied.low) / (untied.high - untied.low)
    assert ratio == pytest.approx(math.sqrt(0.2), rel=0.02)  # variance ¼(1 − 0.8) against ¼


@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (0.1, 0.85, 0.05), (0.9, 0.08, 0.02)])
def test_half_tie_interval_holds_the_truth(shares: tuple[float, float, float]) -> None:
    truth = shares[0] + shares[1] / 2
    draws = np.random.default_rng(0).multinomial(120, shares, 1000)
    held = 0
    for wins, ties, losses in draws:
        rate = st.half_tie_rate(int(wins), int(ties), int(losses))
        held += rate.low <= truth <= rate.high
    assert 0.925 <= held / 1000 <= 0.985
