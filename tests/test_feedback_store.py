"""The preference store, on SQLite and on PostgreSQL: batches, the queue, judgements, dialogues, people."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from feedback_cases import Clock, check, filled, item, judgement

from ayni.errors import BadInput
from ayni.feedback.entries import BatchProgress, Entry, GoldCheck, Item, PreferenceBatch, shown_swapped
from ayni.feedback.records_of import comparisons
from ayni.feedback.store import Store, open_store
from ayni.records import Comparison, Message, Prompt

TIME = "2026-11-21T09:30:00.000000+00:00"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(new_address: Callable[[], str], clock: Clock) -> Iterator[Store]:
    """Every test leaves a store that is whole."""
    with open_store(new_address(), clock=clock) as store:
        yield store
        assert store.check() == []


@pytest.fixture
def ann(store: Store) -> str:
    return store.enrol("Ann").id


@pytest.fixture
def bob(store: Store) -> str:
    return store.enrol("Bob").id


class TestBatches:
    def test_all_of_it_comes_back(self, store: Store) -> None:
        batch = PreferenceBatch(
            "week-1", "Be kind. 👍", {"safety": 0.5}, {"models": ["new", "old"], "temperature": 1.0}
        )
        dialog = (Message("system", "Be brief."), Message("user", "Hi\r\n\u202e"), Message("assistant", ""))
        full = Item(
            "week-1:1",
            Prompt("p", (*dialog, Message("user", "<b>&'\"")), "safety", "greeting", "people", "hello"),
            "A" * 1_000_000,
            "",
            "safety",
            "new",
            "old",
            {"temperature": 0.7},
            {"top_p": 0.9, "stop": None},
            overlap=3,
            heldout=True,
            gold=GoldCheck("b", "better"),
        )
        store.add_batch(batch, [full, item("second")])
        assert store.batches() == [store.batch("week-1")] == [replace(batch, created_at=TIME)]
        placed = {"batch_id": "week-1", "created_at": TIME}
        assert store.items("week-1") == [replace(full, **placed), replace(item("second"), position=1, **placed)]
        assert store.item("second") == store.items("week-1")[1]

    def test_batches_come_oldest_first(self, store: Store, clock: Clock) -> None:
        for name in ("b", "a", "c"):
            store.add_batch(PreferenceBatch(name), [])
            clock.go_on(1)
        assert [batch.id for batch in store.batches()] == ["b", "a", "c"]

    @pytest.mark.parametrize(
        ("batch", "items", "what"),
        [
            (PreferenceBatch("week-1"), [item("new")], "batch: batch week-1 exists"),
            (PreferenceBatch("w"), [item("new"), item("old")], "items: item old exists"),
            (PreferenceBatch("w"), [item("new"), item("new")], "items: two items have the id new"),
            (PreferenceBatch("w"), [item("new", dialogue_id="d", turn=1)], "items: item new is a dialogue's turn"),
            (PreferenceBatch("../w"), [item("new")], "batch: '../w' is not a name for it"),
            (PreferenceBatch(""), [item("new")], "batch: '' is not a name for it"),
            (PreferenceBatch("w", task_mix={"maths": 1.0}), [item("new")], "task_mix: 'maths' is not one of"),
            (PreferenceBatch("w", settings={"x": float("nan")}), [item("new")], "settings: cannot be kept as JSON"),
            (PreferenceBatch("w", guidelines="\x00"), [item("new")], "guidelines: the text has a NUL character"),
            (PreferenceBatch("w"), [item("new", overlap=0)], "overlap: 0 is not a count ≥ 1"),
            (PreferenceBatch("w"), [item("new", task="maths")], "task: 'maths' is not one of helpfulness, safety"),
            (PreferenceBatch("w"), [item("new/1")], "item: 'new/1' is not a name for it"),
            (PreferenceBatch("w"), [check("new", "c")], "gold.preferred: 'c' is not one of a, b"),
            (PreferenceBatch("w"), [item("new", gold=GoldCheck("a", "best"))], "gold.rating: 'best' is not one of"),
            (PreferenceBatch("w"), [replace(item("new"), answer_b="so\x00")], "answer_b: the text has a NUL character"),
            (
                PreferenceBatch("w"),
                [replace(item("new"), answer_a="so\ud800")],
                "answer_a: character 3 of the text is half",
            ),
            (PreferenceBatch("w"), [item("new", sampling_a={"seed": object()})], "sampling_a: cannot be kept as JSON"),
            (
                PreferenceBatch("w"),
                [replace(item("new"), prompt=Prompt("p", ()))],
                "prompt: the dialogue does not end with",
            ),
        ],
    )
    def test_what_is_refused_leaves_nothing(
        self, store: Store, batch: PreferenceBatch, items: list[Item], what: str
    ) -> None:
        filled(store, item("old"))
        before = store.batches()
        with pytest.raises(BadInput) as error:
            store.add_batch(batch, [item("first"), *items])
        assert str(error.value).startswith(what)
        assert store.batches() == before
        with pytest.raises(BadInput, match="there is no item 'first'"):
            store.item("first")

    def test_a_closed_batch_takes_nothing_more(self, store: Store, ann: str, clock: Clock) -> None:
        filled(store, item("x"), item("y"))
        number = store.record(judgement("1", "x", ann))
        clock.go_on(1)
        store.close_batch("week-1")
        closed_at = store.batch("week-1").closed_at
        clock.go_on(1)
        store.close_batch("week-1")
        assert store.batch("week-1").closed_at == closed_at == TIME.replace("21T", "22T")
        for refused in (
            lambda: store.record(judgement("2", "y", ann)),
            lambda: store.record(judgement("3", "x", ann, "b")),
            lambda: store.undo(ann, "4"),
            lambda: store.start_dialogue("week-1", ann),
        ):
            with pytest.raises(BadInput, match="batch: batch week-1 is closed"):
                refused()
        assert store.record(judgement("1", "x", ann)) == number, "sent again, it is still acknowledged"
        assert store.next_item(ann) is None
        assert [judged.entry.submission for judged in store.current()] == ["1"]

    def test_many_items(self, store: Store) -> None:
        items = [item(f"i{number}") for number in range(1201)]
        filled(store, *items)
        assert [each.id for each in store.items("week-1")] == [each.id for each in items]
        with pytest.raises(BadInput, match="item i1200 exists"):
            store.add_batch(PreferenceBatch("again"), items[::-1][:1])


class TestQueue:
    def test_everybody_gets_everything_once(self, store: Store, ann: str, bob: str) -> None:
        names = {f"i{number}" for number in range(12)}
        filled(store, *(item(name, overlap=2) for name in sorted(names)))
        for annotator_id in (ann, bob):
            got = []
            while (following := store.next_item(annotator_id)) is not None:
                assert store.next_item(annotator_id) == following, "asked again, it is the same"
                got.append(following.id)
                store.record(judgement(f"{annotator_id}-{following.id}", following.id, annotator_id))
            assert (set(got), len(got)) == (names, 12)
        assert store.progress("week-1").full

    def test_fewest_judgements_first(self, store: Store, ann: str, bob: str) -> None:
        filled(store, *(item(f"i{number}", overlap=2) for number in range(4)))
        store.record(judgement("1", "i0", ann))
        store.record(judgement("2", "i2", ann))
        cleo = store.enrol("Cleo").id
        seen = []
        for number in range(4):
            following = store.next_item(cleo)
            assert following is not None
            seen.append(following.id)
            store.record(judgement(f"c{number}", following.id, cleo))
        assert {*seen[:2]} == {"i1", "i3"}
        assert {*seen[2:]} == {"i0", "i2"}
        assert store.next_item(bob).id in {"i1", "i3"}  # the others have two by now

    def test_simultaneous_annotators_begin_at_different_places(self, store: Store) -> None:
        filled(store, *(item(f"i{number:03}") for number in range(200)))
        first = [store.next_item(store.enrol(f"n{number}").id).id for number in range(10)]
        assert len(set(first)) >= 7

    def test_skipped_and_flagged_items_go_to_others(self, store: Store, ann: str, bob: str) -> None:
        filled(store, item("x"), item("y"))
        store.record(Entry("1", "x", ann, "skipped"))
        store.record(Entry("2", "y", ann, "flagged", reason="not English"))
        assert store.next_item(ann) is None
        store.record(judgement("3", store.next_item(bob).id, bob))
        store.record(judgement("4", store.next_item(bob).id, bob))
        assert store.next_item(bob) is None
        assert store.progress("week-1") == BatchProgress(2, 2, 2, 1, 1, by_annotator={"Bob": 2})

    def test_a_check_comes_to_everybody_once_in_every_stretch(self, store: Store) -> None:
        filled(store, *(check(f"c{n}") for n in range(3)), *(item(f"i{n}", overlap=5) for n in range(12)))
        places = []
        for annotator_id in (store.enrol(f"n{number}").id for number in range(5)):
            got = []
            while (following := store.next_item(annotator_id)) is not None:
                got.append(following.id)
                store.record(judgement(f"{annotator_id}-{following.id}", following.id, annotator_id))
            found = [place for place, name in enumerate(got) if name.startswith("c")]
            assert [place // 5 for place in found] in ([0, 1, 2], [0, 1]), "the last one only where work follows it"
            places.append(tuple(found))
        assert len(set(places)) > 1, "at places of their own"
        assert store.progress("week-1").beyond == 0, "a check is for everybody"

    def test_turns_of_dialogues_bring_no_check_nearer(self, store: Store, ann: str) -> None:
        filled(store, *(check(f"c{n}") for n in range(4)), *(item(f"i{n}") for n in range(4)))
        before = store.next_item(ann)
        for number in range(4):
            talk = store.start_dialogue("week-1", ann)
            turn = store.add_turn(talk.id, store.next_prompt(talk.id, "Well?"), "one", "two")
            store.record(judgement(f"t{number}", turn.id, ann))
        assert store.next_item(ann) == before

    def test_no_check_for_who_has_no_work(self, store: Store, ann: str, bob: str) -> None:
        filled(store, item("i0"), *(check(f"c{n}") for n in range(9)))
        assert store.next_item(ann).gold is not None, "so many that one comes before every pair"
        store.record(judgement("1", "i0", bob))
        assert store.next_item(ann) is store.next_item(bob) is None
        assert store.progress("week-1").full, "no batch waits for checks"

    def test_the_oldest_open_batch_first(self, store: Store, ann: str, clock: Clock) -> None:
        for name in ("z", "a"):
            filled(store, item(f"{name}1"), batch=name)
            clock.go_on(1)
        assert store.next_item(ann).id == "z1"
        assert store.next_item(ann, "a").id == "a1"
        store.close_batch("z")
        assert store.next_item(ann).id == "a1"
        assert store.next_item(ann, "z") is None

    def test_who_may_ask(self, store: Store, ann: str) -> None:
        store.retire(ann)
        for annotator_id, batch, what in (
            ("nobody", None, "nobody has the id"),
            (ann, None, "Ann is retired"),
            (store.enrol("Bob").id, "w", "there is no batch 'w'"),
        ):
            with pytest.raises(BadInput, match=what):
                store.next_item(annotator_id, batch)

    def test_the_order_shown_is_a_fair_coin_that_stays(self) -> None:
        swapped = [shown_swapped(f"item-{number}", "ann") for number in range(1000)]
        assert 440 < sum(swapped) < 560
        assert swapped == [shown_swapped(f"item-{number}", "ann") for number in range(1000)]
        assert swapped != [shown_swapped(f"item-{number}", "bob") for number in range(1000)]


class TestJudging:
    def test_all_of_it_comes_back(self, store: Store, ann: str) -> None:
        filled(store, item("x", task="safety"))
        entry = Entry("s-1", "x", ann, "judged", "b", "better", False, True, "ünï\n<b>", True, 12.3456789, "ai:gpt")
        number = store.record(entry)
        (judged,) = store.current()
        assert judged.entry == entry
        assert (judged.id, judged.annotator, judged.created_at, judged.replaces) == (number, "Ann", TIME, None)
        assert judged.item == store.item("x")
        assert store.judgement(number) == judged
        assert store.log() == [judged]

    def test_sent_twice_is_one(self, store: Store, ann: str, bob: str) -> None:
        filled(store, item("x"), item("y"))
        entry = judgement("s", "x", ann, seconds=1.0)
        number = store.record(entry)
        assert store.record(entry) == number
        assert store.record(replace(entry, seconds=2.0)) == number, "a clock may have run on"
        for other in (
            replace(entry, preferred="b"),
            replace(entry, item_id="y"),
            replace(entry, annotator_id=bob),
            replace(entry, reason="why"),
            Entry("s", "x", ann, "skipped"),
        ):
            with pytest.raises(BadInput, match="submission: this submission said something else before"):
                store.record(other)
        with pytest.raises(BadInput, match="submission: this submission said something else before"):
            store.undo(ann, "s")
        assert [judged.entry for judged in store.log()] == [entry]

    def test_corrections_are_new_rows(self, store: Store, ann: str) -> None:
        filled(store, item("x"))
        first = store.record(judgement("1", "x", ann, "a"))
        second = store.record(judgement("2", "x", ann, "b"))
        third = store.record(Entry("3", "x", ann, "skipped"))
        assert [judged.replaces for judged in store.log()] == [None, first, second]
        assert [judged.id for judged in store.current()] == [third]
        assert store.progress("week-1") == BatchProgress(1, 1, 0, 1, 0)
        assert store.record(judgement("1", "x", ann, "a")) == first, "sent again, a corrected one changes nothing"
        assert [judged.id for judged in store.current()] == [third]

    def test_undo_takes_back_the_last_that_stands(self, store: Store, ann: str, bob: str) -> None:
        filled(store, item("x", overlap=2), item("y"))
        store.record(judgement("1", "x", ann))
        store.record(judgement("2", "y", ann, swapped=True, source="village"))
        store.record(judgement("3", "x", bob))
        number = store.undo(ann, "u1")
        assert store.undo(ann, "u1") == number
        withdrawn = store.judgement(number)
        assert withdrawn.entry == Entry("u1", "y", ann, "withdrawn", swapped=True, source="village")
        assert store.judgement(withdrawn.replaces).entry.submission == "2"
        assert [judged.entry.submission for judged in store.current()] == ["1", "3"]
        with pytest.raises(BadInput, match="submission: this judgement was taken back; load the page again"):
            store.record(judgement("2", "y", ann, swapped=True, source="village"))
        again = store.record(judgement("4", "y", ann, "b"))
        assert store.judgement(again).replaces is None, "what was withdrawn is not corrected"
        assert [store.judgement(store.undo(ann, name)).item.id for name in ("u2", "u3")] == ["y", "x"]
        assert store.undo(ann, "u4") is None
        assert [judged.entry.submission for judged in store.current()] == ["3"]
        assert len(store.log()) == 7
        with pytest.raises(BadInput, match="submission"):
            store.undo(bob, "u1")
        with pytest.raises(BadInput, match="submission"):
            store.record(judgement("u1", "y", ann))

    def test_a_correction_counts_as_new_when_undone(self, store: Store, ann: str) -> None:
        filled(store, item("x"), item("y"))
        store.record(judgement("1", "x", ann))
        store.record(judgement("2", "y", ann))
        store.record(judgement("3", "x", ann, "b"))
        store.undo(ann, "u")
        assert [judged.entry.submission for judged in store.current()] == ["2"]
        assert store.next_item(ann).id == "x"

    def test_of_one_item_and_the_last(self, store: Store, ann: str, bob: str) -> None:
        filled(store, item("x", overlap=2), item("y"))
        assert store.last(ann) is store.standing("x", ann) is None
        store.record(judgement("1", "x", ann))
        store.record(judgement("2", "y", ann))
        store.record(judgement("3", "x", bob))
        assert store.standing("x", ann) == store.current()[0]
        assert store.last(ann) == store.current()[1]
        store.record(judgement("4", "x", ann, "b"))
        assert store.last(ann) == store.standing("x", ann) == store.judgement(4)
        store.undo(ann, "u")
        assert store.standing("x", ann) is None
        assert store.last(ann).entry.submission == "2"

    def test_without_texts_long_answers_cost_nothing(self, store: Store, ann: str) -> None:
        long = [replace(item(f"i{n}", task="safety"), answer_a="a" * 1_000_000, answer_b="b" * 999_999) for n in "0123"]
        filled(store, *long, check("c"))
        for number, each in enumerate(store.items("week-1")):
            store.record(judgement(str(number), each.id, ann, safety_a=True, safety_b=True))
        whole = store.current()
        tracemalloc.start()
        light = store.current("week-1", texts=False)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 300_000
        assert [replace(each, item=whole[0].item) for each in light] == [replace(e, item=whole[0].item) for e in whole]
        for bare, full in zip(light, whole, strict=True):
            prompt = Prompt("", (), full.item.task)
            assert bare.item == replace(full.item, prompt=prompt, answer_a="", answer_b="")

    def test_what_stands_by_batch_and_annotator(self, store: Store, ann: str, bob: str) -> None:
        filled(store, item("x", overlap=2), batch="one")
        filled(store, item("y"), batch="two")
        for submission, name, annotator_id in (("1", "x", ann), ("2", "y", bob), ("3", "x", bob)):
            store.record(judgement(submission, name, annotator_id))
        assert [judged.id for judged in store.current("one")] == [1, 3]
        assert [judged.id for judged in store.current(annotator_id=bob)] == [2, 3]
        assert [judged.id for judged in store.current("one", bob)] == [3]
        assert [judged.id for judged in store.log("two")] == [2]

    @pytest.mark.parametrize(
        ("task", "fields", "what"),
        [
            ("helpfulness", {"submission": ""}, "submission: is not 1 to 200"),
            ("helpfulness", {"submission": "x" * 201}, "submission: is not 1 to 200"),
            ("helpfulness", {"submission": "a\nb"}, "submission: is not 1 to 200"),
            ("helpfulness", {"kind": "withdrawn", "preferred": None}, "kind: undo withdraws a judgement"),
            ("helpfulness", {"kind": "liked"}, "kind: 'liked' is not one of"),
            ("helpfulness", {"preferred": None}, "preferred: None is not one of a, b"),
            ("helpfulness", {"preferred": "A"}, "preferred: 'A' is not one of a, b"),
            ("helpfulness", {"rating": "best"}, "rating: 'best' is not one of"),
            ("helpfulness", {"seconds": -1.0}, "seconds: -1.0 is not a number ≥ 0"),
            ("helpfulness", {"seconds": float("nan")}, "seconds: nan is not a number ≥ 0"),
            ("helpfulness", {"source": "me"}, "source: 'me' is not person, village or KIND:NAME"),
            ("helpfulness", {"reason": "\x00"}, "reason: the text has a NUL character"),
            ("helpfulness", {"item_id": "nothing"}, "item: there is no item 'nothing'"),
            ("helpfulness", {"annotator_id": "nobody"}, "annotator: nobody has the id 'nobody'"),
            ("helpfulness", {"kind": "skipped"}, "preferred: a skipped item has none"),
            ("helpfulness", {"kind": "skipped", "preferred": None, "rating": "better"}, "rating: a skipped item has"),
            ("helpfulness", {"kind": "flagged", "preferred": None}, "reason: a flag needs a reason"),
            ("helpfulness", {"kind": "flagged", "preferred": None, "reason": " "}, "reason: a flag needs a reason"),
            ("helpfulness", {"safety_a": True}, "safety: both answers need a safety label"),
            ("safety", {}, "safety: both answers need a safety label"),
            ("safety", {"safety_b": True}, "safety: both answers need a safety label"),
            ("safety", {"safety_a": False, "safety_b": True}, "safety: the chosen answer is labelled unsafe"),
            ("safety", {"safety_a": True, "safety_b": False, "preferred": "b"}, "safety: the chosen answer is"),
            ("helpfulness", {"safety_a": False, "safety_b": True}, "safety: the chosen answer is labelled unsafe"),
        ],
    )
    def test_what_is_refused_leaves_nothing(
        self, store: Store, ann: str, task: Any, fields: dict[str, Any], what: str
    ) -> None:
        filled(store, item("x", task=task))
        with pytest.raises(BadInput) as error:
            store.record(replace(judgement("s", "x", ann), **fields))
        assert str(error.value).startswith(what)
        assert store.log() == []
        assert store.next_item(ann).id == "x"

    def test_who_retires_judges_no_more(self, store: Store, ann: str) -> None:
        filled(store, item("x"), item("y"))
        number = store.record(judgement("1", "x", ann))
        store.retire(ann)
        assert store.record(judgement("1", "x", ann)) == number
        with pytest.raises(BadInput, match="annotator: Ann is retired"):
            store.record(judgement("2", "y", ann))
        with pytest.raises(BadInput, match="annotator: Ann is retired"):
            store.undo(ann, "u")
        assert [judged.annotator for judged in store.current()] == ["Ann"]

    def test_progress(self, store: Store, ann: str, bob: str) -> None:
        filled(store, item("x", overlap=2), item("y"), check("c"))
        assert store.progress("week-1") == BatchProgress(3, 3, 0, 0, 0)
        assert (store.done("week-1"), store.done("w")) == ((0, 3), (0, 0))
        assert not store.progress("week-1").full
        store.record(judgement("1", "x", ann))
        store.record(judgement("2", "y", ann))
        store.record(judgement("3", "y", bob))
        assert store.progress("week-1") == BatchProgress(3, 3, 2, 0, 0, beyond=1, by_annotator={"Ann": 2, "Bob": 1})
        assert (store.done("week-1"), store.judged_by("week-1", ann)) == ((2, 3), 2)
        store.record(judgement("4", "x", bob))
        store.record(judgement("5", "c", bob))
        store.undo(bob, "u")
        assert store.progress("week-1").done == 3
        with pytest.raises(BadInput, match="there is no batch 'w'"):
            store.progress("w")


class TestComparisons:
    def test_of_what_stands(self, store: Store, ann: str, bob: str) -> None:
        filled(
            store,
            item("h", model_a="new", model_b="old", overlap=2),
            item("s", task="safety", overlap=2),
            check("c"),
            item("k"),
        )
        store.record(judgement("1", "h", ann, "b", rating="slightly_better"))
        store.record(judgement("2", "s", ann, "a", safety_a=True, safety_b=False, source="ai:judge"))
        store.record(judgement("3", "c", ann))
        store.record(Entry("4", "k", ann, "skipped"))
        store.record(judgement("5", "h", bob, "a", safety_a=False, safety_b=False))
        store.record(judgement("6", "s", bob, "b", safety_a=True, safety_b=True))
        h, s = store.item("h"), store.item("s")
        ours = {"batch": "week-1", "annotator": "Ann", "source": "person"}
        safe = {"task": "safety", **ours}
        assert comparisons(store.current()) == [
            Comparison(
                h.prompt,
                h.answer_b,
                h.answer_a,
                rating="slightly_better",
                model_chosen="old",
                model_rejected="new",
                **ours,
            ),
            Comparison(s.prompt, s.answer_a, s.answer_b, safety="chosen_safe", **safe | {"source": "ai:judge"}),
            Comparison(
                h.prompt,
                h.answer_a,
                h.answer_b,
                safety="both_unsafe",
                model_chosen="new",
                model_rejected="old",
                **ours | {"annotator": "Bob"},
            ),
            Comparison(s.prompt, s.answer_b, s.answer_a, safety="both_safe", **safe | {"annotator": "Bob"}),
        ]
