"""Win rates at equal length: the fit against its equations, what it takes out, and how often its interval holds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from ayni.evaluate.win_rate import compare, compare_scores, length_controlled, win_rate_results
from ayni.maths.clustered import clustered_share, length_controlled_share
from ayni.records import Message, Prompt


def sigmoid(x: float | np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x)))


def drawn(
    seed: int, theta: float, phi: float, n: int = 400, clusters: int = 400, spread: float = 0.0
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Scores, lengths and clusters of verdicts whose logit is θ + φ·tanh(δ / s) plus what each cluster has."""
    draw = np.random.default_rng(seed)
    longer, owners = draw.normal(20, 30, n), draw.integers(0, clusters, n)
    logit = theta + phi * np.tanh(longer / longer.std()) + spread * draw.normal(0, 1, clusters)[owners]
    return (draw.random(n) < sigmoid(logit)).astype(float), longer, owners.tolist()


def test_the_fit_is_the_penalised_maximum() -> None:
    scores, longer, owners = drawn(0, 0.4, 1.5)
    scores[::9] = 0.5  # ties are half a win
    x = np.tanh(longer / longer.std())

    def loss(b: np.ndarray) -> float:
        p = sigmoid(b[0] + b[1] * x)
        return float(-(scores * np.log(p) + (1 - scores) * np.log(1 - p)).sum() + b[1] ** 2 / 2)

    found = length_controlled_share(scores, longer, owners)
    assert found.value == pytest.approx(float(sigmoid(minimize(loss, np.zeros(2), tol=1e-12).x[0])), abs=1e-6)
    assert (found.n, found.method) == (400, "logistic-jackknife")


def test_a_judge_of_length_alone_decides_nothing_at_equal_length() -> None:
    """Model a is longer in most answers, and a judge who sees roughly how long answers are lets it win most."""
    draw = np.random.default_rng(0)
    longer = draw.normal(20, 30, 400)
    scores = (longer + draw.normal(0, 10, 400) > 0).astype(float)
    plain, controlled = (clustered_share(scores, range(400)), length_controlled_share(scores, longer, range(400)))
    assert plain.low > 0.6
    assert controlled.low < 0.5 < controlled.high


def test_lengths_that_never_differ_change_nothing() -> None:
    scores = [1.0] * 60 + [0.0] * 40
    for longer in ([0] * 100, [7] * 100):
        found = length_controlled_share(scores, longer, range(100))
        assert found.value == pytest.approx(0.6)
        assert found.interval == pytest.approx(clustered_share(scores, range(100)).interval, abs=0.015)


@pytest.mark.parametrize("scores", [[1.0] * 50, [0.0] * 50, [0.5] * 50])
def test_where_all_scores_are_alike_it_is_the_plain_share(scores: list[float]) -> None:
    assert length_controlled_share(scores, range(50), range(50)) == clustered_share(scores, range(50))


def test_a_single_loss_and_lengths_that_tell_it_apart_stay_finite() -> None:
    scores, longer = [0.0, *[1.0] * 999], [-50.0, *range(999)]
    found = length_controlled_share(scores, longer, range(1000))
    assert found.value is not None
    assert 0 < found.low < 0.9 < found.value < found.high <= 1


def test_little_has_no_interval_and_nothing_no_value() -> None:
    scores, longer, owners = drawn(1, 0.2, 1.0, clusters=4)
    found = length_controlled_share(scores, longer, owners)
    assert found.value is not None
    assert (found.interval, found.clusters) == (None, 4)
    assert length_controlled_share([], [], []).value is None
    with pytest.raises(ValueError, match="2 scores but 1 lengths"):
        length_controlled_share([1, 0], [3], [1, 2])


@pytest.mark.parametrize(("clusters", "spread"), [(10_000, 0.0), (30, 0.6)])
def test_the_interval_holds_the_truth_as_often_as_it_says(clusters: int, spread: float) -> None:
    """Simulated: at equal length 0.62 of all prompts there could be are won."""
    theta, nodes = 0.5, np.random.default_rng(9).normal(0, 1, 200_000)
    # a cluster's own part is no part of the fit: what is estimated is the share over all clusters, on the fit's scale
    truth = float(sigmoid(theta + spread * nodes).mean())
    held = [
        found.low <= truth <= found.high
        for seed in range(400)
        if (found := length_controlled_share(*drawn(seed, theta, 1.2, 300, clusters, spread))).interval is not None
    ]
    assert len(held) == 400
    assert 0.92 <= np.mean(held) <= 0.985


def test_rows_stand_beside_the_plain_ones() -> None:
    asked = [Prompt(f"p{i}", (Message("user", "?"),)) for i in range(40)]
    ours, theirs = ["long answer"] * 30 + ["no"] * 10, ["short"] * 40
    outcomes = compare(asked, ours, theirs, lambda prompt, a, b: 0.5 if abs(len(a) - len(b)) < 2 else len(a) > len(b))
    assert {o.longer for o in outcomes} == {6, -3}
    rows = {r.metric: r for r in win_rate_results(outcomes, model="a", against="b", judge="j", split="test")}
    names = ["win_rate", "win_rate_half", "win_rate_length_controlled", "win_rate_half_length_controlled"]
    assert list(rows)[:4] == names
    assert (rows[names[0]].value, rows[names[2]].wins, rows[names[2]].losses) == (0.75, 30, 10)
    controlled = rows[names[2]]
    assert controlled.value is not None
    assert controlled.value < 0.75
    scored = compare_scores(asked, [1.0] * 40, [0.0] * 40)
    assert length_controlled(scored) is None  # nobody said how long the answers are
    assert length_controlled(compare_scores(asked, [1.0] * 40, [0.0] * 40, longer=[1] * 40)) == clustered_share(
        [1.0] * 40, [f"p{i}" for i in range(40)]
    )
