"""Who comes in to the preference store, and the dialogues they write, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from feedback_cases import Clock, filled, item, judgement
from sqlalchemy import text

from ayni.errors import BadInput
from ayni.feedback.entries import Annotator, Dialogue, Entry
from ayni.feedback.records_of import comparisons
from ayni.feedback.store import Store, open_store
from ayni.records import Message, Prompt

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


class TestPeople:
    def test_enrolled_once(self, store: Store) -> None:
        ann, zoë = store.enrol("Ann", "admin"), store.enrol("Zoë 李")
        assert ann == Annotator(ann.id, "Ann", "admin", TIME)
        assert store.enrol("Ann", "admin") == store.annotator(ann.id) == ann
        assert store.annotators() == [ann, zoë]
        with pytest.raises(BadInput, match="role: Ann is already here as admin"):
            store.enrol("Ann")
        with pytest.raises(BadInput, match="annotator: nobody has the id 'x'"):
            store.annotator("x")

    @pytest.mark.parametrize("name", ["", " Ann", "A\nn", "A\x00n", "\u202egpj.exe", "n" * 101, "A\u200bnn"])
    def test_names_are_shown_to_others(self, store: Store, name: str) -> None:
        with pytest.raises(BadInput, match=r"^name: .* is not a name; use 1 to 100 visible characters$"):
            store.invite(name)
        assert store.annotators() == []

    def test_an_unknown_role(self, store: Store) -> None:
        with pytest.raises(BadInput, match="role: 'root' is not one of annotator, admin"):
            store.enrol("Ann", "root")

    def test_an_invitation_opens_once(self, store: Store) -> None:
        token = store.invite("Ann", "admin")
        session = store.accept(token)
        assert store.session(session) == store.annotators()[0]
        assert store.session(session).role == "admin"
        used = r"^invitation: this invitation was used or is out of date; ask for a new one$"
        with pytest.raises(BadInput, match=used):
            store.accept(token)
        for other in ("", "x", token + "x", session, "\ud800"):
            with pytest.raises(BadInput, match="invitation"):
                store.accept(other)
            assert store.session(other) == (store.annotators()[0] if other == session else None)

    def test_invitations_and_sessions_end(self, store: Store, clock: Clock) -> None:
        late, in_time = store.invite("Ann", days=7), store.invite("Ann", days=7)
        clock.go_on(6.99)
        session = store.accept(in_time, days=2)
        clock.go_on(0.02)
        with pytest.raises(BadInput, match="out of date"):
            store.accept(late)
        clock.go_on(1.97)
        assert store.session(session) is not None
        clock.go_on(0.02)
        assert store.session(session) is None

    def test_leaving(self, store: Store, ann: str) -> None:
        one, two = store.begin_session(ann), store.begin_session(ann)
        store.end_session(one)
        store.end_session(one)
        store.end_session("nothing")
        assert store.session(one) is None
        assert store.session(two).id == ann

    def test_who_retires_is_out(self, store: Store, ann: str, clock: Clock) -> None:
        session, token = store.begin_session(ann), store.invite("Ann")
        store.retire(ann)
        clock.go_on(1)
        store.retire(ann)
        assert store.annotator(ann).retired_at == TIME
        assert store.session(session) is None
        for refused in (
            lambda: store.accept(token),
            lambda: store.begin_session(ann),
            lambda: store.invite("Ann"),
            lambda: store.enrol("Ann"),
        ):
            with pytest.raises(BadInput, match="annotator: Ann is retired"):
                refused()

    def test_no_token_is_kept(self, store: Store) -> None:
        invitation = store.invite("Ann")
        session = store.accept(invitation)
        assert len(invitation) >= 43, "32 bytes"
        assert invitation != session
        with store._database.read() as connection:
            kept = [
                str(value)
                for table in ("annotators", "invitations", "sessions")
                for row in connection.execute(text(f"SELECT * FROM {table}"))
                for value in row
            ]
        assert len(kept) == 15
        assert not any(token in value for value in kept for token in (invitation, session))


class TestDialogues:
    def talk(self, store: Store, dialogue: Dialogue, message: str) -> str:
        """One more turn, not yet judged: its item's id."""
        prompt = store.next_prompt(dialogue.id, message)
        turn = store.add_turn(dialogue.id, prompt, f"a on {message}", f"b on {message}", model_a="new", model_b="old")
        return turn.id

    def test_three_turns_follow_the_preferred_answers(self, store: Store, ann: str) -> None:
        filled(store, item("x"))
        started = store.start_dialogue("week-1", ann, "safety")
        assert started == Dialogue(started.id, "week-1", ann, "safety", TIME)
        for number, preferred in ((1, "a"), (2, "b"), (3, "a")):
            turn = self.talk(store, started, f"message {number}")
            store.record(judgement(f"s{number}", turn, ann, preferred, safety_a=True, safety_b=True))
        store.end_dialogue(started.id)
        store.end_dialogue(started.id)
        dialogue = store.dialogue(started.id)
        assert [turn.turn for turn in dialogue.turns] == [1, 2, 3]
        assert [turn.position for turn in dialogue.turns] == [1, 2, 3], "after the batch's own item"
        assert {(turn.task, turn.overlap, turn.model_b) for turn in dialogue.turns} == {("safety", 1, "old")}
        assert dialogue.turns[2].prompt == Prompt(
            f"{started.id}.3",
            (
                Message("user", "message 1"),
                Message("assistant", "a on message 1"),
                Message("user", "message 2"),
                Message("assistant", "b on message 2"),
                Message("user", "message 3"),
            ),
            "safety",
            source="annotator",
            cluster=started.id,
        )
        assert dialogue.ended_at == TIME
        assert [comparison.chosen for comparison in comparisons(store.current())] == [
            "a on message 1",
            "b on message 2",
            "a on message 3",
        ]
        assert store.progress("week-1").turns == 3
        assert (store.progress("week-1").items, store.progress("week-1").done) == (1, 0)
        with pytest.raises(BadInput, match="dialogue: this dialogue has ended"):
            store.next_prompt(started.id, "one more")

    def test_a_turn_waits_for_the_choice(self, store: Store, ann: str) -> None:
        filled(store, item("x"))
        started = store.start_dialogue("week-1", ann)
        first = self.talk(store, started, "Hello")
        with pytest.raises(BadInput, match="dialogue: turn 1 is not judged; choose one of its answers first"):
            store.next_prompt(started.id, "And?")
        store.record(Entry("1", first, ann, "skipped"))
        with pytest.raises(BadInput, match="turn 1 is not judged"):
            store.next_prompt(started.id, "And?")
        store.record(judgement("2", first, ann))
        store.undo(ann, "3")
        with pytest.raises(BadInput, match="turn 1 is not judged"):
            store.next_prompt(started.id, "And?")
        store.record(judgement("4", first, ann, "b"))
        assert [message.content for message in store.next_prompt(started.id, "And?").dialog] == [
            "Hello",
            "b on Hello",
            "And?",
        ]

    def test_forms_sent_twice(self, store: Store, ann: str) -> None:
        filled(store, item("x"))
        started = store.start_dialogue("week-1", ann, dialogue_id="form-1")
        assert store.start_dialogue("week-1", ann, dialogue_id="form-1") == started
        with pytest.raises(BadInput, match="dialogue: this dialogue was started by somebody else, or for something"):
            store.start_dialogue("week-1", ann, "safety", "form-1")
        prompt = store.next_prompt("form-1", "Hello")
        turn = store.add_turn("form-1", prompt, "one", "two", sampling_a={"seed": 1})
        assert store.add_turn("form-1", prompt, "three", "four") == turn == store.item("form-1.1")
        assert (turn.sampling_a, turn.sampling_b, turn.heldout) == ({"seed": 1}, {}, False)
        other = Prompt(prompt.id, (Message("user", "Bye"),), source=prompt.source)
        with pytest.raises(BadInput, match="dialogue: this turn said something else before"):
            store.add_turn("form-1", other, "three", "four")
        store.record(judgement("1", turn.id, ann))
        with pytest.raises(BadInput, match="prompt: the prompt does not go on from the dialogue"):
            store.add_turn("form-1", Prompt("form-1.2", other.dialog, source=prompt.source), "three", "four")

    def test_only_the_writer_judges_and_nobody_is_given_it(self, store: Store, ann: str) -> None:
        bob = store.enrol("Bob").id
        filled(store)
        started = store.start_dialogue("week-1", ann)
        turn = self.talk(store, started, "Hello")
        assert store.next_item(ann) is store.next_item(bob) is None
        with pytest.raises(BadInput, match="annotator: only who writes a dialogue judges it"):
            store.record(judgement("1", turn, bob))
        assert store.dialogues(ann) == store.dialogues(ann, "week-1") == [store.dialogue(started.id)]
        assert store.dialogues(bob) == []

    def test_what_later_turns_build_on_stays(self, store: Store, ann: str) -> None:
        filled(store, item("x"))
        started = store.start_dialogue("week-1", ann)
        first = self.talk(store, started, "Hello")
        number = store.record(judgement("1", first, ann, "a"))
        second = self.talk(store, started, "And?")
        kept = r"^dialogue: later turns of the dialogue build on this choice, so it stays$"
        for refused in (
            lambda: store.record(judgement("2", first, ann, "b")),
            lambda: store.record(judgement("2", first, ann, "a", reason="so")),
            lambda: store.record(Entry("2", first, ann, "skipped")),
            lambda: store.undo(ann, "2"),
        ):
            with pytest.raises(BadInput, match=kept):
                refused()
        assert [judged.id for judged in store.log()] == [number]
        assert store.record(judgement("1", first, ann, "a")) == number, "sent again, it is still acknowledged"
        store.record(judgement("3", second, ann, "a"))
        store.record(judgement("4", second, ann, "b"))  # nothing builds on the last turn yet
        store.record(judgement("5", "x", ann))
        assert store.judgement(store.undo(ann, "6")).item.id == "x"
        assert store.judgement(store.undo(ann, "7")).item.id == second
        with pytest.raises(BadInput, match=kept):
            store.undo(ann, "8")
        assert [judged.id for judged in store.current()] == [number]

    def test_a_dialogue_that_does_not_follow_its_choices_is_found(self, new_address: Callable[[], str]) -> None:
        """Whoever writes to the tables without us is not kept from it, so `check` looks."""
        with open_store(new_address()) as store:
            filled(store)
            ann = store.enrol("Ann").id
            started = store.start_dialogue("week-1", ann)
            first = self.talk(store, started, "Hello")
            store.record(judgement("1", first, ann, "a"))
            self.talk(store, started, "And?")
            assert store.check() == []
            with store._database.write() as writer:
                row = "'2', item_id, annotator_id, kind, 'b', swapped, source, id, created_at"
                columns = "submission, item_id, annotator_id, kind, preferred, swapped, source, replaces, created_at"
                writer.execute(text(f"INSERT INTO judgements ({columns}) SELECT {row} FROM judgements"))
                writer.execute(text("UPDATE standing SET judgement_id = judgement_id + 1"))
            wrong = f"dialogue {started.id} does not go on from what was preferred before turn 2"
            assert store.check() == [wrong]

    def test_what_is_refused(self, store: Store, ann: str) -> None:
        filled(store)
        started = store.start_dialogue("week-1", ann)
        for refused, what in (
            (lambda: store.start_dialogue("w", ann), "there is no batch 'w'"),
            (lambda: store.start_dialogue("week-1", "x"), "nobody has the id 'x'"),
            (lambda: store.start_dialogue("week-1", ann, "maths"), "task: 'maths' is not one of"),
            (lambda: store.start_dialogue("week-1", ann, dialogue_id="a/b"), "dialogue: 'a/b' is not a name"),
            (lambda: store.start_dialogue("week-1", ann, dialogue_id=""), "dialogue: '' is not a name"),
            (lambda: store.next_prompt("d", "Hello"), "there is no dialogue 'd'"),
            (lambda: store.next_prompt(started.id, " \n"), "message: the message is empty"),
            (lambda: store.next_prompt(started.id, "\x00"), "message: the text has a NUL character"),
        ):
            with pytest.raises(BadInput) as error:
                refused()
            assert what in str(error.value)
        prompt = store.next_prompt(started.id, "Hello")
        store.close_batch("week-1")
        with pytest.raises(BadInput, match="batch week-1 is closed"):
            store.add_turn(started.id, prompt, "a", "b")
        assert store.dialogue(started.id).turns == ()
