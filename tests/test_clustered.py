"""Intervals of clustered items: by hand, against Wilson's where items are independent, and at the edges."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.stats

from ayni.maths import statistics as st
from ayni.maths.clustered import (
    FEWEST,
    clustered_fraction,
    clustered_gain,
    clustered_mean,
    clustered_median,
    clustered_quantile,
    clustered_ratio,
    clustered_share,
)
from benchmarks import coverage


def test_items_alone_have_wilsons_interval() -> None:
    for wins, ties, losses in ((33, 0, 17), (20, 25, 5), (0, 0, 12), (9, 0, 0), (0, 30, 0), (1, 0, 1)):
        scores = [1.0] * wins + [0.5] * ties + [0.0] * losses
        ours, plain = clustered_share(scores, range(len(scores))), st.half_tie_rate(wins, ties, losses)
        assert (ours.value, ours.n, ours.clusters) == (plain.value, plain.n, plain.n)
        assert ours.interval == pytest.approx(plain.interval, abs=1e-12)


def test_a_share_by_hand() -> None:
    """Six clusters of two: 2, 2, 1, 1, 0 and 0 wins. The jackknife of equal clusters is the spread of their means."""
    scores = [1, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    ours = clustered_share(scores, "aabbccddeeff")
    variance = np.var([1, 1, 0.5, 0.5, 0, 0], ddof=1) / 6
    design = variance / (0.25 / 11)
    low, high = st.score_interval(0.5, 0.0, 12 / design, scipy.stats.t.ppf(0.975, 5))
    assert (ours.value, ours.n, ours.clusters, ours.method) == (0.5, 12, 6, "wilson-clustered")
    assert ours.interval == pytest.approx((low, high), abs=1e-9)


def test_names_and_order_of_clusters_say_nothing() -> None:
    draw = np.random.default_rng(0)
    scores, owners = draw.choice([0.0, 0.5, 1.0], 90), draw.integers(0, 12, 90)
    ours = clustered_share(scores, owners.tolist())
    order = draw.permutation(90)
    moved = clustered_share(scores[order], [("topic", -k) for k in owners[order].tolist()])
    assert moved.interval == pytest.approx(ours.interval, abs=1e-12)
    mirrored = clustered_share(1 - scores, owners.tolist())
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - ours.high, 1 - ours.low), abs=1e-12)


def test_clusters_never_narrow_an_interval() -> None:
    """Each prompt has one right and one wrong answer, so prompts differ in nothing: that is luck until shown."""
    opposed = clustered_share([1.0, 0.0] * 30, [i // 2 for i in range(60)])
    assert opposed.interval == pytest.approx(st.proportion(30, 60).interval)


def test_all_alike_still_leaves_doubt_and_more_of_it_in_clusters() -> None:
    """560 of 560 unsafe prompts refused, of 20 topics: the twenty-first topic may be the one that fails."""
    all_right = clustered_share([1.0] * 560, [i % 20 for i in range(560)])
    assert (all_right.value, all_right.high) == (1.0, 1.0)
    t = float(scipy.stats.t.ppf(0.975, 19))
    assert all_right.low == pytest.approx(1 / (1 + t**2 / 20))
    assert clustered_share([0.0] * 560, [i % 20 for i in range(560)]).high == pytest.approx(1 - all_right.low)
    tied = clustered_share([0.5] * 560, [i % 20 for i in range(560)])
    assert tied.low < 0.45 < 0.55 < tied.high


def test_failures_in_one_cluster_tell_little() -> None:
    spread, heaped = np.ones(560), np.ones(560)
    spread[np.arange(20) * 28] = 0  # one failure in each of 20 topics …
    heaped[:20] = 0  # … or all 20 in one
    topics = [i // 28 for i in range(560)]
    even, odd = clustered_share(spread, topics), clustered_share(heaped, topics)
    assert even.value == odd.value
    assert 0.94 < even.low < 0.95
    assert odd.low < 0.75


def test_few_clusters_have_no_interval() -> None:
    scores = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0]
    for owners in ([0] * 10, [i % (FEWEST - 1) for i in range(10)]):
        for found in (clustered_share(scores, owners), clustered_mean(scores, owners)):
            assert (found.value, found.interval, found.clusters) == (0.7, None, len(set(owners)))
            with pytest.raises(ValueError, match="no interval"):
                _ = found.low
    assert clustered_share(scores, [i % FEWEST for i in range(10)]).interval is not None
    giant = [0] * 95 + [1, 2, 3, 4, 5]  # six clusters, of which one is nearly all there is
    assert clustered_share([1.0, 0.0] * 50, giant).interval is None
    assert clustered_share([], []).value is None


def test_a_mean_of_clusters_is_students() -> None:
    values = [1.0, 2.0, 4.0, 9.0, 5.0, 6.0]
    alone = clustered_mean(values, range(6))
    half = scipy.stats.t.ppf(0.975, 5) * scipy.stats.sem(values)
    assert (alone.low, alone.high) == pytest.approx((4.5 - half, 4.5 + half))
    thrice = clustered_mean(np.repeat(values, 3), [i // 3 for i in range(18)])
    assert thrice.interval == pytest.approx(alone.interval)
    assert (thrice.n, thrice.clusters, thrice.method) == (18, 6, "jackknife")


def test_a_ratio_is_the_jackknifes() -> None:
    draw = np.random.default_rng(1)
    bits, sizes = draw.normal(20, 3, 40), draw.integers(5, 60, 40).astype(float)
    ours = clustered_ratio(bits * sizes, sizes, range(40))
    total = (bits * sizes).sum(), sizes.sum()
    without = [(total[0] - b * s) / (total[1] - s) for b, s in zip(bits, sizes, strict=True)]
    variance = 39 / 40 * sum((w - total[0] / total[1]) ** 2 for w in without)
    df = round(sizes.sum() ** 2 / (sizes**2).sum()) - 1
    assert ours.value == pytest.approx(total[0] / total[1])
    assert ours.high - ours.low == pytest.approx(2 * scipy.stats.t.ppf(0.975, df) * math.sqrt(variance))


def test_a_gain_is_a_contest() -> None:
    gain = clustered_gain([1.0] * 20 + [0.0] * 70 + [-1.0] * 10, range(100))
    assert gain.value == pytest.approx(0.1)
    # the textbook's interval of a difference of paired shares, without a correction
    half = 1.96 * math.sqrt((0.3 - 0.1**2) / 100)
    assert (gain.low, gain.high) == pytest.approx((0.1 - half, 0.1 + half), abs=0.01)


def test_a_fraction_of_ones_and_zeros_is_a_share_of_as_many_independent_ones() -> None:
    draw = np.random.default_rng(0)
    clusters = [i // 5 for i in range(200)]
    scores = (draw.random(200) < np.repeat(draw.random(40), 5)) * 1.0
    share, fraction = clustered_share(scores, clusters), clustered_fraction(scores, clusters)
    assert (fraction.value, fraction.clusters) == (share.value, 40)
    assert (fraction.low, fraction.high) == pytest.approx((share.low, share.high), abs=2e-3)  # n for n − 1
    # graded alike it spreads as far as half the distance from one half
    halves = clustered_fraction(scores / 2 + 0.25, clusters)
    assert halves.high - halves.low == pytest.approx((fraction.high - fraction.low) / 2, rel=0.05)


def test_a_fraction_stays_where_it_can_be() -> None:
    """± t standard errors of these reach beyond 1."""
    values, clusters = [1.0] * 48 + [0.25, 1, 1, 1, 0, 1, 1, 1, 0.5, 1, 1, 0.75], [i // 4 for i in range(60)]
    found = clustered_fraction(values, clusters)
    assert 0.75 < found.low < np.mean(values) < found.high < 1 < clustered_mean(values, clusters).high
    assert clustered_fraction([1.0] * 60, clusters).low == pytest.approx(0.76, abs=0.04)
    assert clustered_fraction([1.0, 0.5] * 4, [0, 1] * 4).interval is None
    assert clustered_fraction([(1 - 0.7) / 0.3] * 10, range(10)).value == 1  # a rounding above
    with pytest.raises(ValueError, match="outside"):
        clustered_fraction([1.1], [0])


def test_what_is_no_score_is_refused() -> None:
    with pytest.raises(ValueError, match="none of 1, ½ and 0"):
        clustered_share([0.7], [0])
    with pytest.raises(ValueError, match="2 items but 1 clusters"):
        clustered_share([1.0, 0.0], [0])
    with pytest.raises(ValueError, match="2 numerators but 1"):
        clustered_ratio([1.0, 2.0], [1.0], [0, 1])
    with pytest.raises(ValueError, match="finite"):
        clustered_mean([float("nan")], [0])


@pytest.mark.parametrize(("of", "items"), sorted({(study.of, study.items) for study in coverage.studies()}))
def test_intervals_hold_the_truth_as_often_as_they_say(of: str, items: str) -> None:
    """A small part of docs/results/coverage.json: 150 experiments, of which 143 are to hold, give or take 2.7."""
    study = next(study for study in coverage.studies() if (study.of, study.items) == (of, items))
    found = coverage.coverage(study, 150)
    assert (0.86 if study.of == "right content" else 0.9) <= found["held"] <= 0.994
    if study.correlation:
        assert found["held_by_items"] < found["held"]


def test_the_published_coverage_is_what_was_promised() -> None:
    """Clusters like ours: 93 to 97 of 100. Where topics do not differ Wilson's width may hold a few more, where
    nearly all content is right, and what is not is in a few topics, a few less."""
    report = json.loads(coverage.RESULTS.read_text(encoding="utf-8"))
    studies = [(study.of, study.items, study.truth, study.correlation) for study in coverage.studies()]
    assert [(r["of"], r["items"], r["truth"], r["correlation"]) for r in report["results"]] == studies
    for row in report["results"]:
        least, most = 0.92 if row["of"] == "right content" else 0.93, 0.98 if "do not differ" in row["items"] else 0.97
        assert least <= row["held"] <= most, row
    assert (report["experiments"], report["command"]) == (1000, "python -m benchmarks.coverage")
    page = coverage.PAGE.read_text(encoding="utf-8")
    assert coverage.filled(page, report) == page


def test_a_median_by_hand() -> None:
    """101 items alone: Wilson's interval of a half at n 101 is [0.404, 0.596], so of 0 … 100 the values 40 and 60."""
    ours = clustered_median(np.arange(101.0), range(101))
    low, high = st.half_tie_rate(50, 1, 50).interval or (0, 0)
    assert (ours.value, ours.method, ours.n, ours.clusters) == (50, "woodruff", 101, 101)
    assert ours.interval == (math.ceil(low * 101) - 1, math.ceil(high * 101) - 1)
    assert clustered_median([3.0] * 20, range(20)).interval == (3, 3)
    assert clustered_median([1.0, 2.0, 9.0, 9.0], "aabb").interval is None
    assert clustered_median([], []).value is None


def test_a_quantile_has_the_share_that_it_is_named_for_below_it() -> None:
    ours = clustered_quantile(np.arange(101.0), range(101), 0.9)
    low, high = st.half_tie_rate(90, 1, 10).interval or (0, 0)
    assert ours.value == 90
    assert ours.interval == (math.ceil(low * 101) - 1, math.ceil(high * 101) - 1)
    assert clustered_quantile([1.0, 2.0, 9.0], "abc", 0.5) == clustered_median([1.0, 2.0, 9.0], "abc")


def test_a_median_s_interval_holds_the_truth_of_clustered_items() -> None:
    """400 items of 40 clusters, half of whose spread is between clusters, around 0."""
    draw, held, plain = np.random.default_rng(3), 0, 0
    for _ in range(300):
        owners = np.repeat(np.arange(40), 10)
        values = draw.normal(size=40)[owners] + draw.normal(size=400)
        ours, alone = clustered_median(values, owners.tolist()), clustered_median(values, range(400))
        held += ours.low <= 0 <= ours.high
        plain += alone.low <= 0 <= alone.high
    assert 0.92 <= held / 300 <= 0.985
    assert plain / 300 < 0.8
