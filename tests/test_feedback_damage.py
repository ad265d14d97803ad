"""A store that was damaged: `ayni inspect` sees it, nothing ends in a traceback, and a copy of it brings all back."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from feedback_cases import check, filled, item, judgement
from mutations import MUTATIONS
from page_visitor import Visitor, site
from sqlalchemy import text

from ayni import cli
from ayni.errors import AyniError
from ayni.feedback.damage import Damaged
from ayni.feedback.entries import Entry
from ayni.feedback.store import Store, open_store
from ayni.seeds import rng


def some_of_everything(store: Store) -> None:
    filled(store, *(item(f"i{n}", overlap=2, task="safety" if n == 3 else "helpfulness") for n in range(8)), check("c"))
    ann, bob = store.enrol("Ann", "admin").id, store.enrol("Bob").id
    for number in range(6):
        safety = {"safety_a": True, "safety_b": False} if number == 3 else {}
        store.record(judgement(f"a{number}", f"i{number}", ann, rating="better", seconds=9.5, **safety))
    store.record(judgement("b", "i0", bob, "b", reason="because"))
    store.record(Entry("s", "i1", bob, "skipped", reason="torn"))
    store.record(judgement("c", "c", bob))
    store.undo(bob, "u")
    talk = store.start_dialogue("week-1", ann)
    for number in range(2):
        turn = store.add_turn(talk.id, store.next_prompt(talk.id, f"Well {number}?"), "one", "two")
        store.record(judgement(f"t{number}", turn.id, ann))
    store.accept(store.invite("Ann", "admin"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "week.db"
    with open_store(str(path)) as store:
        some_of_everything(store)
        assert store.check() == []
    return path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "week.db"))


def damage(path: Path, statements: str) -> None:
    """As a program would that knows nothing of the store's own guards; they stand again afterwards."""
    with closing(sqlite3.connect(path)) as connection:
        guards = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in guards:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements.split(";"):
            connection.execute(statement)
        for _, sql in guards:
            connection.execute(sql)
        connection.commit()


DAMAGE = {
    "a judgement in the middle": "UPDATE standing SET judgement_id = 99 WHERE judgement_id = 2;"
    "DELETE FROM judgements WHERE id = 2; DELETE FROM standing WHERE judgement_id = 99;"
    "UPDATE tallies SET judged = 0 WHERE item_id = 'i1'",
    "the last judgement": "DELETE FROM standing WHERE judgement_id = 12; DELETE FROM judgements WHERE id = 12;"
    "UPDATE tallies SET judged = judged - 1 WHERE lane = 'dialogue' AND position = 10",
    "an item and all about it": "DELETE FROM tallies WHERE item_id = 'i7'; DELETE FROM items WHERE id = 'i7'",
    "an annotator": "DELETE FROM annotators WHERE name = 'Bob'",
    "a tally": "DELETE FROM tallies WHERE item_id = 'i2'",
    "a count": "UPDATE tallies SET judged = 2, wanting = 0 WHERE item_id = 'i2'",
    "what stands": "DELETE FROM standing WHERE item_id = 'i2'",
    "a batch": "DELETE FROM batches",
    "a time": "UPDATE judgements SET created_at = '2026-11-2x' WHERE id = 3",
    "a role": "PRAGMA ignore_check_constraints = 1; UPDATE annotators SET role = 'king' WHERE name = 'Bob'",
    "a kind": "PRAGMA ignore_check_constraints = 1; UPDATE judgements SET kind = 'judgee' WHERE id = 3",
    "a rating": "UPDATE judgements SET rating = 'bettes' WHERE id = 3",
    "a safety label": "UPDATE judgements SET safety_a = NULL WHERE id = 4",
    "a name": "UPDATE annotators SET name = name || char(8)",
    "a prompt": "UPDATE items SET prompt = substr(prompt, 2) WHERE id = 'i2'",
    "a prompt's end": """UPDATE items SET prompt = replace(prompt, '"user"', '"system"') WHERE id = 'i2'""",
    "settings": "UPDATE batches SET settings = '[1]'",
    "a known answer": """UPDATE items SET gold = '{"preferred":"x"}' WHERE id = 'c'""",
    "deep JSON": "UPDATE items SET sampling_a = replace(hex(zeroblob(50000)), '00', '[') WHERE id = 'i2'",
    "bytes for text": "UPDATE items SET answer_a = CAST(answer_a AS BLOB) WHERE id = 'i2'",
    "text that is no UTF-8": "UPDATE items SET answer_a = CAST(x'68ff' AS TEXT) WHERE id = 'i2'",
    "text for a number": "UPDATE judgements SET seconds = 'long' WHERE id = 3",
    "a history": "UPDATE judgements SET replaces = 1 WHERE id = 3",
    # Two indexes in each other's place: a dialogue is there, its turns are not.
    "indexes": "PRAGMA writable_schema = 1; UPDATE sqlite_master SET rootpage ="
    " (SELECT sum(rootpage) FROM sqlite_master WHERE name GLOB '*_items_[23]') - rootpage"
    " WHERE name GLOB '*_items_[23]'",
    "a table": "DROP TABLE standing",
    "a column": "ALTER TABLE batches DROP COLUMN guidelines",
}


def inspected(path: Path, capsys: pytest.CaptureFixture[str], *verb: str) -> tuple[int, str]:
    capsys.readouterr()
    code = cli.run([*(verb or ("inspect",)), str(path)])
    said = capsys.readouterr().err
    assert said.count("\n") <= 1, said
    return code, said


@pytest.mark.parametrize("what", DAMAGE)
def test_inspect_sees(what: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(copy, DAMAGE[what])
    code, said = inspected(copy, capsys)
    assert code == 2
    assert said.startswith(str(copy))
    assert said.endswith("; take a copy of the store back\n")
    visit(copy, what)


def test_inspect_sees_guards_that_are_gone(new_address: Callable[[], str]) -> None:
    address = new_address()
    with open_store(address) as store:
        drop = "DROP TRIGGER items_never_delete"
        with store._database.write() as writer:
            writer.execute(text(drop if "sqlite" in address else f"{drop} ON items"))
        assert store.check() == ["the trigger items_never_delete is not there"]


def test_a_table_that_is_gone_from_postgresql(new_postgresql: Callable[[], str]) -> None:
    with open_store(new_postgresql()) as store:
        some_of_everything(store)
        with store._database.write() as writer:
            writer.execute(text("DROP TABLE standing"))
        assert store.check()[0] == "standing.item_id is not there"
        with pytest.raises(Damaged, match="standing"):
            store.next_item(store.annotators()[0].id)


def test_json_lists_the_problems(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(copy, "UPDATE tallies SET position = position + 1 WHERE item_id IN ('i1', 'i2')")
    assert cli.run(["inspect", "--json", str(copy)]) == 2
    out = capsys.readouterr().out
    assert '"problems": ["item is tallied wrongly: i1", "item is tallied wrongly: i2"]' in out


def mutations(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Flipped bits, pages of noise, cut ends: what disks and bad copies do."""
    for number in range(MUTATIONS):
        draw = rng("damage", number)
        sort = ("bit", "bits", "page", "end", "text")[number % 5]
        at, changed = int(draw.integers(100, len(content))), bytearray(content)
        if sort == "end":
            changed = changed[:at]
        elif sort == "page":
            at -= at % 4096
            changed[at : at + 4096] = draw.bytes(4096)
        elif sort == "text":  # where rows are: SQLite fills its pages from their ends
            at = (1 + at // 4096) * 4096 - int(draw.integers(1, 1500))
            changed[min(at, len(content) - 1)] ^= 1 << int(draw.integers(8))
        else:
            for place in draw.integers(100, len(content), 1 if sort == "bit" else 20):
                changed[place] ^= 1 << int(draw.integers(8))
        yield f"{sort} {number}", bytes(changed)


def test_whatever_was_damaged_is_one_line(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = 0
    for what, content in mutations(whole.read_bytes()):
        broken = tmp_path / "broken.db"
        for left in tmp_path.iterdir():
            left.unlink()
        broken.write_bytes(content)
        code, said = inspected(broken, capsys)
        assert code in (0, 2), (what, said)
        seen += code == 2
        export = cli.run(["export", str(broken), "out.jsonl", "--format", "ayni"])
        assert export in (0, 1, 2), what
        visit(broken, what)
    assert seen > MUTATIONS / 3


def visit(path: Path, what: str) -> None:
    """The pages of an admin: each is there, or says that it cannot be."""
    try:
        with open_store(str(path)) as store:
            visitor = Visitor(site(store, require_login=False, local=store.enrol("Ann", "admin")))
            for page in ("/", "/judge?batch=week-1", "/admin"):
                assert visitor.go(page).status_code in (200, 400, 404, 503), what
            visitor.post("/undo", {"submission": "0" * 32, "batch": "week-1"})
            assert visitor.at.status_code in (200, 303, 400, 404, 503), what
    except AyniError:
        pass
