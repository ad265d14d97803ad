"""Verdicts in both orders, ties, tables and bias."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ayni.evaluate.win_rate import (
    Tally,
    by_axis,
    by_category,
    compare,
    compare_scores,
    half_rate,
    position_bias,
    rate,
    tally,
    win_rate_results,
)
from ayni.records import Message, Prompt, Task


def prompts(n: int, task: Task = "helpfulness", category: str = "sums") -> list[Prompt]:
    return [Prompt(f"{category}-{i}", (Message("user", f"ask {i}"),), task, category) for i in range(n)]


def longer(prompt: Prompt, first: str, second: str) -> float:
    return 0.5 if len(first) == len(second) else float(len(first) > len(second))


def test_longer_answer_wins_in_both_orders() -> None:
    outcomes = compare(prompts(4), ["aaa", "a", "ab", "same"], ["b", "bbb", "ba", "same"], longer)
    assert [o.score for o in outcomes] == [1.0, 0.0, 0.5, 0.5]
    assert tally(outcomes) == Tally(1, 2, 1)
    bias = position_bias(outcomes)
    assert bias is not None
    assert bias.consistency.value == 1.0
    assert bias.first_place.value == 0.5


def test_a_judge_that_likes_the_first_place_decides_nothing() -> None:
    outcomes = compare(prompts(10), ["a"] * 10, ["b"] * 10, lambda prompt, first, second: 1)
    assert tally(outcomes) == Tally(0, 10, 0)
    assert rate(outcomes).value is None
    assert half_rate(outcomes).value == 0.5
    bias = position_bias(outcomes)
    assert bias is not None
    assert (bias.consistency.value, bias.first_place.value) == (0.0, 1.0)


def test_half_a_verdict_is_a_tie() -> None:
    def judge(prompt: Prompt, first: str, second: str) -> float:
        return 1.0 if first == "a" else 0.5

    assert [o.score for o in compare(prompts(1), ["a"], ["b"], judge)] == [0.5]


def test_equal_answers_are_not_asked_about() -> None:
    def never(prompt: Prompt, first: str, second: str) -> float:
        raise AssertionError("asked")

    assert compare(prompts(1), ["x"], ["x"], never)[0].score == 0.5


def test_scores_with_a_tie_width_have_no_order() -> None:
    outcomes = compare_scores(prompts(3), [1.0, 0.0, 0.05], [0.0, 1.0, 0.0], tie=0.1, axis="style")
    assert [o.score for o in outcomes] == [1.0, 0.0, 0.5]
    assert {o.axis for o in outcomes} == {"style"}
    assert position_bias(outcomes) is None


def test_odd_verdicts_and_odd_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the judge said 0\.7"):
        compare(prompts(1), ["a"], ["b"], lambda *_: 0.7)
    with pytest.raises(ValueError, match="shorter"):
        compare(prompts(2), ["a", "b"], ["b"], longer)


def test_tables_and_rows() -> None:
    asked = prompts(3) + prompts(2, category="stories") + prompts(2, "safety", "trap")
    a, b = ["aa", "aa", "a", "aa", "a", "aa", "aa"], ["b", "b", "bb", "b", "bb", "b", "b"]
    outcomes = compare(asked, a, b, longer)
    tallies = {axis: tally(mine) for axis, mine in by_axis(outcomes).items()}
    assert tallies == {"helpfulness": Tally(3, 0, 2), "safety": Tally(2, 0, 0)}
    assert tally(by_category(outcomes)["stories"]) == Tally(1, 0, 1)
    rows = win_rate_results(outcomes, model="ppo", against="sft", judge="gold", split="test", seed=1)
    named = {(row.metric, row.axis): row for row in rows}
    assert named["win_rate", "helpfulness"].value == 0.6
    assert named["win_rate", "helpfulness"].n == 5
    assert named["win_rate_half", "safety"].value == 1.0
    assert named["win_rate:stories", "helpfulness"].wins == 1
    assert ("win_rate:trap", "safety") not in named
    assert named["judge_consistency", "safety"].value == 1.0
    assert all(row.model == "ppo" and row.against == "sft" for row in rows)


def test_prompts_of_one_topic_are_one_witness() -> None:
    """280 prompts of ten topics, of which each is won or lost as a whole, are ten contests."""
    topics = [Prompt(f"p{i}", (Message("user", "?"),), "safety", cluster=f"topic-{i // 28}") for i in range(280)]
    scores = [float(i // 28 < 8) for i in range(280)]
    outcomes = compare_scores(topics, scores, [0.5] * 280)
    rows = {row.metric: row for row in win_rate_results(outcomes, model="a", against="b", judge="j", split="test")}
    row = rows["win_rate"]
    assert (row.value, row.n, row.clusters, row.method) == (0.8, 280, 10, "wilson-clustered")
    alone = rate(compare_scores(prompts(10), scores[::28], [0.5] * 10))
    assert row.interval is not None
    assert row.interval[0] < alone.low
    assert row.interval[1] > alone.high - 0.01
    assert rows["win_rate_half"].interval == pytest.approx(row.interval)


def test_four_topics_give_no_interval() -> None:
    topics = [Prompt(f"p{i}", (Message("user", "?"),), cluster=str(i % 4)) for i in range(40)]
    outcomes = compare_scores(topics, [1.0] * 40, [0.0, 2.0] * 20)
    rows = win_rate_results(outcomes, model="a", against="b", judge="j", split="test")
    assert [(row.value, row.interval, row.level, row.n, row.clusters) for row in rows] == [(0.5, None, None, 40, 4)] * 2


def test_the_two_verdicts_on_a_prompt_count_once() -> None:
    outcomes = compare(prompts(60), ["a"] * 60, ["b"] * 60, lambda prompt, first, second: 1)
    bias = position_bias(outcomes)
    assert bias is not None
    assert (bias.first_place.n, bias.first_place.clusters) == (120, 60)
    assert bias.first_place.low < 0.95  # of 60 prompts, not of 120


def test_by_turns_and_by_the_length_of_what_was_asked() -> None:
    """Thirty prompts of one turn that are won, thirty longer ones of two that are lost, a few of three that tell
    nothing."""

    def asked(turns: int) -> tuple[Message, ...]:
        return (Message("user", "ask"), Message("assistant", "yes")) * (turns - 1) + (Message("user", "and then?"),)

    given = [Prompt(f"{turns}-{i}", asked(turns)) for turns, n in ((1, 30), (2, 30), (3, 6)) for i in range(n)]
    outcomes = compare_scores(given, [1.0] * 30 + [0.0] * 36, [0.5] * 66)
    rows = {row.metric: row for row in win_rate_results(outcomes, model="a", against="b", judge="rm", split="test")}
    assert {metric: row.value for metric, row in rows.items() if "_by_" in metric} == {
        "win_rate_by_turns:1": 1.0,
        "win_rate_by_turns:2": 0.0,
        "win_rate_by_length:short": 1.0,
        "win_rate_by_length:middle": 0.0,
    }
    assert rows["win_rate_by_turns:2"].n == 30
    unsaid = [replace(outcome, turns=None) for outcome in outcomes]  # by an earlier version
    assert not any(
        "_by_" in row.metric for row in win_rate_results(unsaid, model="a", against="b", judge="rm", split="test")
    )
