"""Agreement against published tables, the packages irrCAC and krippendorff, scipy's t, and what must not matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as some
from numpy.typing import NDArray

from ayni.maths.agreement import (
    Agreement,
    alpha_against,
    gwet_ac,
    gwet_ac_against,
    krippendorff_alpha,
    weight_matrix,
)
from ayni.maths.students_t import t_quantile

_ = np.nan
# Gwet, Handbook of Inter-Rater Reliability (2014), p. 120, after Krippendorff (2011), C: 12 units, 4 observers
FOUR_RATERS = np.array(
    [
        [1, 1, _, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4],
        [4, 4, 4, 4], [1, 1, 2, 1], [2, 2, 2, 2], [_, 5, 5, 5], [_, _, 1, 1], [_, _, 3, _],
    ]
)  # fmt: skip
# the same book, p. 125: 15 units, 5 observers
FIVE_OBSERVERS = np.array(
    [
        [1, 1, 2, _, 2], [1, 1, 0, 1, _], [2, 3, 3, 3, _], [_, 0, 0, _, 0], [0, 0, 0, _, 0],
        [0, 0, 0, _, 0], [1, 0, 2, _, 1], [1, _, 2, 0, _], [2, 2, 2, _, 2], [2, 1, 1, 1, _],
        [_, 1, 0, 0, _], [0, 0, 0, 0, _], [1, 2, 2, 2, _], [3, 3, 2, 2, 3], [1, 1, 1, _, 1],
    ]
)  # fmt: skip
# Krippendorff (2011), A: binary, two observers; B: nominal, two observers
MEG_OWEN = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]).T
BEN_GERRY = np.array([[1, 1, 2, 2, 4, 3, 3, 3, 5, 4, 4, 1], [2, 1, 2, 2, 2, 3, 3, 3, 5, 4, 4, 4]]).T
# Fleiss (1971), the first 15 patients: how many of 6 psychiatrists chose each of 5 diagnoses
FLEISS = [
    (0, 0, 0, 6, 0), (0, 3, 0, 0, 3), (0, 1, 4, 0, 1), (0, 0, 0, 0, 6), (0, 3, 0, 3, 0), (2, 0, 4, 0, 0),
    (0, 0, 4, 0, 2), (2, 0, 3, 1, 0), (2, 0, 0, 4, 0), (0, 0, 0, 0, 6), (1, 0, 0, 5, 0), (1, 1, 0, 4, 0),
    (0, 3, 3, 0, 0), (1, 0, 0, 5, 0), (0, 2, 0, 3, 1),
]  # fmt: skip
ABSTRACTORS = [(13, 0, 0), (0, 20, 7), (0, 4, 56)]  # Gwet (2014): 100 pregnancies, abstractor 1 × abstractor 2
ORACLE = json.loads((Path(__file__).parent / "oracle" / "irrcac.json").read_text(encoding="utf-8"))
TABLES = [np.array(row["ratings"], float) for row in ORACLE]
METRIC = {"identity": "nominal", "quadratic": "interval", "ratio": "ratio"}  # alpha's name for irrCAC's weights


def from_counts(rows: list[tuple[int, ...]]) -> NDArray[np.float64]:
    return np.array([[k for k, times in enumerate(row) for _ in range(times)] for row in rows], float)


def pairs_of(table: list[tuple[int, ...]]) -> NDArray[np.float64]:
    return np.array([(i, j) for i, row in enumerate(table) for j, times in enumerate(row) for _ in range(times)], float)


def printed(found: Agreement) -> tuple[float, ...]:
    assert found.value is not None
    assert found.error is not None
    assert found.interval is not None
    return tuple(round(x, 3) for x in (found.value, found.error, *found.interval))


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 10, 29, 1000, 20_001])
def test_t_quantile_is_scipys(df: int, level: float) -> None:
    assert t_quantile(level, df) == pytest.approx(scipy.stats.t.ppf(0.5 + level / 2, df), rel=1e-11)


def test_t_quantile_refuses() -> None:
    for level, df in ((0.95, 0), (1.0, 5)):
        with pytest.raises(ValueError, match=r"degrees of freedom|between 0 and 1"):
            t_quantile(level, df)


def test_gwets_four_raters_to_the_printed_digits() -> None:
    ac1 = gwet_ac(FOUR_RATERS)
    assert ac1.value == pytest.approx(0.77544, abs=5e-6)
    assert ac1.error == pytest.approx(0.14295, abs=5e-6)
    assert ac1.observed == pytest.approx(0.8181818, abs=5e-8)
    assert ac1.expected == pytest.approx(0.1903212, abs=5e-8)
    assert printed(ac1) == (0.775, 0.143, 0.461, 1)
    assert (ac1.n, ac1.method, ac1.level) == (11, "AC1", 0.95)
    assert printed(gwet_ac(FOUR_RATERS, weights="linear")) == (0.859, 0.117, 0.600, 1)
    assert printed(gwet_ac(FOUR_RATERS, weights="quadratic")) == (0.914, 0.104, 0.685, 1)
    assert printed(gwet_ac(FOUR_RATERS, weights="ordinal")) == (0.899, 0.107, 0.664, 1)


def test_gwets_other_tables_to_the_printed_digits() -> None:
    assert printed(gwet_ac(FIVE_OBSERVERS)) == (0.497, 0.122, 0.235, 0.758)
    assert gwet_ac(pairs_of(ABSTRACTORS)).value == pytest.approx(0.8493305, abs=5e-8)
    error = gwet_ac(pairs_of(ABSTRACTORS)).error or 0  # the formula for two raters divides by n, not n − 1
    assert error * np.sqrt(99 / 100) == pytest.approx(0.04321747, abs=5e-9)
    assert printed(gwet_ac(from_counts(FLEISS)))[2:] == (0.264, 0.625)
    assert gwet_ac(from_counts(FLEISS)).value == pytest.approx(0.4448007, abs=5e-8)
    assert gwet_ac(from_counts(FLEISS)).error == pytest.approx(0.08418757, abs=5e-9)


@pytest.mark.parametrize(
    ("metric", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)]
)
def test_krippendorffs_four_observers_to_the_printed_digits(metric: Any, value: float) -> None:
    assert round(krippendorff_alpha(FOUR_RATERS, metric=metric).value or 0, 3) == value


def test_krippendorffs_other_tables_to_the_printed_digits() -> None:
    assert round(krippendorff_alpha(MEG_OWEN).value or 0, 3) == 0.095
    assert round(krippendorff_alpha(BEN_GERRY).value or 0, 3) == 0.692
    assert krippendorff_alpha(from_counts(FLEISS)).value == pytest.approx(0.4204384, abs=5e-8)
    assert krippendorff_alpha(pairs_of(ABSTRACTORS)).value == pytest.approx(0.7972585, abs=5e-8)
    # as Gwet's own irrCAC for R prints it
    assert krippendorff_alpha(FOUR_RATERS).error == pytest.approx(0.14548, abs=5e-6)


@pytest.mark.parametrize("number", range(len(ORACLE)))
def test_coefficients_errors_and_intervals_are_irrcacs(number: int) -> None:
    for theirs in ORACLE[number]["answers"]:
        if theirs["coefficient"] == "gwet":
            ours = gwet_ac(TABLES[number], weights=theirs["weights"])
            assert (ours.observed, ours.expected) == pytest.approx((theirs["pa"], theirs["pe"]), abs=1e-9)
            error = ours.error
        else:
            ours = krippendorff_alpha(TABLES[number], metric=METRIC[theirs["weights"]])  # type: ignore[arg-type]
            right, slip = gwets_alpha_errors(TABLES[number], theirs["weights"])
            assert ours.error == pytest.approx(right, abs=1e-9)
            error = slip
        assert ours.value == pytest.approx(theirs["coefficient_value"], abs=1e-9)
        assert error == pytest.approx(theirs["se"], abs=1e-9)
        if error == ours.error:  # scipy 1.12's quantiles of t are right to 9 digits
            assert ours.interval == pytest.approx(theirs["confidence_interval"], abs=3e-9)


def gwets_alpha_errors(ratings: NDArray[np.float64], weights: str) -> tuple[float, float]:
    """Alpha's standard error by Gwet's formula, term by term; and as the Python irrCAC has it.

    That one subtracts p_a with its small-sample correction where the derivative of p_a has it without (the R package
    was corrected). Without missing ratings the two are one.
    """
    values = np.unique(ratings[~np.isnan(ratings)])
    counts = (ratings[:, :, None] == values).sum(1).astype(float)
    counts = counts[counts.sum(1) >= 2]
    if weights == "ratio":
        apart = (np.subtract.outer(values, values) / np.add.outer(values, values)) ** 2
        w = 1 - apart / apart.max()
    else:
        w = weight_matrix(values, weights)  # type: ignore[arg-type]
    r, n = counts.sum(1), len(counts)
    mean = r.mean()
    agreed = (counts * (counts @ w - 1)).sum(1) / (mean * (r - 1))
    prime, pi = agreed.mean(), counts.mean(0) / mean
    chance = pi @ w @ pi
    alpha = (prime - chance) / (1 - chance)
    errors = []
    for p_a in (prime, (1 - 1 / r.sum()) * prime + 1 / r.sum()):
        by_pairs = (agreed - p_a * (r - mean) / mean - chance) / (1 - chance)
        by_chance = counts @ w @ pi / mean - chance * (r - mean) / mean
        each = by_pairs - 2 * (1 - alpha) * (by_chance - chance) / (1 - chance)
        errors.append(float(np.sqrt(((each - alpha) ** 2).sum() / (n * (n - 1)))))
    return errors[0], errors[1]


@pytest.mark.parametrize("metric", ["nominal", "ordinal", "interval", "ratio"])
def test_alpha_is_the_krippendorff_packages(metric: Any) -> None:
    for table in [*TABLES, FOUR_RATERS, FIVE_OBSERVERS]:
        theirs = krippendorff.alpha(table.T, level_of_measurement=metric)
        assert krippendorff_alpha(table, metric=metric).value == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("metric", ["nominal", "ordinal", "interval", "ratio"])
def test_alphas_error_is_the_derivative_by_items(metric: Any) -> None:
    """Counting one item a little more often, as repeating all others a thousand times and it a thousand and once."""
    table = TABLES[4]
    times = 1000
    whole = np.repeat(table, times, axis=0)
    changes = []
    for i in range(len(table)):
        more = krippendorff_alpha(np.concatenate([whole, table[i : i + 1]]), metric=metric).value
        less = krippendorff_alpha(np.delete(whole, i * times, axis=0), metric=metric).value
        assert more is not None
        assert less is not None
        changes.append((more - less) / 2 * times)
    n = len(table)
    assert krippendorff_alpha(table, metric=metric).error == pytest.approx(
        float(np.sqrt(n / (n - 1) * (np.array(changes) ** 2).sum())), rel=2e-3
    )


def test_alphas_bootstrap_is_the_seeds_and_near_the_linearised_interval() -> None:
    table = np.repeat(TABLES[8], 5, axis=0)
    plain, drawn = krippendorff_alpha(table, metric="ordinal"), krippendorff_alpha(table, metric="ordinal", seed=3)
    assert drawn == krippendorff_alpha(table, metric="ordinal", seed=3)
    assert drawn.interval != krippendorff_alpha(table, metric="ordinal", seed=4).interval
    assert (drawn.value, drawn.error) == (plain.value, plain.error)
    assert drawn.method == "alpha ordinal, bootstrap"
    assert plain.interval == pytest.approx(drawn.interval, abs=0.02)


@pytest.mark.parametrize("coefficient", ["AC1", "AC2", "alpha"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(coefficient: str) -> None:
    draw = np.random.default_rng(5)

    def crowd(items: int) -> NDArray[np.float64]:
        truth = draw.normal(0, 1.5, (items, 1))
        rated = np.clip(np.floor(truth + draw.normal(0, 1, (items, 3)) + 4), 1, 8)
        rated[draw.random(items) < 0.4, 2] = np.nan
        return rated

    def asked(table: NDArray[np.float64]) -> Agreement:
        if coefficient == "alpha":
            return krippendorff_alpha(table, metric="ordinal")
        return gwet_ac(table, weights="identity" if coefficient == "AC1" else "quadratic", categories=range(1, 9))

    truth = asked(crowd(100_000)).value
    assert truth is not None
    intervals = [asked(crowd(80)).interval for _ in range(300)]
    held = sum(found is not None and found[0] <= truth <= found[1] for found in intervals)
    assert 0.91 <= held / 300 <= 0.99


def test_items_that_one_has_rated_widen_gwets_interval_and_not_alphas() -> None:
    draw = np.random.default_rng(6)
    several = np.clip(np.floor(draw.normal(0, 1.5, (100, 1)) + draw.normal(0, 1, (100, 2)) + 4), 1, 8)
    alone = np.stack([np.repeat(several[:, 0], 9), np.full(900, np.nan)], 1)
    both = np.concatenate([several, alone])
    scale = range(1, 9)
    narrow = gwet_ac(several, weights="quadratic", categories=scale)
    wide = gwet_ac(both, weights="quadratic", categories=scale)
    assert (narrow.n, wide.n) == (100, 100)
    assert wide.error is not None
    assert narrow.error is not None
    assert wide.error > 2 * narrow.error
    assert krippendorff_alpha(both, metric="ordinal") == krippendorff_alpha(several, metric="ordinal")


def test_one_against_one_other_is_the_two_together() -> None:
    table = TABLES[7][:, :2]
    both = table[~np.isnan(table).any(1)]
    scale = range(1, 9)
    for weights in ("identity", "quadratic"):
        ours = gwet_ac_against(table[:, 0], table[:, 1:], weights=weights, categories=scale)  # type: ignore[arg-type]
        together = gwet_ac(both, weights=weights, categories=scale)  # type: ignore[arg-type]
        assert (ours.value, ours.error) == pytest.approx((together.value, together.error), abs=1e-12)
        assert ours.interval == pytest.approx(together.interval, abs=1e-12)
    for metric in ("nominal", "ordinal"):
        mine = alpha_against(table[:, 0], table[:, 1:], metric=metric)  # type: ignore[arg-type]
        pair = krippendorff_alpha(table, metric=metric)  # type: ignore[arg-type]
        assert (mine.value, mine.error) == pytest.approx((pair.value, pair.error), abs=1e-12)


def test_one_against_several_is_the_mean_over_the_draws_of_one_of_them() -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(1, 6, 400)
    own, others = (np.clip(truth[:, None] + draw.integers(-1, 2, (400, k)), 1, 5).astype(float) for k in (1, 3))
    several = gwet_ac_against(own[:, 0], others, weights="quadratic", categories=range(1, 6)).value
    drawn = []
    for _ in range(200):
        one = others[np.arange(400), draw.integers(0, 3, 400)]
        pair = np.stack([own[:, 0], one], 1)
        drawn.append(gwet_ac(pair, weights="quadratic", categories=range(1, 6)).value or 0)
    assert several == pytest.approx(np.mean(drawn), abs=3 * np.std(drawn) / np.sqrt(200) + 1e-4)


ratings = some.integers(2, 9).flatmap(
    lambda items: some.lists(
        some.lists(some.sampled_from([np.nan, 1.0, 2.0, 3.0, 4.0]), min_size=3, max_size=3),
        min_size=items,
        max_size=items,
    )
)


def numbers(found: Agreement) -> list[float]:
    return [np.nan if x is None else x for x in (found.value, found.error, *(found.interval or (None, None)))]


@settings(max_examples=60, deadline=None)
@given(ratings, some.randoms(use_true_random=False))
def test_who_rates_and_in_which_order_does_not_matter(rows: list[list[float]], random: Any) -> None:
    table = np.array(rows)
    mixed = np.array([random.sample(row, len(row)) for row in random.sample(rows, len(rows))])
    for asked in (
        lambda t: gwet_ac(t, categories=range(1, 5)),
        lambda t: gwet_ac(t, weights="ordinal", categories=range(1, 5)),
        lambda t: krippendorff_alpha(t),
        lambda t: krippendorff_alpha(t, metric="ordinal"),
        lambda t: krippendorff_alpha(t, metric="ratio"),
    ):
        np.testing.assert_allclose(numbers(asked(table)), numbers(asked(mixed)), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(ratings, some.permutations([1.0, 2.0, 3.0, 4.0]))
def test_names_of_categories_do_not_matter_where_they_are_only_names(rows: list[list[float]], names: Any) -> None:
    table = np.array(rows)
    renamed = np.vectorize(lambda x: x if np.isnan(x) else names[int(x) - 1], otypes=[float])(table)
    for asked in (lambda t: gwet_ac(t, categories=range(1, 5)), krippendorff_alpha):
        np.testing.assert_allclose(numbers(asked(table)), numbers(asked(renamed)), atol=1e-9)
    turned = 5 - table  # the other end first: what is ordered stays ordered
    for asked in (
        lambda t: gwet_ac(t, weights="quadratic", categories=range(1, 5)),
        lambda t: gwet_ac(t, weights="linear", categories=range(1, 5)),
        lambda t: krippendorff_alpha(t, metric="ordinal"),
        lambda t: krippendorff_alpha(t, metric="interval"),
    ):
        np.testing.assert_allclose(numbers(asked(table)), numbers(asked(turned)), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(ratings)
def test_nothing_is_beyond_perfect_and_nothing_breaks(rows: list[list[float]]) -> None:
    table = np.array(rows)
    for found in (
        gwet_ac(table),
        gwet_ac(table, weights="quadratic", categories=range(1, 5)),
        krippendorff_alpha(table, metric="ordinal"),
        gwet_ac_against(table[:, 0], table[:, 1:], categories=range(1, 5)),
        alpha_against(table[:, 0], table[:, 1:], metric="interval", seed=0, resamples=20),
    ):
        assert found.value is None or found.value <= 1 + 1e-12
        assert found.interval is None or found.interval[0] <= found.interval[1] <= 1 + 1e-12
        assert (found.value is None) == (found.observed is None) == (found.expected is None)


def test_nothing_to_compare_is_none() -> None:
    alone = np.array([[1, _, _], [_, 2, _], [_, _, _]])
    for table in (alone, np.zeros((0, 3)), np.full((4, 2), _), np.zeros((0, 0))):
        assert gwet_ac(table, categories=(1, 2)).value is None
        assert gwet_ac(table).value is None
        assert krippendorff_alpha(table).value is None
        assert gwet_ac(table).n == 0
    assert gwet_ac_against([1, _], [[_], [2]], categories=(1, 2)).value is None
    assert gwet_ac_against([], np.zeros((0, 0)), categories=(1, 2)).value is None
    assert alpha_against([1.0], np.zeros((1, 0))).value is None


def test_one_category_is_perfect_where_the_scale_has_more_and_unknown_where_not() -> None:
    same = np.full((6, 3), 2.0)
    ac1 = gwet_ac(same, categories=(1, 2, 3))
    assert (ac1.value, ac1.error, ac1.interval) == (1.0, 0.0, None)
    assert gwet_ac(same).value is None
    assert krippendorff_alpha(same).value is None


def test_perfect_agreement_is_one_without_an_interval() -> None:
    table = np.repeat(np.array([1.0, 2, 3, 1])[:, None], 3, axis=1)
    for found in (gwet_ac(table), gwet_ac(table, weights="quadratic"), krippendorff_alpha(table, metric="ordinal")):
        assert found.value == pytest.approx(1)
        assert found.interval is None
    assert gwet_ac([[1.0, 2.0]]).error is None


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda: gwet_ac([1.0, 2.0]), "items, annotators"),
        (lambda: gwet_ac([[1.0, 9.0]], categories=(1, 2)), "rating 9"),
        (lambda: gwet_ac([[1.0, 1.0]], categories=(1,)), "two or more"),
        (lambda: gwet_ac([[1.0, 1.0]], categories=(2, 1)), "ascending"),
        (lambda: gwet_ac([[1.0, 2.0]], weights="cubic"), "cubic"),  # type: ignore[arg-type]
        (lambda: krippendorff_alpha([[1.0, 2.0]], metric="cubic"), "cubic"),  # type: ignore[arg-type]
        (lambda: krippendorff_alpha([[-1.0, 2.0]], metric="ratio"), "≥ 0"),
        (lambda: gwet_ac_against([1.0], [[1.0], [2.0]]), "items"),
    ],
)
def test_what_no_data_can_cause_is_refused(asked: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        asked()
