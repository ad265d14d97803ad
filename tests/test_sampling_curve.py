"""The curves of Figures 7 and 8 by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ayni.evaluate.sampling_curve import doublings, sampling_curve, temperature_curve


@pytest.mark.parametrize(("n", "points"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_the_points_double_up_to_the_last(n: int, points: list[int]) -> None:
    assert doublings(n) == points


def test_the_curve_by_hand() -> None:
    rows = {r.metric: r for r in sampling_curve([[1, 3, 2, 8], [5, 1, 1, 1, 99]], ["a", "b"], model="m")}
    assert {name: row.value for name, row in rows.items()} == {
        **{"best:1": 3, "best:2": 4, "best:4": 6.5, "best_added:2": 1, "best_added:4": 2.5},
        **{"median:1": 3, "median:2": 2.5, "median:4": 1.75, "median_added:2": -0.5, "median_added:4": -0.75},
    }
    assert {row.model for row in rows.values()} == {"m"}
    assert rows["best:4"].interval is None  # of two clusters


def test_what_a_doubling_adds_is_measured_prompt_by_prompt() -> None:
    """Prompts that differ by far do not hide what every one of them gains."""
    draw = np.random.default_rng(0)
    rewards = draw.normal(0, 0.1, (60, 2)) + draw.normal(0, 10, (60, 1))
    rows = {row.metric: row for row in sampling_curve(rewards.tolist(), [i // 2 for i in range(60)])}
    whole, gain = rows["best:2"].interval, rows["best_added:2"].interval
    assert whole is not None
    assert gain is not None
    assert gain[0] > 0
    assert gain[1] - gain[0] < (whole[1] - whole[0]) / 10
    assert rows["best:2"].clusters == 30


def test_temperatures_are_held_against_the_first_given() -> None:
    rows = temperature_curve({0.7: [1.0, 2.0], 1.3: [4.0, 3.0]}, 8, ["a", "b"], judge="reward")
    assert [(row.metric, row.value) for row in rows] == [
        *[("best_of_8:0.7", 1.5), ("best_of_8:1.3", 3.5), ("temperature_gain:1.3", 2.0)]
    ]
