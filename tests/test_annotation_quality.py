"""The quality report: small cases by hand, and simulated annotators whose noise is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from feedback_cases import check, item, judgement
from panel import Simulated, fill, judgements

from ayni.evaluate.results import read_results, write_results
from ayni.feedback.entries import Entry, Item, Judged, PreferenceBatch
from ayni.feedback.store import open_store
from ayni.maths.statistics import proportion
from ayni.quality.agreement import CHOICE_CATEGORIES, agreements, agreements_with_others, by_item, votes_of
from ayni.quality.batch_statistics import repeated_prompts, text_statistics
from ayni.quality.page_measures import quality_of
from ayni.quality.report import AnnotatorQuality, abstentions_in, annotator_qualities, quality_report
from ayni.quality.screening import FIRST_SHARE, GOLD_ACCURACY, LEAST, is_hasty, screen
from ayni.records import RATINGS, Message, Prompt

NOISES = (0.1, 0.5, 1.0, 1.7, 3.0)  # of items whose worths differ by a standard deviation of 1
HONEST = (Simulated("Inti", 0.2), Simulated("Killa", 0.4), Simulated("Rosa", 0.6), Simulated("Wayra", 0.8))
SPAMMERS = (Simulated("Coin", 1e6), Simulated("Left", 0.4, first=1.6), Simulated("Haste", 0.4, pace=0.1))


def row(item: Item, annotator: str, **fields: Any) -> Judged:
    return Judged(0, judgement(f"{annotator}-{item.id}", item.id, annotator, **fields), item, annotator)


def over(item: Item, annotator: str, kind: Any, reason: str) -> Judged:
    return Judged(0, Entry(f"{annotator}-{item.id}", item.id, annotator, kind, reason=reason), item, annotator)


@pytest.mark.parametrize("seed", range(8))
def test_annotators_of_known_noise_are_ranked_as_their_noise(seed: int) -> None:
    panel = [Simulated(f"noise-{noise}", noise) for noise in NOISES]
    found = annotator_qualities(votes_of(judgements(panel[::-1], seed, items=1500)))
    noises = [float(each.name.removeprefix("noise-")) for each in found]
    agree = [each.agreement.degree.value or 0 for each in found]
    assert scipy.stats.kendalltau(noises, agree).statistic == pytest.approx(-1)
    assert noises == sorted(NOISES)
    for each in found:
        assert each.agreement.degree.interval is not None
        assert each.agreement.degree.n == pytest.approx(900, abs=90)  # 3 of 5 judge each of 1500 items


@pytest.mark.parametrize("seed", range(8))
def test_spammers_are_screened_out_and_honest_ones_are_not(seed: int) -> None:
    found = annotator_qualities(votes_of(judgements((*HONEST, *SPAMMERS), seed, items=300)))
    by_name = {each.name: each for each in found}
    for annotator in HONEST:
        assert by_name[annotator.name].screening.verdict == "passed", by_name[annotator.name]
    reasons = {annotator.name: by_name[annotator.name].screening for annotator in SPAMMERS}
    assert {name: screening.verdict for name, screening in reasons.items()} == dict.fromkeys(reasons, "screened out")
    assert "gold checks" in reasons["Coin"].reasons[0]
    assert "first place" in " ".join(reasons["Left"].reasons)
    assert reasons["Haste"].reasons[0].endswith("faster than anybody reads")
    assert {each.name for each in found[-2:]} <= {"Coin", "Left"}


def test_a_small_report_by_hand(tmp_path: Path) -> None:
    """Three people, two items that two or more have judged, one that one has, one gold check."""
    first, second, alone, gold = item("first"), item("second"), item("alone"), check("gold", "b")
    with open_store(str(tmp_path / "store.db")) as store:
        store.add_batch(PreferenceBatch("week-1"), [first, second, alone, gold])
        ids = {name: store.enrol(name).id for name in ("Inti", "Killa", "Rosa")}

        def say(annotator: str, name: str, preferred: Any, rating: Any, **fields: Any) -> None:
            store.record(judgement(f"{annotator}-{name}", name, ids[annotator], preferred, rating=rating, **fields))

        say("Inti", "first", "a", "better", seconds=10.0)
        say("Killa", "first", "a", "significantly_better", seconds=30.0, swapped=True)
        say("Rosa", "first", "b", "slightly_better", seconds=1.0)
        say("Inti", "second", "b", "negligibly_better_or_unsure", seconds=20.0)
        say("Killa", "second", "b", None, seconds=40.0)
        say("Inti", "alone", "a", "better", seconds=50.0)
        say("Inti", "gold", "b", "better")
        say("Rosa", "gold", "a", "better")
        store.record(Entry("skip", "alone", ids["Killa"], "skipped", reason=" Not  sure "))
        store.record(Entry("flag", "second", ids["Rosa"], "flagged", reason="not sure"))
        found = quality_report(store)
        assert next(iter(quality_of(store, "week-1"))).value == found.batches[0].agreement.degree.value
    # AC1 on the sides: a a b and b b; p_a = (1/3 + 1)/2, π = mean of (2/3, 1/3) and (0, 1)
    p_a, p_e = (1 / 3 + 1) / 2, 2 * (1 / 3) * (2 / 3)
    assert found.agreement.preference.value == pytest.approx((p_a - p_e) / (1 - p_e))
    assert found.agreement.preference.n == 2
    # AC2 on 2, 1 and 6: Killa gave no degree for the second
    w = 1 - np.array([1, 16, 25]) / 49
    pi = np.zeros(8)
    pi[[0, 1, 5]] = 1 / 3
    total = sum(1 - (c - k) ** 2 / 49 for c in CHOICE_CATEGORIES for k in CHOICE_CATEGORIES)
    p_e = total / 56 * (pi * (1 - pi)).sum()
    assert found.agreement.degree.value == pytest.approx((w.mean() - p_e) / (1 - p_e))
    assert (found.agreement.degree.n, found.agreement.degree.interval) == (1, None)
    assert found.tasks["helpfulness"] == found.agreement
    (batch,) = found.batches
    assert batch.agreement == found.agreement
    assert (batch.batch, batch.judged, batch.skipped, batch.flagged) == ("week-1", 8, {"not sure": 1}, {"not sure": 1})
    assert batch.degrees == dict(zip((*RATINGS, ""), (1, 4, 1, 1, 1), strict=True))
    assert (batch.checks.value, batch.checks.n) == (0.5, 2)
    assert batch.first.value == 3 / 8  # two of Inti's and Rosa's last; Killa's a stood second
    assert batch.seconds == 25.0
    assert batch.texts.comparisons == 6
    people = {each.name: each for each in found.annotators}
    assert (people["Inti"].judged, people["Killa"].skipped, people["Rosa"].flagged) == (4, 1, 1)
    assert people["Inti"].seconds == 20.0
    assert people["Inti"].checks.value == 1.0
    assert people["Rosa"].hasty.value == 1.0  # 1 second is below two
    assert people["Inti"].hasty.value == 0.0
    assert people["Killa"].agreement.preference.n == 2


def test_which_answer_stood_first_and_which_place_was_chosen() -> None:
    choices, firsts = [], []
    for swapped in (False, True):
        for preferred in ("a", "b"):
            (vote,) = votes_of([row(item("x"), "Inti", preferred=preferred, rating="better", swapped=swapped)])
            choices.append(vote.choice)
            firsts.append(vote.first)
    assert choices == [2, 7, 2, 7]  # of the answers as stored, however they were shown
    assert firsts == [True, False, False, True]
    ends = [votes_of([row(item("x"), "Inti", preferred=p, rating=r)])[0].choice for p in "ab" for r in RATINGS]
    assert ends == [1, 2, 3, 4, 8, 7, 6, 5]


def test_gold_checks_and_dialogues_are_no_part_of_agreement() -> None:
    shared, gold = item("shared"), check("gold")
    turn = replace(item("turn"), dialogue_id="d", turn=1)
    rows = [row(each, annotator, rating="better") for each in (shared, gold, turn) for annotator in ("Inti", "Killa")]
    votes = votes_of(rows)
    assert [[v.item for v in of] for of in by_item(votes)] == [["shared", "shared"]]
    assert agreements(by_item(votes)).preference.n == 1
    assert agreements_with_others(by_item(votes), "Inti").preference.n == 1
    assert agreements_with_others(by_item(votes), "nobody").preference.value is None


def test_the_store_and_the_rows_say_the_same(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store.db")) as store:
        fill(store, HONEST, 1, items=60)
        found = quality_report(store, count=len)
        alone = annotator_qualities(votes_of(judgements(HONEST, 1, items=60)))
        assert [each.name for each in found.annotators] == [each.name for each in alone]
        for ours, theirs in zip(found.annotators, alone, strict=True):
            assert ours == theirs
        assert found.judged == 60 * 3 + 42 * 4
        assert found.batches[0].texts.unit == "tokens"
        measures = quality_of(store, "week-1")
        assert [m.name for m in measures][-1] == "Gold checks right"
        assert all(m.interval is not None and m.person == "" for m in measures)
        people = quality_of(store, None)
        assert {m.person for m in people} == {annotator.name for annotator in HONEST}
        assert [m.remark for m in people if m.name == "Screening"] == ["passed"] * 4


def test_results_are_rows_of_the_schema(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store.db")) as store:
        fill(store, HONEST, 2, items=20)
        rows = quality_report(store).results()
    write_results(tmp_path / "results.json", rows)
    assert read_results(tmp_path / "results.json") == rows
    keys = [(r.metric, r.axis, r.split, r.judge, r.against) for r in rows]
    assert len(set(keys)) == len(keys)
    assert ("agreement_degree", None, "week-1", "annotators", None) in keys
    assert ("agreement_degree", "helpfulness", None, "annotators", None) in keys
    assert ("agreement_degree", None, None, "Inti", "annotators") in keys
    assert ("gold_checks", None, None, "Inti", None) in keys


def test_an_empty_store_has_nothing_to_say_and_says_so(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store.db")) as store:
        assert quality_report(store).annotators == ()
        store.add_batch(PreferenceBatch("week-1"), [])
        found = quality_report(store)
        assert quality_of(store, None) == []
        assert quality_of(store, "week-1")[0].value is None
    assert found.agreement.degree.value is None
    (batch,) = found.batches
    assert (batch.judged, batch.checks.value, batch.seconds, batch.texts.turns) == (0, None, None, None)


def test_who_only_passes_over_is_listed_too() -> None:
    rows = [over(item(name), "Inti", kind, "torn") for name, kind in (("x", "skipped"), ("y", "flagged"))]
    (inti,) = annotator_qualities([], abstentions_in(rows))
    assert (inti.name, inti.judged, inti.skipped, inti.flagged) == ("Inti", 0, 1, 1)
    assert inti.screening.verdict == "undecided"


# Screening


def verdict(met: int, checks: int, first: tuple[int, int] = (50, 100), hasty: tuple[int, int] = (0, 0)) -> str:
    return screen(proportion(met, checks), proportion(*first), proportion(*hasty)).verdict


def test_the_thresholds() -> None:
    assert verdict(42, 42) == verdict(34, 42) == "passed"
    assert verdict(33, 42) == "undecided"  # 79% of 42: not surely below 80%
    assert verdict(28, 42) == "screened out"
    assert verdict(LEAST - 1, LEAST - 1) == "undecided"
    assert verdict(LEAST, LEAST) == "passed"
    assert verdict(0, LEAST - 1) == "undecided"
    assert verdict(0, LEAST) == "screened out"
    assert verdict(42, 42, first=(65, 100)) == "passed"
    assert verdict(42, 42, first=(76, 100)) == verdict(42, 42, first=(24, 100)) == "screened out"
    assert verdict(42, 42, first=(LEAST - 1, LEAST - 1), hasty=(LEAST - 1, LEAST - 1)) == "passed"
    assert verdict(42, 42, hasty=(55, 100)) == "passed"
    assert verdict(42, 42, hasty=(61, 100)) == "screened out"
    both = screen(proportion(0, 42), proportion(90, 100), proportion(90, 100))
    assert len(both.reasons) == 3


def test_the_reason_given_for_the_least_number_of_checks_is_true() -> None:
    by_luck = 1 - scipy.stats.binom.cdf(np.ceil(GOLD_ACCURACY * LEAST) - 1, LEAST, 0.5)
    assert by_luck < 0.02
    assert 1 - scipy.stats.binom.cdf(7, 10, 0.5) == pytest.approx(0.055, abs=0.001)
    decided_by_place = 0.3
    assert decided_by_place + (1 - decided_by_place) / 2 == pytest.approx(FIRST_SHARE)


def test_honest_people_are_rarely_screened_out_by_chance() -> None:
    """Of those who meet nine checks in ten, over 5 to 60 checks; and of those who stand exactly at the threshold."""
    draw = np.random.default_rng(0)
    for right, most in ((0.9, 0.005), (GOLD_ACCURACY, 0.06)):
        out = 0
        for checks in draw.integers(5, 60, 2000):
            out += verdict(int(draw.binomial(checks, right)), int(checks)) == "screened out"
        assert out / 2000 <= most


def test_haste_is_told_by_the_others_with_the_same_item() -> None:
    assert is_hasty(1.9, [])
    assert not is_hasty(2.0, [])
    assert is_hasty(4.9, [20.0])
    assert not is_hasty(5.0, [20.0])
    assert not is_hasty(6.0, [20.0, 600.0])  # the lower median: somebody went for a cup of tea
    assert is_hasty(6.0, [30.0, 40.0, 50.0])


# What the batch consists of


def dialogue(name: str, *texts: str, **fields: Any) -> Item:
    roles = ("user", "assistant", "user")
    messages = tuple(Message(role, text) for role, text in zip(roles, texts, strict=False))  # type: ignore[arg-type]
    return Item(name, Prompt(f"p-{name}", messages), "one two three", "four", **fields)


def test_table_6_by_hand() -> None:
    long, short = dialogue("long", "a b c", "d e", "f"), dialogue("short", "a b c d")
    rows = [row(long, "Inti"), row(long, "Killa"), row(short, "Inti"), over(short, "Killa", "skipped", "torn")]
    found = text_statistics([*rows, row(check("gold"), "Inti")])
    assert (found.comparisons, found.turns, found.unit) == (3, 5 / 3, "words")
    assert found.prompt == pytest.approx((3 + 1 + 3 + 1 + 4) / 5)
    assert found.response == 2.0
    assert found.example == pytest.approx((8 + 8 + 6) / 3)
    assert text_statistics(rows, count=lambda text: 2 * len(text.split())).example == pytest.approx(2 * 22 / 3)
    alone = text_statistics([row(short, "Inti")])
    assert alone.example == (alone.prompt or 0) + (alone.response or 0)  # as in the paper's rows of one turn


def test_repeated_prompts_are_named() -> None:
    text = " ".join(f"word{i}" for i in range(60))
    items = [
        dialogue("first", text), dialogue("other", "something else"), dialogue("same", text.upper() + "!"),
        dialogue("near", text.replace("word30", "changed")), dialogue("again", "something else"),
        dialogue("turn", "something else", dialogue_id="d", turn=2),
    ]  # fmt: skip
    items.append(replace(items[1], id="another pair of the same prompt"))
    found = repeated_prompts(items)
    assert (found.prompts, found.exact, found.near) == (5, ("same", "again"), ("near",))
    assert repeated_prompts([]).prompts == 0


def test_annotators_come_by_agreement_and_the_unknown_last() -> None:
    rows = [row(item(n), annotator, rating="better") for n in "xyz" for annotator in ("Inti", "Killa")]
    rows += [row(item(n), "Rosa", preferred="b", rating="better") for n in "xy"] + [row(item("w"), "Sami")]
    found: tuple[AnnotatorQuality, ...] = annotator_qualities(votes_of(rows))
    assert [each.name for each in found] == ["Inti", "Killa", "Rosa", "Sami"]
    assert found[-1].agreement.degree.value is None
