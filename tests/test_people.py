"""People judge two finished models blind: from answers to a batch, from what they said to win rates and agreement."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_stages import Small, prepare
from test_cli import call
from test_collect import judging

from ayni.errors import AyniError, BadInput
from ayni.evaluate.agreement import ac2, agreement_results, people_results
from ayni.evaluate.people import Contest, contests_in, items_of, outcomes_of
from ayni.evaluate.results import Result, read_results
from ayni.evaluate.win_rate import Outcome
from ayni.feedback.entries import Entry
from ayni.feedback.store import Store, open_store
from ayni.files import write_jsonl
from ayni.formats.reading import read_prompts_of
from ayni.maths.agreement import gwet_ac
from ayni.records import Comparison, Message, Prompt, Sample, to_dict

SETTINGS = {"max_tokens": 12, "dtype": "fp32", "kl_prompts": 0, "store": "people.db", "page": None}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="module")
def small(directory: Path) -> Small:
    inputs = prepare(directory)["reject"].inputs
    given = {"model": inputs["model"], "against": directory / "base", "prompts": inputs["prompts"]}
    return Small("evaluate", SETTINGS, given)


def rows_of(directory: Path, judge: str) -> dict[tuple[str, str | None], Result]:
    return {(r.metric, r.axis): r for r in read_results(directory / "results.json") if r.judge == judge}


def judge_by(store: Store, *names: str, unsure: bool = False) -> None:
    """Each of them prefers the longer answer; of two equally long ones, a, and not sure of it."""
    for name in names:
        annotator = store.enrol(name).id
        while (item := store.next_item(annotator)) is not None:
            a, b = len(item.answer_a), len(item.answer_b)
            rating: Any = "negligibly_better_or_unsure" if unsure or a == b else "better"
            safe = True if item.task == "safety" else None
            preferred: Any = "a" if a >= b else "b"
            said = {"preferred": preferred, "rating": rating, "safety_a": safe, "safety_b": safe}
            store.record(Entry(f"{name}{item.id}", item.id, annotator, **said))


# What they said


def prompt(name: str = "p", cluster: str = "") -> Prompt:
    return Prompt(name, (Message("user", "Who sings?"),), cluster=cluster)


@pytest.mark.parametrize(
    ("votes", "verdict"),
    [
        ((), None),
        ((1.0,), 1.0),
        ((1.0, 1.0, 0.0), 1.0),
        ((0.0, 0.0, 0.5), 0.0),
        ((1.0, 0.5, 0.0), 0.5),
        ((1.0, 0.0), 0.5),
        ((1.0, 0.5), 0.5),
        ((0.5, 0.5, 1.0), 0.5),
        ((1.0, 1.0, 0.5, 0.0), 0.5),
    ],
)
def test_more_than_half_decide(votes: tuple[float, ...], verdict: float | None) -> None:
    assert Contest(prompt(), "a", "b", votes).verdict == verdict


def test_equal_answers_tie_and_silence_loses_unasked() -> None:
    contests = [Contest(prompt(), *texts) for texts in (("a", "a "), (" ", "a"), ("a", ""), ("", ""))]
    assert [c.verdict for c in contests] == [0.5, 0.0, 1.0, 0.5]
    samples = [[Sample("p", "helpfulness", (1,), (2,), (0.0,), t, "stop", m) for t in "a "] for m in ("x", "y")]
    asked = items_of([prompt("p"), prompt("q")], samples[0], samples[1][::-1], batch="1", overlap=3, seed=0)
    assert asked == []  # silence on one side of each


def test_comparisons_are_taken_from_the_models_side() -> None:
    said = [
        Comparison(prompt("p"), "ours", "theirs", rating="better", model_chosen="new", model_rejected="old"),
        Comparison(prompt("p"), "theirs", "ours", rating="slightly_better", model_chosen="old", model_rejected="new"),
        Comparison(prompt("q"), "x", "y", model_chosen="old", model_rejected="new"),
        Comparison(prompt("p"), "ours", "theirs", rating="negligibly_better_or_unsure", model_chosen="new",
                   model_rejected="old"),
        Comparison(prompt("p"), "ours", "theirs", model_chosen="new", model_rejected="else"),
    ]  # fmt: skip
    contests = contests_in(said, "new", "old")
    assert [(c.prompt.id, c.ours, c.theirs, c.votes) for c in contests] == [
        ("p", "ours", "theirs", (1.0, 0.0, 0.5)),
        ("q", "y", "x", (0.0,)),
    ]
    (tie, loss) = outcomes_of(contests)
    assert tie is not None
    assert loss is not None
    assert (tie.score, tie.longer, loss.score) == (0.5, -2, 0.0)
    with pytest.raises(BadInput, match="no comparison is of new and v9; it has those of else and new, new and old"):
        contests_in([said[4], said[0]], "new", "v9")
    with pytest.raises(BadInput, match="both models are called new"):
        contests_in(said, "new", "new")


# Agreement


def outcomes(scores: list[float | None], clusters: int = 20) -> list[Outcome | None]:
    return [
        None if s is None else Outcome(f"p{i}", f"c{i % clusters}", "helpfulness", "", s) for i, s in enumerate(scores)
    ]


def test_agreement_counts_what_both_have_judged() -> None:
    gold: list[float | None] = [1.0] * 40 + [0.0] * 40 + [0.5] * 20
    people: list[float | None] = [1.0] * 30 + [0.0] * 10 + [0.0] * 40 + [0.5] * 10 + [None] * 10
    rows = agreement_results({"gold": outcomes(gold), "people": outcomes(people)}, model="new", against="old")
    named = {row.metric: row for row in rows}
    assert list(named) == ["agreement:people", "agreement_decided:people", "ac2:people"]
    assert all((row.judge, row.model, row.against, row.axis) == ("gold", "new", "old", "helpfulness") for row in rows)
    assert (named["agreement:people"].value, named["agreement:people"].n) == (80 / 90, 90)
    assert (named["agreement_decided:people"].value, named["agreement_decided:people"].n) == (70 / 80, 80)
    both = np.array([(a, b) for a, b in zip(gold, people, strict=True) if b is not None])
    assert named["ac2:people"].value == gwet_ac(both, weights="quadratic", categories=(0, 0.5, 1)).value
    for row in rows:
        assert row.interval is not None
        assert row.value is not None
        assert row.interval[0] < row.value < row.interval[1] <= 1
        assert row.clusters == 20


def test_perfect_agreement_and_few_clusters_have_no_interval_of_ac2() -> None:
    same = np.array([(1.0, 1.0)] * 30 + [(0.0, 0.0)] * 30)
    assert (ac2(same, [str(i) for i in range(60)]).value, ac2(same, [str(i) for i in range(60)]).interval) == (1, None)
    few = np.array([(1.0, 0.0), (1.0, 1.0), (0.0, 0.0), (0.5, 0.5)] * 5)
    assert ac2(few, [str(i % 4) for i in range(20)]).interval is None
    assert ac2(np.zeros((0, 2)), []).value is None


def test_people_among_themselves() -> None:
    contests = [Contest(prompt(f"p{i}"), "a", "b", (1.0, 1.0, 0.0) if i % 2 else (1.0, 1.0, 1.0)) for i in range(30)]
    contests += [Contest(prompt("q"), "a", "b", (0.5,))]  # one alone agrees with nobody
    share, coefficient = people_results(contests, model="new", against="old")
    assert (share.metric, share.judge, share.n) == ("agreement:people", "people", 30)
    assert share.value == pytest.approx((1 + 1 / 3) / 2)
    ratings = np.array([c.votes for c in contests[:30]])
    assert coefficient.value == gwet_ac(ratings, weights="quadratic", categories=(0, 0.5, 1)).value
    assert coefficient.interval is not None
    assert people_results(contests[30:]) == []


# The stage


def test_it_waits_for_people_and_says_how_far_judges_agree(small: Small, directory: Path, tmp_path: Path) -> None:
    people = judging(tmp_path / "people.db", lambda store: judge_by(store, "Ana", "Ben", "Rosa"))
    rewards = {**small.inputs, "judge": [directory / "helpful", directory / "safe"]}
    Small("evaluate", SETTINGS, rewards).execute(tmp_path / "e", overlap=3, guidelines="Be kind.")
    people.join()
    said = rows_of(tmp_path / "e", "people")
    rate, half = said["win_rate", "helpfulness"], said["win_rate_half", "helpfulness"]
    assert (rate.model, rate.against, rate.n) == ("policy", "base", 8)
    assert half.n == rate.n
    assert ("win_rate_length_controlled", "safety") in said
    assert said["agreement:people", "helpfulness"].value == 1  # they judge alike
    judged = [json.loads(line) for line in (tmp_path / "e" / "outcomes.jsonl").read_text().splitlines()]
    by_people = [line for line in judged if line["judge"] == "people"]
    assert {line["judge"] for line in judged} == {"helpful", "safe", "people"}
    assert all(line["score"] == (0.5 if line["longer"] == 0 else float(line["longer"] > 0)) for line in by_people)
    assert rate.wins == sum(line["score"] == 1 and line["axis"] == "helpfulness" for line in by_people)
    of_helpful = rows_of(tmp_path / "e", "helpful")
    assert {m for m, _ in of_helpful} >= {"score", "win_rate", "agreement:safe", "agreement:people", "ac2:people"}
    with open_store(str(tmp_path / "people.db")) as store:
        (batch,) = store.batches()
        assert (batch.id, batch.guidelines, batch.closed_at is not None) == ("evaluate", "Be kind.", True)
        assert {(item.model_a, item.model_b, item.overlap) for item in store.items("evaluate")} == {
            ("policy", "base", 3)
        }


def test_without_another_judge_gold_is_not_asked(small: Small, tmp_path: Path) -> None:
    """These prompts are of no village: the gold scores would refuse them."""
    people = judging(tmp_path / "people.db", lambda store: judge_by(store, "Ana", unsure=True))
    small.execute(tmp_path / "e", batch="final")
    people.join()
    rows = read_results(tmp_path / "e" / "results.json")
    assert {row.judge for row in rows if row.judge} == {"people"}
    (rate,) = [row for row in rows if (row.metric, row.axis) == ("win_rate", "safety")]
    assert rate.value is None or rate.ties == 0  # silence is decided unasked
    assert (rate.wins or 0) + (rate.ties or 0) + (rate.losses or 0) == 4


def test_a_kill_while_people_judge_goes_on_with_the_same_answers(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any, **named: Any) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr("ayni.evaluate.asking.ask_people", killed)
    with pytest.raises(RuntimeError, match="killed"):
        small.execute(tmp_path / "e")
    monkeypatch.undo()
    asked = (tmp_path / "e" / "asked-model.jsonl").read_bytes()
    with open_store(str(tmp_path / "people.db")) as store:
        judge_by(store, "Ana")
    monkeypatch.setattr("ayni.stages.evaluate.rollout", killed)  # nothing is drawn again
    small.execute(tmp_path / "e")
    assert (tmp_path / "e" / "asked-model.jsonl").read_bytes() == asked
    assert rows_of(tmp_path / "e", "people")


def test_another_batch_of_that_name_costs_no_answers(small: Small, tmp_path: Path) -> None:
    people = judging(tmp_path / "people.db", lambda store: judge_by(store, "Ana"))
    small.execute(tmp_path / "e")
    people.join()
    with pytest.raises(AyniError, match="the store holds another batch evaluate"):
        small.execute(tmp_path / "other", temperature=0.5)
    assert (tmp_path / "other" / "asked-model.jsonl").exists()


def test_what_people_said_elsewhere_needs_no_answers_drawn(
    small: Small, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By way of a store, `ayni export` and a file: the same pairs, the same verdicts."""
    people = judging(tmp_path / "people.db", lambda store: judge_by(store, "Ana", "Ben"))
    small.execute(tmp_path / "e", overlap=2)
    people.join()
    file = tmp_path / "people.jsonl"
    assert call(capsys, "export", tmp_path / "people.db", file, "--format", "ayni", "--batch", "evaluate")[0] == 0

    def never(*args: Any, **named: Any) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr("ayni.stages.evaluate.rollout", never)
    argv = ["evaluate", "--model", small.inputs["model"], "--against", small.inputs["against"], "--people", file]
    argv += ["--judge", directory / "helpful", "--judge", directory / "safe", "--out", tmp_path / "f", "--quiet"]
    code, _, err = call(capsys, *argv, "--set", "dtype=fp32")
    assert (code, err) == (0, "")
    before, after = (rows_of(tmp_path / name, "people") for name in ("e", "f"))
    with open_store(str(tmp_path / "people.db")) as store:
        shown = {axis: sum(i.task == axis for i in store.items("evaluate")) for axis in ("helpfulness", "safety")}
    for axis, count in shown.items():
        there = after["win_rate", axis]
        assert there.n == count  # pairs that nobody was shown are in no file
        assert (there.wins or 0) <= (before["win_rate", axis].wins or 0)
    assert {r.judge for r in read_results(tmp_path / "f" / "results.json") if r.judge} == {"helpful", "safe", "people"}
    assert not [r for r in read_results(tmp_path / "f" / "results.json") if r.metric == "kl"]


def test_two_judges_of_one_name_are_refused(small: Small, directory: Path, tmp_path: Path) -> None:
    judges = {**small.inputs, "judge": [directory / "helpful", directory / "helpful"]}
    with pytest.raises(BadInput, match="two judges are called helpful"):
        Small("evaluate", {"dtype": "fp32"}, judges).execute(tmp_path / "e")


@pytest.mark.parametrize(
    ("settings", "without", "message"),
    [
        ({}, "against", "against: people compare two models' answers"),
        ({}, "prompts", "prompts: people need answers to judge"),
        ({"page": "8080"}, "", "page: '8080' is not HOST:PORT"),
        ({"page": "127.0.0.1:0", "overlap": 2}, "", "overlap: one person judges on the page"),
    ],
)
def test_what_people_cannot_judge_is_told_before_anything_is_drawn(
    small: Small, tmp_path: Path, settings: dict[str, Any], without: str, message: str
) -> None:
    inputs = {name: given for name, given in small.inputs.items() if name != without}
    with pytest.raises(BadInput) as caught:
        Small("evaluate", {**SETTINGS, **settings}, inputs).execute(tmp_path / "e")
    assert message in str(caught.value)


def test_recorded_judgements_come_with_their_prompts(small: Small, directory: Path, tmp_path: Path) -> None:
    asked = read_prompts_of([directory / "prompts.jsonl"])[0]
    said = Comparison(asked, "owl", "hare", model_chosen="policy", model_rejected="base")
    write_jsonl(tmp_path / "people.jsonl", [to_dict(said)])
    write_jsonl(tmp_path / "test.jsonl", [
        to_dict(replace(said, prompt=replace(asked, id="village-7:test:person:1", source="village-7")))
    ])  # fmt: skip
    for file, more, message in (
        ("people.jsonl", {"prompts": small.inputs["prompts"]}, "already has its prompts and answers"),
        ("test.jsonl", {"prompts": None}, "is of the test split, and this is no final evaluation"),
    ):
        inputs = {**small.inputs, "people": [tmp_path / file], **more}
        given = {name: value for name, value in inputs.items() if value}
        with pytest.raises(BadInput, match=message):
            Small("evaluate", {"dtype": "fp32"}, given).execute(tmp_path / "e")


def test_gold_beside_the_others_is_a_word(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["evaluate", "--model", directory / "talker", "--against", directory / "talker", "--prompts"]
    argv += [directory / "village.jsonl", "--judge", "gold", "--judge", directory / "helpful", "--quiet"]
    code, _, err = call(capsys, *argv, "--out", tmp_path / "e", "--set", "max_tokens=4", "--set", "limit=4",
                        "--set", "dtype=fp32")  # fmt: skip
    assert (code, err) == (0, "")
    judges = [r.judge for r in read_results(tmp_path / "e" / "results.json") if r.metric == "win_rate"]
    assert list(dict.fromkeys(judges)) == ["gold", "helpful"]
    code, _, err = call(capsys, *argv, "--out", tmp_path / "f", "--judge", "http://a/v1", "--judge", "http://b/v1")
    assert (code, err) == (2, "--judge: judge_url is given twice\n")
