"""Comparisons for other programs: prompt/chosen/rejected as TRL reads it, hh-rlhf transcripts, CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

from ayni.errors import BadInput
from ayni.records import Comparison, Dialog, Message, margin_of, message_dicts

_SPEAKERS = {"user": "Human", "assistant": "Assistant"}
_TURN = re.compile(r"\n\n(Human|Assistant):")
CSV_COLUMNS = (
    *("prompt_id", "prompt", "chosen", "rejected", "task", "rating", "margin", "safety"),
    *("annotator", "batch", "model_chosen", "model_rejected", "source", "finished_chosen", "finished_rejected"),
)
_FORMULA = "=+-@＝＋－＠"  # what a spreadsheet may take for a formula, in full width too
_INSIDE = re.compile(rf"([;\t\n][\s\"]*)(?=[{re.escape(_FORMULA)}])")  # a cell for one that splits there, quoted or not
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def trl_rows(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """`prompt`, `chosen` and `rejected` as lists of messages; `margin` in all rows where any row has a degree.

    A margin is the record's own, else what its rating says in the paper's larger margins (a file for others has no
    ratings, only numbers), else 0.
    """
    graded = any(c.margin is not None or c.rating is not None for c in comparisons)
    return [_trl(c) | ({"margin": margin_of(c, "large")} if graded else {}) for c in comparisons]


def _trl(c: Comparison) -> dict[str, Any]:
    chosen, rejected = ([{"role": "assistant", "content": answer}] for answer in (c.chosen, c.rejected))
    return {"prompt": message_dicts(c.prompt.dialog), "chosen": chosen, "rejected": rejected}


def hh_rows(comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    """Two transcripts each. Raises BadInput for what they cannot say: system messages, and texts that spell a turn."""
    return [
        {"chosen": _transcript(c.prompt.dialog, c.chosen, n), "rejected": _transcript(c.prompt.dialog, c.rejected, n)}
        for n, c in enumerate(comparisons, 1)
    ]


def _transcript(dialog: Dialog, answer: str, number: int) -> str:
    parts = []
    for message in (*dialog, Message("assistant", answer)):
        text = message.content.strip()
        if message.role == "system":
            what = "a transcript of hh-rlhf has no system messages"
            raise BadInput(what, field=f"comparison {number}", fix="export with --format trl or ayni")
        if (turn := _TURN.search(text)) is not None:
            what = f"in a transcript of hh-rlhf the text {turn[1]}: after a blank line would begin a turn"
            raise BadInput(what, field=f"comparison {number}", fix="export with --format trl or ayni")
        parts.append(f"\n\n{_SPEAKERS[message.role]}: {text}")
    return "".join(parts)


def csv_text(comparisons: Sequence[Comparison]) -> str:
    """A table for people. It begins with a byte order mark, by which spreadsheets know UTF-8."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(CSV_COLUMNS)
    for c in comparisons:
        values = {name: getattr(c, name) for name in CSV_COLUMNS if name not in ("prompt_id", "prompt")}
        values |= {"prompt_id": c.prompt.id, "prompt": _shown(c.prompt.dialog)}
        writer.writerow(["" if values[name] is None else cell(str(values[name])) for name in CSV_COLUMNS])
    return "\ufeff" + out.getvalue()


def _shown(dialog: Dialog) -> str:
    """One question as it is, a longer dialogue with who speaks."""
    if len(dialog) == 1:
        return dialog[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in dialog)


def cell(text: str) -> str:
    """The text as a cell that no program obeys: no formula, no terminal command, no hidden change of direction.

    A formula's sign gets an apostrophe before it, also after a semicolon, a tab or a line break; control characters but
    tabs and line breaks, and those that turn the direction of writing, become visible escapes.
    """
    text = text.replace("\r\n", "\n")
    first = text.lstrip(" \n")[:1]
    shown = "".join(_visible(c) for c in _INSIDE.sub(r"\1'", text))
    return f"'{shown}" if first and first in _FORMULA + "\t\r" else shown


def _visible(c: str) -> str:
    if c in _BIDI or c in "\u2028\u2029":
        return f"\\u{ord(c):04x}"
    return c if c in "\n\t" or not (ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0) else f"\\x{ord(c):02x}"
