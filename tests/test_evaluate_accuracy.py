"""Reward accuracy by degree, the safety threshold, bits per byte, diversity."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from ayni.evaluate.diversity import distinct, self_bleu
from ayni.evaluate.perplexity import (
    bits_over,
    bits_per_byte,
    by_length,
    perplexity,
    unigram_bits_per_byte,
    unigram_logprob,
)
from ayni.evaluate.reward_accuracy import accuracy_gains, accuracy_parts, reward_accuracy, threshold_report
from ayni.records import Comparison, Message, Prompt, Safety


def test_accuracy_by_rating_in_order_of_strength() -> None:
    ratings = ["slightly_better", "significantly_better", None, "significantly_better", "slightly_better"]
    report = reward_accuracy([2, 3, 0, 1, 1], [1, 0, 1, 0, 1], ratings)
    assert report.accuracy.value == 0.6  # the tie in the last pair is wrong
    assert list(report.by_rating) == ["significantly_better", "slightly_better"]
    assert report.by_rating["slightly_better"].value == 0.5
    summary = json.loads(json.dumps(report.summary()))
    assert list(summary) == ["n", "clusters", "accuracy", "interval", "by_rating"]
    assert summary["by_rating"]["significantly_better"]["n"] == 2
    rows = {row.metric: row for row in report.results(axis="helpfulness", model="rm", split="test")}
    assert rows["accuracy:significantly_better"].value == 1.0
    assert sum(row.n or 0 for name, row in rows.items() if name.startswith("calibration:")) == 5
    assert rows["calibration_error"].value == report.calibration_error


def test_accuracy_of_nothing_and_of_odd_lengths() -> None:
    nothing = {"n": 0, "clusters": 0, "accuracy": None, "interval": None, "by_rating": {}}
    assert reward_accuracy([], []).summary() == nothing
    with pytest.raises(ValueError, match="2 chosen scores but 1"):
        reward_accuracy([1, 2], [1])
    with pytest.raises(ValueError, match="ratings"):
        reward_accuracy([1], [1], ["better", "better"])


def test_pairs_of_one_prompt_are_one_witness() -> None:
    """Four annotators of each of 40 prompts agree with each other: they say no more than one of them."""
    right = np.random.default_rng(0).random(40) < 0.7
    scores, ratings = np.repeat(right * 2.0 - 1, 4), ["better"] * 160
    alone = reward_accuracy(right * 2.0 - 1, np.zeros(40), ["better"] * 40, range(40))
    four = reward_accuracy(scores, np.zeros(160), ratings, [i // 4 for i in range(160)])
    loose = reward_accuracy(scores, np.zeros(160), ratings)
    bins = [(four.bins[0].observed, alone.bins[0].observed)]
    for ours, theirs in [(four.accuracy, alone.accuracy), (four.by_rating["better"], alone.by_rating["better"]), *bins]:
        assert (ours.value, ours.n, ours.clusters) == (theirs.value, 160, 40)
        assert ours.low == pytest.approx(theirs.low, abs=0.02)
        assert ours.high == pytest.approx(theirs.high, abs=0.02)
    assert loose.accuracy.high - loose.accuracy.low < 0.55 * (four.accuracy.high - four.accuracy.low)
    row = four.results(axis="helpfulness", model="rm", split="test")[0]
    assert (row.n, row.clusters, row.method) == (160, 40, "wilson-clustered")


def test_a_gain_is_a_difference_on_the_same_comparisons() -> None:
    now, before = [1.0, 2.0, -1.0, 0.5], [1.0, -2.0, 1.0, -0.5]
    found = accuracy_gains(now, before, ["better", "better", None, "slightly_better"], "ppqr")
    assert list(found) == ["", "better", "slightly_better"]
    assert (found[""].value, found[""].n, found[""].clusters) == (0.25, 4, 3)
    assert (found["better"].value, found["better"].n) == (0.5, 2)
    assert found["slightly_better"].value == 1.0


def test_the_interval_of_a_gain_goes_by_prompts_with_all_their_comparisons() -> None:
    """Twenty comparisons of one prompt are one witness, not twenty."""
    draw = np.random.default_rng(0)
    right = draw.random(30) < 0.7
    one = accuracy_gains(right * 2.0 - 1, [-1.0] * 30, [None] * 30, range(30))[""]
    many = np.repeat(right, 20)
    clustered = accuracy_gains(many * 2.0 - 1, [-1.0] * 600, [None] * 600, [i // 20 for i in range(600)])[""]
    loose = accuracy_gains(many * 2.0 - 1, [-1.0] * 600, [None] * 600, range(600))[""]
    assert one.value == clustered.value == loose.value
    assert clustered.interval == pytest.approx(one.interval, abs=0.06)
    assert loose.high - loose.low < 0.4 * (one.high - one.low)


def test_a_model_that_changes_nothing_has_gained_nothing_for_sure() -> None:
    same = accuracy_gains([1.0] * 50, [1.0] * 50, [None] * 50, range(50))[""]
    assert same.value == 0.0
    assert -0.1 < same.low < -0.01 < 0.01 < same.high < 0.1


def test_threshold_divides_at_sigma() -> None:
    cut = math.log(0.15 / 0.85)
    scores, safe = [cut - 0.1, cut - 3, cut + 0.1, 2, cut - 0.1, 1, 2, 3], [False] * 4 + [True] * 4
    report = threshold_report(scores, safe, "abcdefgh")
    assert (report.recall.value, report.false_alarm.value) == (0.5, 0.25)
    assert (report.precision.value, report.precision.n) == (pytest.approx(2 / 3), 3)
    names = [row.metric for row in report.results(axis="safety", model="rm", split="test")]
    assert names == ["threshold_recall", "threshold_false_alarm", "threshold_precision"]
    half = threshold_report(scores, safe, "abcdefgh", 0.5).results(axis="safety", model="rm", split="test")
    assert [row.metric for row in half] == [f"{name}:0.5" for name in names]
    assert half[0].value == sum(score < 0 and not s for score, s in zip(scores, safe, strict=True)) / 4
    of_two = threshold_report(scores * 5, safe * 5, [i // 2 for i in range(40)])
    assert (of_two.recall.clusters, of_two.precision.clusters) == (10, 10)


def test_bits_per_byte_by_hand() -> None:
    assert bits_per_byte(-math.log(2) * 16, 8) == pytest.approx(2.0)
    assert perplexity(-math.log(50) * 7, 7) == pytest.approx(50.0)
    whole = bits_over(np.array([10.0, 30, 20, 5, 5]) / math.log(2), [10, 20, 15, 5, 5])
    assert whole.value == pytest.approx(bits_per_byte(-70.0, 55))
    assert whole.low <= bits_per_byte(-70.0, 55) <= whole.high
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


def compared(i: int, *, source: str = "", turns: int = 1, length: int = 10) -> Comparison:
    history = [m for n in range(turns - 1) for m in (Message("user", f"{i}"), Message("assistant", "Yes."))]
    prompt = Prompt(str(i), (*history, Message("user", f"{i} {'?' * turns}")), "helpfulness")
    return Comparison(prompt, "x" * length, "y" * length, source=source)


def test_accuracy_by_source_turns_and_length_against_counting() -> None:
    draw = np.random.default_rng(0)
    given = [
        compared(
            i,
            source=("hh", "shp", "rare", "")[int(draw.choice(4, p=[0.5, 0.3, 0.05, 0.15]))],
            turns=int(draw.integers(1, 4)),
            length=int(draw.integers(5, 500)),
        )
        for i in range(400)
    ]
    lead = draw.normal(0.3, 1, 400)
    found = accuracy_parts(lead, given)
    ranked = sorted(len(c.chosen) for c in given)
    for name, part in found.items():
        kind, label = name.removeprefix("by_").split(":")
        if kind == "length":
            bounds = [0, ranked[133], ranked[266], ranked[-1]]
            at = ("short", "middle", "long").index(label)
            of = [i for i, c in enumerate(given) if bounds[at] < len(c.chosen) <= bounds[at + 1]]
        elif kind == "turns":
            of = [i for i, c in enumerate(given) if len(c.prompt.dialog) == 2 * int(label) - 1]
        else:
            of = [i for i, c in enumerate(given) if (c.source or "unnamed") == label]
        assert part.n == len(of)
        assert part.value == pytest.approx(np.mean([lead[i] > 0 for i in of]))
        assert part.interval is not None
        assert part.interval[0] < part.value < part.interval[1]
    sources = {"by_source:hh", "by_source:shp", "by_source:unnamed"}  # of the rare one there are too few
    assert found.keys() == {
        *sources, *(f"by_turns:{n}" for n in (1, 2, 3)), *(f"by_length:{n}" for n in ("short", "middle", "long"))
    }  # fmt: skip


def test_one_source_is_no_part_and_nothing_has_none() -> None:
    assert accuracy_parts(np.ones(50), [compared(i, source="hh") for i in range(50)]) == {}
    assert accuracy_parts([], []) == {}


def test_accuracy_by_safety_label_where_all_have_one() -> None:
    labels: list[Safety] = ["chosen_safe", "both_safe", "both_unsafe"]
    given = [replace(compared(i), safety=labels[i % 3]) for i in range(120)]
    lead = np.array([1.0 if i % 3 == 0 or i % 2 else -1.0 for i in range(120)])
    found = accuracy_parts(lead, given)
    assert {name: (part.value, part.n) for name, part in found.items()} == {
        "by_safety:chosen_safe": (1.0, 40),
        "by_safety:both_safe": (0.5, 40),
        "by_safety:both_unsafe": (0.5, 40),
    }
    assert accuracy_parts(lead, [compared(i) if i == 7 else c for i, c in enumerate(given)]) == {}


def test_bits_by_length_of_the_text() -> None:
    sizes = np.array([70] * 40 + [300] * 40 + [5000] * 3)
    bits = sizes * np.array([1.0] * 40 + [0.5] * 40 + [2.0] * 3)
    rows = by_length("bits_per_byte", bits, sizes, {"model": "m"})
    assert [(row.metric, row.n) for row in rows] == [
        *[("bits_per_byte", 83), ("bits_per_byte:64-127", 40), ("bits_per_byte:256-511", 40)]  # of the longest: three
    ]
    assert [row.value for row in rows[1:]] == [1.0, 0.5]
    assert rows[0].value == pytest.approx(bits.sum() / sizes.sum())
    assert [row.metric for row in by_length("bits_per_byte", bits[:40], sizes[:40], {})] == ["bits_per_byte"]


def test_pairs_of_one_conversation_are_one_witness_in_a_part() -> None:
    right = np.random.default_rng(0).random(40) < 0.7
    one = [compared(i, turns=1 + i % 2) for i in range(80)]
    four = [c for c in one for _ in range(4)]
    alone = accuracy_parts(np.tile(right, 2) * 2.0 - 1, one)["by_turns:1"]
    often = accuracy_parts(np.repeat(np.tile(right, 2), 4) * 2.0 - 1, four)["by_turns:1"]
    assert often.n == 4 * alone.n
    assert often.clusters == alone.clusters == 40
    assert often.interval == pytest.approx(alone.interval, abs=0.02)
