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


def test_mean_interval() -> None:
    values = [1.0, 2.0, 4.0, 9.0]
    ours = st.mean(values)
    half = scipy.stats.norm.ppf(0.975) * scipy.stats.sem(values)
    assert ours.value == 4.0
    assert (ours.low, ours.high) == pytest.approx((4 - half, 4 + half))
    assert st.mean([]).value is None
    assert st.mean([3.0]).interval is None
    with pytest.raises(ValueError, match="finite"):
        st.mean([1.0, float("nan")])


def test_paired_difference_uses_the_pairing() -> None:
    generator = np.random.default_rng(1)
    hardness = generator.normal(0, 10, 300)
    a, b = hardness + 0.5 + generator.normal(0, 0.5, 300), hardness + generator.normal(0, 0.5, 300)
    ours = st.paired_difference(a, b, seed=3)
    assert ours.value == pytest.approx(float((a - b).mean()))
    assert ours.low > 0.3
    assert ours.high < 0.7  # unpaired, ±1.6
    assert ours == st.paired_difference(a, b, seed=3)
    assert ours != st.paired_difference(a, b, seed=4)
    se = float((a - b).std() / math.sqrt(300))
    assert ours.high - ours.low == pytest.approx(2 * 1.96 * se, rel=0.1)
    with pytest.raises(ValueError, match="not paired"):
        st.paired_difference([1.0], [1.0, 2.0], seed=0)


def test_bootstrap_ratio_weighs_items() -> None:
    ours = st.bootstrap_ratio([10.0, 30.0], [1.0, 3.0], seed=0)
    assert ours.value == 10.0
    assert ours.interval == pytest.approx((10.0, 10.0))


def test_reliability_of_a_calibrated_judge() -> None:
    generator = np.random.default_rng(2)
    d = generator.normal(0, 2, 20_000)
    right = generator.random(d.size) < 1 / (1 + np.exp(-np.abs(d)))
    bins = st.reliability(np.where(right, np.abs(d), -np.abs(d)), bins=5)
    assert len(bins) == 5
    assert sum(item.observed.n for item in bins) == d.size
    error = st.calibration_error(bins)
    assert error is not None
    assert error < 0.015
    bold = st.calibration_error(st.reliability(np.where(right, 1.0, -1.0) * np.abs(d) * 5))
    assert bold is not None
    assert bold > 0.1


def test_reliability_by_hand() -> None:
    (low, high) = st.reliability([0.0, 0.1, -0.1, 4.0], bins=2)
    assert (low.observed.n, low.observed.value) == (3, pytest.approx(1 / 3))
    assert (high.observed.n, high.observed.value) == (1, 1.0)
    assert low.confidence == pytest.approx((0.5 + 2 / (1 + math.exp(-0.1))) / 3)
    assert st.calibration_error(()) is None


def test_correlations_are_scipys() -> None:
    generator = np.random.default_rng(5)
    x = generator.integers(0, 6, 80)
    y = x + generator.normal(0, 2, 80)
    assert st.pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
    assert st.spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert st.ranks([3.0, 1.0, 3.0]).tolist() == [2.5, 1.0, 2.5]
    assert st.pearson([1.0, 1.0], [2.0, 3.0]) is None
