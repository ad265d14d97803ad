"""Comparisons for others: what is written reads back the same, as far as the format can say it, and harms nobody."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ayni.errors import BadInput
from ayni.files import write_jsonl
from ayni.formats.export import CSV_COLUMNS, cell, csv_text, hh_rows, trl_rows
from ayni.formats.reading import detect, read_comparisons
from ayni.records import RATINGS, Comparison, Dialog, Message, Prompt, to_dict


def dialog(*texts: str, system: str = "") -> Dialog:
    roles: Any = ["user", "assistant"] * len(texts)
    head = (Message("system", system),) if system else ()
    return (*head, *(Message(role, text) for role, text in zip(roles, texts, strict=False)))


def pair(
    asked: Dialog | str = "Who sings?", chosen: str = "The river.", rejected: str = "No.", **more: Any
) -> Comparison:
    asked = dialog(asked) if isinstance(asked, str) else asked
    return Comparison(Prompt("p", asked, more.get("task", "helpfulness")), chosen, rejected, **more)


MANY = [
    pair(rating="better", annotator="Jasper", batch="1", model_chosen="v2", model_rejected="v1", source="person"),
    pair(dialog("Hi", "Ho", "Hum"), "one\n\ntwo", " spaced ", task="safety", safety="chosen_safe", margin=0.5),
    pair("Ünïcode ✓ \u202e", "\N{GRINNING FACE}\tTab", '"quoted", comma'),
    pair(dialog("Now", system="Be brief.")),
]


def again(folder: Path, rows: list[dict[str, Any]]) -> list[Comparison]:
    write_jsonl(folder / "out.jsonl", rows)
    return read_comparisons(folder / "out.jsonl")


def test_our_own_lines_say_everything(tmp_path: Path) -> None:
    assert again(tmp_path, [to_dict(c) for c in MANY]) == MANY


def test_trl_rows_are_messages_with_a_margin(tmp_path: Path) -> None:
    rows = trl_rows(MANY)
    assert rows[0] == {
        "prompt": [{"role": "user", "content": "Who sings?"}],
        "chosen": [{"role": "assistant", "content": "The river."}],
        "rejected": [{"role": "assistant", "content": "No."}],
        "margin": 2.0,
    }
    assert [row["margin"] for row in rows] == [2.0, 0.5, 0.0, 0.0]
    assert {tuple(row) for row in rows} == {("prompt", "chosen", "rejected", "margin")}
    found = again(tmp_path, rows)
    assert detect(tmp_path / "out.jsonl").name == "pairs"
    kept = [(c.prompt.dialog, c.chosen, c.rejected, c.margin) for c in found]
    assert kept == [(c.prompt.dialog, c.chosen, c.rejected, m) for c, m in zip(MANY, (2, 0.5, 0, 0), strict=True)]


def test_trl_rows_without_degrees_have_no_margin() -> None:
    assert [list(row) for row in trl_rows([pair(), pair()])] == [["prompt", "chosen", "rejected"]] * 2
    assert [row["margin"] for row in trl_rows([pair(rating=rating) for rating in RATINGS])] == [3, 2, 1, 0]
    assert [row["margin"] for row in trl_rows([pair(rating="better", margin=0.25)])] == [0.25]


def test_hh_transcripts_read_back_but_for_blanks_at_the_ends(tmp_path: Path) -> None:
    rows = hh_rows(MANY[:3])
    assert rows[1]["chosen"] == "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: Hum\n\nAssistant: one\n\ntwo"
    found = again(tmp_path, rows)
    assert detect(tmp_path / "out.jsonl").name == "hh_rlhf"
    for ours, theirs in zip(MANY, found, strict=False):
        assert [m.content for m in theirs.prompt.dialog] == [m.content.strip() for m in ours.prompt.dialog]
        assert (theirs.chosen, theirs.rejected) == (ours.chosen.strip(), ours.rejected.strip())


UNSAYABLE: dict[str, tuple[Comparison, str]] = {
    "system": (pair(dialog("Hi", system="Be brief.")), "comparison 2: a transcript of hh-rlhf has no system messages"),
    "a turn in the prompt": (pair("a\n\nAssistant: b"), "comparison 2: in a transcript of hh-rlhf the text Assistant:"),
    "a turn in the answer": (pair(rejected="a\n\nHuman: b"), "the text Human: after a blank line would begin a turn"),
}


@pytest.mark.parametrize("case", UNSAYABLE)
def test_what_a_transcript_cannot_say_is_refused(case: str) -> None:
    comparison, says = UNSAYABLE[case]
    with pytest.raises(BadInput) as caught:
        hh_rows([pair(), comparison])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("export with --format trl or ayni")


def test_a_speaker_inside_a_line_is_no_turn(tmp_path: Path) -> None:
    tricky = pair("Human: you\nHuman: I\n Assistant: x", "Assistant: yes\n\n Human: no", "ok\n\nhuman: y")
    (found,) = again(tmp_path, hh_rows([tricky]))
    assert (found.prompt.dialog, found.chosen, found.rejected) == (tricky.prompt.dialog, tricky.chosen, tricky.rejected)


def rows_of(text: str) -> list[dict[str, str]]:
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


def test_a_table_for_people() -> None:
    rows = rows_of(csv_text(MANY))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert rows[0]["prompt"] == "Who sings?"
    assert (rows[0]["rating"], rows[0]["margin"], rows[0]["annotator"]) == ("better", "", "Jasper")
    assert rows[1]["prompt"] == "user: Hi\n\nassistant: Ho\n\nuser: Hum"
    assert (rows[1]["chosen"], rows[1]["margin"], rows[1]["safety"]) == ("one\n\ntwo", "0.5", "chosen_safe")
    assert rows[2]["rejected"] == '"quoted", comma'
    assert rows[3]["prompt"] == "system: Be brief.\n\nuser: Now"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-1+cmd|' /C calc'!A0", "'-1+cmd|' /C calc'!A0"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t'=1"),
        ("\r=1", "'\\x0d=1"),
        ("  =1", "'  =1"),
        ("\n=1", "'\n'=1"),
        ("a;=1", "a;'=1"),
        ('a; "+1"', 'a; "\'+1"'),
        ("a\t@1", "a\t'@1"),
        ("a\n-1+2", "a\n'-1+2"),
        ("a;\t\n＝1", "a;\t\n'＝1"),
        ("a; b - c, d", "a; b - c, d"),
        ("＝1", "'＝1"),
        ("1=1", "1=1"),
        ("a\r\nb", "a\nb"),
        ("a\rb", "a\\x0db"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b31m\x00", "\\x9b31m\\x00"),
        ("evil\u202egpj.exe\u2066", "evil\\u202egpj.exe\\u2066"),
        ("a\u2028b", "a\\u2028b"),
        ("\u202e=1", "\\u202e=1"),
        ("Ünïcode ✓", "Ünïcode ✓"),
    ],
)
def test_cells_that_no_program_obeys(text: str, shown: str) -> None:
    assert cell(text) == shown
    hostile = replace(pair(chosen=text, annotator=text, model_chosen=text), prompt=Prompt(text, dialog(text)))
    (row,) = rows_of(csv_text([hostile]))
    assert {row[name] for name in ("prompt_id", "prompt", "chosen", "annotator", "model_chosen")} == {shown}


def _trl(comparisons: list[Comparison]) -> list[dict[str, Any]]:
    return trl_rows(comparisons)


@pytest.mark.parametrize("shape", [_trl, hh_rows])
def test_real_comparisons_go_out_and_come_back(
    data_dir: Path, tmp_path: Path, shape: Callable[[list[Comparison]], list[dict[str, Any]]]
) -> None:
    real = read_comparisons(data_dir / "preferences" / "hh_harmless.jsonl.gz")[:600]
    found = again(tmp_path, shape(real))
    for ours, theirs in zip(real, found, strict=True):
        assert theirs.prompt.dialog == ours.prompt.dialog
        assert (theirs.chosen, theirs.rejected) == (ours.chosen, ours.rejected)


def test_hh_rows_are_those_of_the_published_file(data_dir: Path) -> None:
    """Out of our records comes, but for blanks, the very text that went in."""
    import gzip

    source = data_dir / "preferences" / "hh_harmless.jsonl.gz"
    published = {}
    for line in gzip.decompress(source.read_bytes()).decode().splitlines():
        row = json.loads(line)
        published["".join(row["chosen"].split()), "".join(row["rejected"].split())] = row
    for row in hh_rows(read_comparisons(source)[:300]):
        assert ("".join(row["chosen"].split()), "".join(row["rejected"].split())) in published
