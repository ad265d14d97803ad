"""Reward accuracy by degree, the safety threshold, bits per byte, diversity."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ayni.evaluate.diversity import distinct, self_bleu
from ayni.evaluate.perplexity import (
    bits_per_byte,
    bits_per_byte_estimate,
    perplexity,
    unigram_bits_per_byte,
    unigram_logprob,
)
from ayni.evaluate.reward_accuracy import accuracy_gains, reward_accuracy, threshold_report


def test_accuracy_by_rating_in_order_of_strength() -> None:
    ratings = ["slightly_better", "significantly_better", None, "significantly_better", "slightly_better"]
    report = reward_accuracy([2, 3, 0, 1, 1], [1, 0, 1, 0, 1], ratings)
    assert report.accuracy.value == 0.6  # the tie in the last pair is wrong
    assert list(report.by_rating) == ["significantly_better", "slightly_better"]
    assert report.by_rating["slightly_better"].value == 0.5
    summary = json.loads(json.dumps(report.summary()))
    assert list(summary) == ["n", "accuracy", "interval", "by_rating"]
    assert summary["by_rating"]["significantly_better"]["n"] == 2
    rows = {row.metric: row for row in report.results(axis="helpfulness", model="rm", split="test")}
    assert rows["accuracy:significantly_better"].value == 1.0
    assert sum(row.n or 0 for name, row in rows.items() if name.startswith("calibration:")) == 5
    assert rows["calibration_error"].value == report.calibration_error


def test_accuracy_of_nothing_and_of_odd_lengths() -> None:
    assert reward_accuracy([], []).summary() == {"n": 0, "accuracy": None, "interval": None, "by_rating": {}}
    with pytest.raises(ValueError, match="2 chosen scores but 1"):
        reward_accuracy([1, 2], [1])
    with pytest.raises(ValueError, match="ratings"):
        reward_accuracy([1], [1], ["better", "better"])


def test_a_gain_is_a_difference_on_the_same_comparisons() -> None:
    now, before = [1.0, 2.0, -1.0, 0.5], [1.0, -2.0, 1.0, -0.5]
    found = accuracy_gains(now, before, ["better", "better", None, "slightly_better"], "ppqr", seed=0)
    assert list(found) == ["", "better", "slightly_better"]
    assert (found[""].value, found[""].n) == (0.25, 4)
    assert (found["better"].value, found["better"].n) == (0.5, 2)
    assert found["slightly_better"].value == 1.0
    assert found[""].interval == accuracy_gains(now, before, [None] * 4, "ppqr", seed=0)[""].interval


def test_the_bootstrap_of_a_gain_draws_prompts_with_all_their_comparisons() -> None:
    """Twenty comparisons of one prompt are one witness, not twenty."""
    draw = np.random.default_rng(0)
    right = draw.random(30) < 0.7
    one = accuracy_gains(right * 2.0 - 1, [-1.0] * 30, [None] * 30, range(30), seed=0)[""]
    many = np.repeat(right, 20)
    clustered = accuracy_gains(many * 2.0 - 1, [-1.0] * 600, [None] * 600, [i // 20 for i in range(600)], seed=0)[""]
    loose = accuracy_gains(many * 2.0 - 1, [-1.0] * 600, [None] * 600, range(600), seed=0)[""]
    assert one.value == clustered.value == loose.value
    assert clustered.interval == pytest.approx(one.interval)
    assert loose.interval is not None
    assert one.interval is not None
    assert loose.interval[1] - loose.interval[0] < 0.4 * (one.interval[1] - one.interval[0])


def test_threshold_divides_at_sigma() -> None:
    cut = math.log(0.15 / 0.85)
    report = threshold_report([cut - 0.1, cut - 3, cut + 0.1, 2], [cut - 0.1, 1, 2, 3])
    assert (report.recall.value, report.false_alarm.value) == (0.5, 0.25)
    assert report.precision.value == pytest.approx(2 / 3)
    names = [row.metric for row in report.results(axis="safety", model="rm", split="test")]
    assert names == ["threshold_recall", "threshold_false_alarm", "threshold_precision"]


def test_bits_per_byte_by_hand() -> None:
    assert bits_per_byte(-math.log(2) * 16, 8) == pytest.approx(2.0)
    assert perplexity(-math.log(50) * 7, 7) == pytest.approx(50.0)
    whole = bits_per_byte_estimate([-10.0, -30.0, -20.0], [10, 20, 15], seed=0)
    assert whole.value == pytest.approx(bits_per_byte(-60.0, 45))
    assert whole.low <= bits_per_byte(-60.0, 45) <= whole.high
    with pytest.raises(ValueError, match="no bytes"):
        bits_per_byte(-1.0, 0)
    with pytest.raises(ValueError, match="no tokens"):
        perplexity(-1.0, 0)


def test_unigram_adds_one_so_that_new_tokens_are_possible() -> None:
    train, heldout = np.array([3, 0, 0, 1]), np.array([1, 1, 0, 0])
    expected = math.log(4 / 8) + math.log(1 / 8)
    assert unigram_logprob(train, heldout) == pytest.approx(expected)
    assert unigram_bits_per_byte(train, heldout, 4) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="shape"):
        unigram_logprob([1, 2], [1, 2, 3])


def test_diversity() -> None:
    assert distinct(["a b a b", "a b"]) == 0.5  # ab, ba, ab, ab
    assert distinct(["a", ""]) is None
    same, different = ["the old mill stood by the river"] * 3, ["red fox runs home", "we bake a loaf", "it is noon now"]
    assert self_bleu(same) == pytest.approx(1.0)
    assert self_bleu(different) < 0.1
    with pytest.raises(ValueError, match="two texts"):
        self_bleu(["alone"])
