"""Which fields of somebody's own table hold the prompt and the two answers: annotation tools leave the names free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ayni.formats.building import SAME
from ayni.formats.fields import check_text, checked, messages
from ayni.formats.rows import Row, Skip
from ayni.records import Dialog, Message

PROMPTS = ("prompt", "instruction", "question", "query", "input", "messages", "dialog", "conversation", "chat")
ANSWERS = ("answer", "response", "completion", "output", "reply", "candidate", "generation", "summary", "text", "")
MODEL_STEM = "model"
FINISHED_STEM = "finished"
_NUMBERED = re.compile(r"(.*?)[-_ ]?(1|2|a|b|left|right)", re.I | re.S)
_SIDES = ({"1": 0, "2": 1}, {"a": 0, "b": 1}, {"left": 0, "right": 1})


def find_dialog(row: Row, table: Mapping[str, Any], where: str = "") -> Dialog:
    """The prompt as text or messages, under the first known name; a text `context` beside it follows a blank line."""
    name = next((name for name in PROMPTS if table.get(name) is not None), None)
    if name is None:
        fix = f"call its field {', '.join(PROMPTS[:4])} …"
        raise row.error("no field holds the prompt", where or None, fix=fix)
    field = f"{where}.{name}" if where else name
    value = table[name]
    if isinstance(value, list):
        return checked(row, messages(row, value, field), field, last="user")
    text, context = check_text(row, value, field), table.get("context")
    if isinstance(context, str) and context.strip():
        text = f"{text}\n\n{context}"
    return checked(row, (Message("user", text),), field)


def numbered(table: Mapping[str, Any], stem: str) -> tuple[str, str] | None:
    """The names of two text fields that differ in 1 and 2, a and b, or left and right after this stem."""
    for sides in _SIDES:
        pair: list[str | None] = [None, None]
        for name, value in table.items():
            found = _NUMBERED.fullmatch(name)
            if found and isinstance(value, str) and found[1].lower() == stem and found[2].lower() in sides:
                pair[sides[found[2].lower()]] = name
        if pair[0] is not None and pair[1] is not None:
            return pair[0], pair[1]
    return None


def find_answers(table: Mapping[str, Any]) -> tuple[str, str] | None:
    """The names of the two answers, the first or left one first; None where no two fields look like it."""
    return next((pair for stem in ANSWERS if (pair := numbered(table, stem))), None)


def different(row: Row, table: Mapping[str, Any], names: tuple[str, str], where: str = "") -> tuple[str, str]:
    """The texts of the two answers; Skip where one is empty or both are the same, as real exports have them."""
    texts = []
    for name in names:
        text = check_text(row, table.get(name), f"{where}.{name}" if where else name, blank=True)
        if not text.strip():
            raise Skip("an answer is empty")
        texts.append(text)
    if texts[0].strip() == texts[1].strip():
        raise Skip(SAME)
    return texts[0], texts[1]


def known_fields(table: Mapping[str, Any]) -> dict[str, Any]:
    """Those of our own fields that a stranger's table can mean: the task where it names one of ours, and texts."""
    kept = {
        name: table[name] for name in ("category", "source", "cluster", "batch") if isinstance(table.get(name), str)
    }
    if table.get("task") in ("helpfulness", "safety"):
        kept["task"] = table["task"]
    return kept
