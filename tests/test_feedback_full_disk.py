"""A full disk while something is saved: nobody is told that it was, nothing is lost, and with space all goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from feedback_cases import item, judgement
from full_disk import full, no_file_grows
from page_visitor import Visitor, echo, person, site
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from ayni import cli
from ayni.errors import NoRoom
from ayni.feedback.entries import PreferenceBatch
from ayni.feedback.store import Store, open_store

COMMENT = 'a "long" comment\nof two <lines>'


@pytest.fixture
def address(new_address: Callable[[], str]) -> str:
    address = new_address()
    with open_store(address) as store:
        store.add_batch(PreferenceBatch("week-1"), [item("ayllu"), item("quinoa")])
    return address


def test_the_page_keeps_what_was_sent_until_there_is_room(address: str) -> None:
    with open_store(address) as store, Visitor(site(store, talk=echo)) as rosa:
        rosa.sign_in(store.invite("Rosa"))
        rosa.go("/judge?batch=week-1")
        with full(address):
            for _ in range(2):
                answer = rosa.send(rosa.page.forms[-1].action, kind="judged", choice="2", comment=COMMENT)
                assert answer.status_code == 503
                assert "The disk is full, so this is not saved yet." in rosa.page.text
                assert "database" not in rosa.page.text
                assert COMMENT in rosa.page.text
            assert rosa.client.get("/judge?batch=week-1").status_code == 200, "who reads is not in the way"
        assert store.log() == []
        rosa.send("/judge")
        assert "Saved" in rosa.page.text
        (row,) = store.current()
        assert (row.entry.kind, row.entry.reason) == ("judged", COMMENT)
        assert store.check() == []


@pytest.mark.parametrize("path", ["/undo", "/write", "/sign-in", "/admin/invite", "/admin/close"])
def test_every_form_can_be_sent_again(address: str, path: str) -> None:
    with open_store(address) as store, Visitor(site(store, talk=echo)) as boss:
        boss.sign_in(store.invite("Boss", "admin"))
        store.record(judgement("1", "quinoa", person(store, "Boss").id))
        fields = {"submission": "0" * 32, "batch": "week-1", "task": "safety", "prompt": "Well?", "name": "Eve"}
        fields["invitation"] = store.invite("Inti")
        with full(address):
            assert boss.post(path, fields).status_code == 503
        assert boss.page.form(path).fields == fields
        assert boss.send(path).status_code == 200
        assert store.check() == []


def test_a_database_that_is_away_is_said_of_pages_too(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While PostgreSQL starts again, for one; the session is looked up before all else."""
    with open_store(address) as store, Visitor(site(store)) as rosa:
        rosa.sign_in(store.invite("Rosa"))
        rosa.go("/judge?batch=week-1")
        fields = rosa.page.form("/judge").fields | {"choice": "1"}
        with monkeypatch.context() as broken:
            broken.setattr("sqlalchemy.Engine.raw_connection", away)
            for answer in (rosa.go("/"), rosa.post("/judge", fields)):
                assert answer.status_code == 503
        rosa.send("/judge")
        assert len(store.current()) == 1


def away(engine: Engine) -> NoReturn:
    raise OperationalError("", None, Exception("the database system is starting up"))


OPERATIONS: dict[str, Callable[[Store, str], object]] = {
    "add_batch": lambda store, ann: store.add_batch(PreferenceBatch("week-2"), [item(f"n{n}") for n in range(50)]),
    "record": lambda store, ann: store.record(judgement("2", "quinoa", ann, reason="because " * 900)),
    "undo": lambda store, ann: store.undo(ann, "3"),
    "start_dialogue": lambda store, ann: store.start_dialogue("week-1", ann, "safety", "new"),
    "add_turn": lambda store, ann: store.add_turn("d", store.next_prompt("d", "Hello " * 999), "one", "two"),
    "enrol": lambda store, ann: store.enrol("Bob"),
    "invite": lambda store, ann: store.invite("Ann"),
    "retire": lambda store, ann: store.retire(ann),
    "close_batch": lambda store, ann: store.close_batch("week-1"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_wherever_the_disk_ends_an_operation_is_whole_or_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / "s.db"
    with open_store(str(path)) as store:
        store.add_batch(PreferenceBatch("week-1"), [item("ayllu"), item("quinoa")])
        ann = store.enrol("Ann").id
        store.record(judgement("1", "ayllu", ann))
        store.start_dialogue("week-1", ann, dialogue_id="d")
        before, refused, tries = rows(store), "", 0
        while refused is not None:
            room = path.with_name("s.db-wal").stat().st_size + 2048 * tries
            with no_file_grows(room):
                refused = failure(lambda: OPERATIONS[name](store, ann))
            if refused is not None:
                assert refused.startswith(f"{path}: no space left on the device")
                assert rows(store) == before
                tries += 1
        assert tries >= 2
        assert rows(store) != before
        assert store.check() == []


def failure(operation: Callable[[], object]) -> str | None:
    try:
        operation()
    except NoRoom as error:
        return str(error)
    return None


def rows(store: Store) -> list[object]:
    with store._database.read() as connection:
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        return [connection.exec_driver_sql(f"SELECT * FROM {name}").all() for name in names.scalars().all()]


def test_verbs_say_what_to_do_and_end_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "new.db")
    with no_file_grows():
        assert cli.run(["annotate", path, "--port", "0"]) == 3
    said = capsys.readouterr().err
    assert said == f"{path}: no space left on the device, or a limit of it is reached; free some and try again\n"
    with open_store(path) as store:
        assert store.check() == []
