"""The annotation page as a person without JavaScript meets it: every form, every refusal, nothing lost."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_visitor import Visitor, echo, item, new_store, person, site
from panel import Simulated, fill

from ayni.errors import BadInput
from ayni.feedback.entries import Entry, GoldCheck, shown_swapped
from ayni.feedback.page import Measure, check_bind
from ayni.feedback.page.degrees import CHOICES, CHOICES_BY_LETTER, number_of, side_of
from ayni.feedback.store import Store, open_store
from ayni.quality.page_measures import quality_of
from ayni.records import RATINGS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with new_store(tmp_path) as made:
        yield made


@pytest.fixture
def rosa(store: Store) -> Visitor:
    return Visitor(site(store, talk=echo)).sign_in(store.invite("Rosa"))


def test_the_eight_choices_are_the_four_degrees_each_way() -> None:
    assert [letter for letter, _ in CHOICES] == list("AAAABBBB")
    assert [rating for _, rating in CHOICES] == [*RATINGS, *reversed(RATINGS)]
    assert [number for four in CHOICES_BY_LETTER.values() for number, _, _ in four] == list(range(1, 9))
    for swapped in (False, True):
        for number, (letter, rating) in enumerate(CHOICES, 1):
            assert number_of(side_of(letter, swapped), rating, swapped) == number
    assert number_of("a", "better", False) == 2
    assert number_of("a", "better", True) == 7


def test_an_invitation_signs_in_by_the_button_and_not_by_the_link(store: Store) -> None:
    token = store.invite("Rosa")
    visitor = Visitor(site(store))
    assert visitor.go("/").url.path == "/sign-in"
    for _ in range(3):  # what a mail program does with links
        visitor.go(f"/sign-in?invitation={token}")
    assert "set-cookie" not in visitor.at.headers
    visitor.send("/sign-in")
    assert (visitor.at.url.path, "Hello, Rosa" in visitor.page.text) == ("/", True)
    visitor.send("/sign-out")
    assert "You are signed out" in visitor.page.text
    assert visitor.go("/").url.path == "/sign-in"


def test_a_whole_link_may_be_pasted(store: Store) -> None:
    visitor = Visitor(site(store))
    visitor.go("/sign-in")
    visitor.send("/sign-in", invitation=f"  http://page.test/sign-in?invitation={store.invite('Rosa')} ")
    assert "Hello, Rosa" in visitor.page.text


@pytest.mark.parametrize("number", range(1, 9))
def test_a_choice_is_kept_as_the_stored_answer_it_stood_for(rosa: Visitor, store: Store, number: int) -> None:
    rosa.go("/judge?batch=week-1")
    form = rosa.page.form("/judge")
    assert form.offered["choice"] == [str(n) for n in range(1, 9)]
    swapped = shown_swapped(form.fields["item"], person(store).id)
    first, second = rosa.at.text.index("at length"), rosa.at.text.index("in short")
    assert (first > second) == swapped
    rosa.send("/judge", choice=str(number), kind="judged", comment=" why\r\nnot ")
    (row,) = store.current()
    letter, rating = CHOICES[number - 1]
    assert (row.entry.preferred, row.entry.rating) == (side_of(letter, swapped), rating)
    assert (row.entry.swapped, row.entry.reason, row.entry.source) == (swapped, "why\nnot", "person")
    assert row.entry.seconds is not None
    assert 0 <= row.entry.seconds < 60
    assert "Saved" in rosa.page.text


def test_all_items_are_judged_once_and_then_there_is_nothing_left(rosa: Visitor, store: Store) -> None:
    rosa.go("/judge?batch=week-1")
    for done in range(3):
        assert f"{done} judged" in rosa.page.text
        rosa.send("/judge", choice="4", kind="judged")
    assert "that was all" in rosa.page.text
    assert {row.item.id for row in store.current()} == {"ayllu", "quinoa", "quipu"}
    rosa.go("/")
    assert "nothing in this batch waits" in rosa.page.text


def test_only_who_runs_the_collection_sees_how_full_the_batch_is(rosa: Visitor, store: Store) -> None:
    boss = Visitor(site(store)).sign_in(store.invite("Boss", "admin"))
    for path in ("/", "/judge?batch=week-1"):
        boss.go(path)
        rosa.go(path)
        assert ("0 of 3" in boss.page.text, "0 of 3" in rosa.page.text) == (True, False)


def test_an_item_stays_before_a_person_until_they_answer_it(rosa: Visitor, store: Store) -> None:
    """Whatever others do meanwhile, and when it was taken back too; the one before it lies under it."""
    other = store.enrol("Bob").id

    def shown() -> str:
        rosa.go("/judge?batch=week-1")
        return rosa.page.form("/judge").fields["item"]

    first = shown()
    store.record(Entry("b1", first, other, preferred="a"))
    assert shown() == first
    rosa.send("/judge", kind="judged", choice="1")
    second = shown()
    rosa.send("/undo")
    store.record(Entry("b2", second, other, preferred="a"))
    assert shown() == first
    rosa.send("/judge", kind="judged", choice="2")
    assert shown() == second
    store.record(Entry("r", second, person(store).id, preferred="a"))  # on a page of another process
    assert shown() not in (first, second)


def test_nothing_chosen_is_told_and_loses_nothing(rosa: Visitor, store: Store) -> None:
    rosa.go("/judge?batch=week-1")
    before = rosa.page.form("/judge").fields
    answer = rosa.send("/judge", kind="judged", comment='a "comment"\nof </textarea> two lines')
    assert answer.status_code == 400
    assert "Please choose which answer is better." in rosa.page.text
    after = rosa.page.form("/judge").fields
    assert after == before | {"comment": 'a "comment"\nof </textarea> two lines'}
    rosa.send("/judge", kind="judged", choice="2")
    assert store.current()[0].entry.reason == 'a "comment"\nof </textarea> two lines'


@pytest.mark.parametrize("kind", ["skipped", "flagged"])
def test_skip_and_flag_want_a_reason(rosa: Visitor, store: Store, kind: str) -> None:
    rosa.go("/judge?batch=week-1")
    name = rosa.page.form("/judge").fields["item"]
    assert rosa.send("/judge", kind=kind).status_code == 400
    assert "in a few words why" in rosa.page.text
    rosa.send("/judge", kind=kind, comment="I cannot read it", choice="3")
    (row,) = store.current()
    assert (row.entry.kind, row.entry.reason, row.entry.preferred) == (kind, "I cannot read it", None)
    assert rosa.page.form("/judge").fields["item"] != name


def test_undo_brings_the_item_back_and_no_row_goes(rosa: Visitor, store: Store) -> None:
    rosa.go("/judge?batch=week-1")
    name = rosa.page.form("/judge").fields["item"]
    rosa.send("/judge", kind="judged", choice="1")
    undo = rosa.page.form("/undo").fields
    rosa.post("/undo", undo)
    assert "Taken back" in rosa.page.text
    assert rosa.page.form("/judge").fields["item"] == name
    assert store.current() == []
    rosa.send("/judge", kind="judged", choice="8")
    rosa.post("/undo", undo)  # the same form again takes nothing more back
    assert [row.entry.kind for row in store.log()] == ["judged", "withdrawn", "judged"]
    assert len(store.current()) == 1
    rosa.send("/undo")
    rosa.send("/undo")
    assert "nothing to take back" in rosa.page.text


def test_a_double_submit_is_one_judgement_and_another_content_is_refused(rosa: Visitor, store: Store) -> None:
    rosa.go("/judge?batch=week-1")
    fields = rosa.page.form("/judge").fields | {"kind": "judged", "choice": "3"}
    for _ in range(3):
        assert rosa.post("/judge", fields).status_code == 200
    assert len(store.log()) == 1
    assert rosa.post("/judge", fields | {"choice": "7"}).status_code == 400
    assert "said something else before" in rosa.page.text
    assert len(store.log()) == 1


def test_safety_asks_for_both_labels_and_refuses_the_unsafe_better_one(tmp_path: Path) -> None:
    with new_store(tmp_path, item("dog", task="safety")) as store:
        rosa = Visitor(site(store)).sign_in(store.invite("Rosa"))
        rosa.go("/judge?batch=week-1")
        rosa.send("/judge", kind="judged", choice="1", safety_a="safe")
        assert "Please say whether answer B is safe." in rosa.page.text
        for choice, unsafe, safe in (("1", "a", "b"), ("8", "b", "a"), ("4", "a", "b")):
            labels = {f"safety_{unsafe}": "unsafe", f"safety_{safe}": "safe"}
            answer = rosa.send("/judge", kind="judged", choice=choice, comment="kept", **labels)
            assert answer.status_code == 400
            assert "cannot be the better one while it is unsafe" in rosa.page.text
            fields = rosa.page.form("/judge").fields
            assert fields | labels | {"choice": choice, "comment": "kept"} == fields
            assert store.log() == []
        rosa.send("/judge", kind="judged", choice="1", safety_a="safe", safety_b="unsafe")
        (row,) = store.current()
        assert row.entry.preferred is not None
        other = "b" if row.entry.preferred == "a" else "a"
        assert getattr(row.entry, f"safety_{row.entry.preferred}") is True
        assert getattr(row.entry, f"safety_{other}") is False


def test_a_dialogue_of_three_turns_follows_the_chosen_answers(rosa: Visitor, store: Store) -> None:
    rosa.go("/")
    rosa.go("/write?batch=week-1")
    rosa.send("/write", prompt="Hello?\r\nAnybody?", task="helpfulness")
    chosen = []
    for turn in (1, 2, 3):
        name = rosa.page.form("/judge").fields["item"]
        first = rosa.at.text.index(f"new says {turn}") < rosa.at.text.index(f"old says {turn}")
        rosa.send("/judge", kind="judged", choice="2" if turn != 2 else "7")
        chosen.append(f"{'new' if first == (turn != 2) else 'old'} says {turn}")
        assert "Go on with the dialogue" in rosa.page.text
        assert [text for text in chosen if text in rosa.at.text] == chosen
        if turn < 3:
            fields = rosa.page.form("/dialogue").fields | {"prompt": f"And {turn + 1}?"}
            rosa.post("/dialogue", fields)
            rosa.post("/dialogue", fields)  # twice: the models are asked once
        assert store.item(name).turn == turn
    last = store.item(name)
    assert [m.content for m in last.prompt.dialog] == ["Hello?\nAnybody?", chosen[0], "And 2?", chosen[1], "And 3?"]
    assert (last.model_a, last.sampling_b) == ("new", {"temperature": 1.0})
    dialogue = last.dialogue_id or ""
    rosa.send("/dialogue/end")
    assert "has ended" in rosa.page.text
    assert store.dialogue(dialogue).ended_at is not None
    assert store.check() == []


def test_a_choice_that_later_turns_build_on_stays(rosa: Visitor, store: Store) -> None:
    rosa.go("/write?batch=week-1")
    rosa.send("/write", prompt="Hello?", task="helpfulness")
    first = rosa.page.form("/judge").fields
    rosa.send("/judge", kind="judged", choice="2")
    rosa.send("/dialogue", prompt="And then?")
    rosa.send("/undo")
    assert "Later turns build on that choice" in rosa.page.text
    answer = rosa.post("/judge", first | {"submission": "0" * 32, "choice": "7", "kind": "judged"})
    assert (answer.status_code, "build on this choice" in rosa.page.text) == (400, True)
    assert rosa.post("/judge", first | {"choice": "2", "kind": "judged"}).status_code == 200, "the same form again"
    assert len(store.log()) == 1


def test_a_dialogue_whose_turn_is_skipped_ends(rosa: Visitor, store: Store) -> None:
    rosa.go("/write?batch=week-1")
    fields = rosa.page.form("/write").fields | {"prompt": "Hello?", "task": "safety"}
    rosa.post("/write", fields)
    rosa.post("/write", fields)
    assert len(store.dialogues(person(store).id)) == 1
    rosa.go("/")
    assert "Your open dialogues" in rosa.page.text
    rosa.go(next(at["href"] for tag, at in rosa.page.tags if tag == "a" and "/dialogue" in str(at.get("href"))) or "")
    rosa.send("/judge", kind="skipped", comment="both are empty")
    assert "This dialogue has ended" in rosa.page.text


def test_what_the_models_refuse_is_told_and_the_prompt_kept(store: Store) -> None:
    def refuse(dialog: object, task: str) -> tuple[str, str, str, str, dict[str, str], dict[str, str]]:
        raise BadInput("the prompt has 900 tokens, the model reads 512", fix="shorten it")

    rosa = Visitor(site(store, talk=refuse)).sign_in(store.invite("Rosa"))
    rosa.go("/write?batch=week-1")
    for prompt, text in (("", "write something first"), ("x" * 8001, "at most 8,000"), ("too long", "shorten it")):
        assert rosa.send("/write", prompt=prompt, task="safety").status_code == 400
        assert text in rosa.page.text
        assert rosa.page.form("/write").fields["prompt"] == prompt
        assert rosa.page.form("/write").fields["task"] == "safety"
    assert store.dialogues(person(store).id) == []
    silent = Visitor(site(store)).sign_in(store.invite("Rosa"))
    assert "Write a prompt" not in silent.page.text
    assert silent.go("/write?batch=week-1").status_code == 404


@pytest.mark.parametrize("answers", [("Yes.", "Yes.\n"), ("", "Yes."), ("Yes.", " \n")])
def test_answers_that_cannot_be_compared_become_no_turn(store: Store, answers: tuple[str, str]) -> None:
    def alike(dialog: object, task: str) -> tuple[str, str, str, str, dict[str, str], dict[str, str]]:
        return *answers, "new", "old", {}, {}

    rosa = Visitor(site(store, talk=alike)).sign_in(store.invite("Rosa"))
    rosa.go("/write?batch=week-1")
    assert rosa.send("/write", prompt="Well?", task="helpfulness").status_code == 400
    assert "not two different answers" in rosa.page.text
    assert rosa.page.form("/write").fields["prompt"] == "Well?"
    assert store.dialogues(person(store).id) == []


def test_answers_to_a_choice_that_was_taken_back_meanwhile_become_no_turn(store: Store) -> None:
    def slow(dialog: Any, task: str) -> tuple[str, str, str, str, dict[str, Any], dict[str, Any]]:
        if len(dialog) > 1:  # the choice changes in another window while the models answer
            me = person(store).id
            turn = store.dialogues(me)[0].turns[0]
            stood = store.standing(turn.id, me)
            assert stood is not None
            store.undo(me, "undo")
            side: Any = "b" if stood.entry.preferred == "a" else "a"
            store.record(Entry("other", turn.id, me, preferred=side, rating="better"))
        return echo(dialog, task)

    rosa = Visitor(site(store, talk=slow)).sign_in(store.invite("Rosa"))
    rosa.go("/write?batch=week-1")
    rosa.send("/write", prompt="Hello?", task="helpfulness")
    rosa.send("/judge", kind="judged", choice="1")
    assert rosa.send("/dialogue", prompt="And then?").status_code == 400
    (dialogue,) = store.dialogues(person(store).id)
    assert len(dialogue.turns) == 1


def test_the_admin_page_counts_measures_and_invites(tmp_path: Path) -> None:
    def quality(store: Store, batch: str) -> list[Measure]:
        return [Measure("Checks <right>", 0.5, (0.25, 0.75), 2, percent=True), Measure("AC2", None)]

    items = [item("a"), item("b"), item("c", gold=GoldCheck("a"))]
    with new_store(tmp_path, *items, task_mix={"helpfulness": 1.0}) as store:
        boss = Visitor(site(store, quality=quality)).sign_in(store.invite("Boss", "admin"))
        for n, kind in enumerate(("judged", "flagged")):
            rating = "better" if kind == "judged" else None
            preferred = "a" if kind == "judged" else None
            reason = "torn" if kind == "flagged" else None
            annotator_id = person(store, "Boss").id
            store.record(Entry(f"s{n}", "ab"[n], annotator_id, kind, preferred, rating, reason=reason, seconds=30.0))  # type: ignore[arg-type]
        boss.go("/admin")
        for text in ("Checks <right>", "50%", "25% to 75%", "AC2", "–", "30 s", "week-1", "1: 0, 2: 1"):
            assert text in boss.page.text, text
        boss.send("/admin/invite", name="Inti", role="annotator")
        link = next(str(at["value"]) for tag, at in boss.page.tags if tag == "input" and "readonly" in at)
        inti = Visitor(site(store))
        inti.go(link)
        inti.send("/sign-in")
        assert "Hello, Inti" in inti.page.text
        assert inti.go("/admin").status_code == 403
        for name in ("", "x" * 81, "Boss"):
            boss.go("/admin")
            assert boss.send("/admin/invite", name=name, role="annotator").status_code == 400
        boss.go("/admin")
        boss.send("/admin/close")
        assert "The batch is closed" in boss.page.text
        assert inti.go("/judge?batch=week-1").status_code == 400
        boss.send("/admin/retire", annotator=person(store, "Inti").id)
        assert "They are signed out" in boss.page.text
        assert "No longer here: Inti" in boss.page.text
        assert inti.go("/").url.path == "/sign-in"
        for nobody in (person(store, "Boss").id, "", "x"):
            assert boss.post("/admin/retire", {"annotator": nobody}).status_code == 400
        assert boss.go("/admin").status_code == 200


def test_the_admin_page_reads_no_answers(tmp_path: Path) -> None:
    long = [item(f"i{number}", "a" * 1_000_000, "b" * 999_999) for number in range(8)]
    with new_store(tmp_path, *long) as store:
        boss = Visitor(site(store)).sign_in(store.invite("Boss", "admin"))
        for each in long:
            store.record(Entry(each.id, each.id, person(store, "Boss").id, preferred="a", rating="better"))
        boss.go("/admin")
        tracemalloc.start()
        assert boss.go("/admin").status_code == 200
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert "8 of 8" in boss.page.text
        assert peak < 2_000_000


def test_a_quality_that_has_too_little_yet_leaves_the_page_standing(store: Store) -> None:
    def quality(store: Store, batch: str) -> list[Measure]:
        raise BadInput("fewer than two people judged the same")

    boss = Visitor(site(store, quality=quality)).sign_in(store.invite("Boss", "admin"))
    assert boss.go("/admin").status_code == 200
    assert "Fewer than two people judged the same." in boss.page.text


def test_the_admin_page_lists_annotators_with_their_checks_and_screening(tmp_path: Path) -> None:
    panel = (Simulated("Inti", 0.2), Simulated("Killa<b>", 0.4), Simulated("Rosa", 0.6), Simulated("Coin", 1e6))
    with open_store(str(tmp_path / "page.db")) as store:
        fill(store, panel, 0, items=12)
        boss = Visitor(site(store, quality=quality_of)).sign_in(store.invite("Boss", "admin"))
        assert boss.go("/admin").status_code == 200
        text = " ".join(boss.page.text.split())
        rows = text[text.index("Median time") :]
        for name in ("Agreement", "Gold checks right", "Screening"):
            assert name in rows
        for name, verdict in (("Inti", "passed"), ("Killa<b>", "passed"), ("Coin", "screened out: ")):
            assert verdict in rows[rows.index(name) :][:120], name
        assert "100% of 42" in rows
        assert "Agreement on the degree (AC2)" in text
        assert [tag for tag, at in boss.page.tags if tag == "td" and at.get("class") == "remark"] == ["td"] * 4


def test_without_login_one_named_person_judges(store: Store) -> None:
    visitor = Visitor(site(store, require_login=False, local=store.enrol("Wayra", "admin")))
    visitor.go("/judge?batch=week-1")
    visitor.send("/judge", kind="judged", choice="5")
    assert store.current()[0].annotator == "Wayra"
    assert "Sign out" not in visitor.page.text
    with pytest.raises(BadInput, match="named"):
        site(store, require_login=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback_goes_without_login(host: str) -> None:
    check_bind(host, require_login=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "example.org", "localhost.example.org"])
def test_any_other_address_demands_login(host: str) -> None:
    check_bind(host, require_login=True)
    with pytest.raises(BadInput, match="sign in"):
        check_bind(host, require_login=False)
