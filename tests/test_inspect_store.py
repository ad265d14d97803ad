"""`ayni inspect STORE` as a user meets it, and how a store is told from other files."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from feedback_cases import item
from panel import Simulated, fill
from tiny import tokenizer

from ayni import cli
from ayni.feedback.address import is_store
from ayni.feedback.entries import Entry, PreferenceBatch
from ayni.feedback.store import open_store
from ayni.quality.page_measures import quality_of

PANEL = (Simulated("Inti", 0.2), Simulated("Killa", 0.4), Simulated("Rosa", 0.6), Simulated("Coin", 1e6))


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    with open_store("week.db") as store:
        fill(store, PANEL, 0, items=30)
        store.add_batch(PreferenceBatch("week-2"), [item("late")])
        annotator_id = store.enrol("Inti").id
        store.record(Entry("flag", "late", annotator_id, "flagged", reason="\x1b[2J[bold]mean\u202e words"))
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.run(["inspect", *argv])
    return code, *capsys.readouterr()


def test_tables(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "week.db")
    assert (code, err) == (0, "")
    for text in ("AC2", "everybody", "not screened out", "week-1", "Killa", "100% of 42", "Coin: screened out: ",
                 "turns of dialogues", "flagged 1 ×", "in words"):  # fmt: skip
        assert text in out, text
    assert max(map(len, out.splitlines())) <= 80


def test_what_annotators_wrote_cannot_drive_the_terminal(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = call(capsys, "week.db")[1]
    assert "\ufffd[2j[bold]mean\ufffd words" in out
    assert not {"\x1b", "\u202e"} & set(out)


def test_json_is_one_object(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "week.db", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert list(found) == [
        "store", "judged", "agreement", "trusted", "tasks", "batches", "annotators", "results", "progress",
    ]  # fmt: skip
    assert found["judged"] == 30 * 3 + 42 * 4
    people = {each["name"]: each for each in found["annotators"]}
    assert people["Coin"]["screening"]["verdict"] == "screened out"
    assert people["Inti"]["checks"]["n"] == 42
    assert found["trusted"]["degree"]["value"] > found["agreement"]["degree"]["value"]
    assert found["batches"][0]["texts"]["unit"] == "words"
    assert found["progress"]["week-2"]["flagged"] == 1
    assert {row["metric"] for row in found["results"]} >= {"agreement_degree", "gold_checks"}


def test_a_tokenizer_counts_tokens(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer().save(directory / "tokenizer")
    found = json.loads(call(capsys, "week.db", "--model", "tokenizer", "--json")[1])
    texts = found["batches"][0]["texts"]
    assert texts["unit"] == "tokens"
    assert texts["example"] == pytest.approx(texts["prompt"] + texts["response"])
    words = json.loads(call(capsys, "week.db", "--json")[1])["batches"][0]["texts"]
    assert texts["prompt"] > words["prompt"]


def test_what_is_asked_of_records_only_is_refused(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "week.db", "--critic", "rm")
    assert code == 2
    assert err.startswith("critic: ")
    assert err.count("\n") == 1


def test_a_store_is_told_by_what_it_holds(directory: Path) -> None:
    with sqlite3.connect("other.db") as other:
        other.execute("CREATE TABLE songs (title TEXT)")
    other.close()
    Path("text.db").write_text("SQLite format 4\0 or so")
    Path("short.db").write_bytes(b"SQLite format 3\0")
    assert is_store("week.db")
    for address in ("postgresql://me@here/ayni", "postgresql+psycopg://here/ayni", "sqlite:///week.db"):
        assert is_store(address)
    for stranger in ("other.db", "text.db", "nothing.db", ".", "https://example.org/week.db"):
        assert not is_store(stranger)
    before = Path("week.db").read_bytes()
    assert is_store("week.db")
    assert Path("week.db").read_bytes() == before


def test_a_damaged_store_is_told_in_one_line(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Path("week.db").read_bytes()
    Path("broken.db").write_bytes(whole[:100] + b"\xff" * 4000 + whole[4100:])
    assert is_store("broken.db")
    code, _, err = call(capsys, "broken.db")
    assert code != 0
    assert err.count("\n") == 1
    assert "broken.db" in err


def test_ayni_annotate_shows_the_same_numbers(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("ayni.cli.annotate.annotate", lambda *given: asked.extend(given))
    assert cli.run(["annotate", "week.db"]) == 0
    assert (asked[0], asked[-1]) == ("week.db", quality_of)
