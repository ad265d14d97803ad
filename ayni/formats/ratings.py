"""What people say of one answer: scores and thumbs (judgements), and an edit that puts the answer right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ayni.errors import BadInput
from ayni.formats.building import make_comparison, make_demonstration, make_prompt
from ayni.formats.fields import check_answer, check_text, finite, one_answer, prompt_dialog
from ayni.formats.format import Format, with_prompts
from ayni.formats.pairing import LABELS, liked
from ayni.formats.rows import Row, Skip, suffix_of
from ayni.records import Comparison, Demonstration, Judgement, Message

WORTH = ("score", "rating", "thumbs", "label")  # the first one that a row holds counts
EDITED_FROM = ("original", "response")


def ratings(row: Row) -> Iterator[Judgement]:
    """`prompt`, `response` (or `completion`) and a number or a thumb under `score`, `rating`, `thumbs` or `label`.

    Answers that nobody has rated are left out and counted.
    """
    field = "response" if "response" in row.value else "completion"
    prompt = make_prompt(row, prompt_dialog(row), "prompt")
    answer = one_answer(row, row.value.get(field), field)
    check_answer(row, prompt.dialog, check_text(row, answer, field), field)
    name = next((name for name in WORTH if row.value.get(name) not in (None, "")), None)
    if name is None:
        raise Skip("not rated")
    score, label = worth_of(row, row.value[name], name)
    yield Judgement(prompt, answer, score, label)


def worth_of(row: Row, value: Any, field: str) -> tuple[float | None, str | None]:
    """(score, None) of a number, (None, "up" or "down") of a truth value or a word; BadInput otherwise."""
    if isinstance(value, str) and suffix_of(row.path) == ".csv":  # where everything is text
        value = _number(value) if _number(value) is not None else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return finite(row, value, field), None
    up = value if isinstance(value, bool) else liked(value) if isinstance(value, str) else None
    if up is None:
        raise _unknown(row, value, field)
    return None, "up" if up else "down"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _unknown(row: Row, value: Any, field: str) -> BadInput:
    return row.error(f"{value!r} is neither a number nor a thumb up or down", field, fix=f"thumbs: {LABELS}")


def _edit(row: Row) -> tuple[str, str]:
    """(what the model said, what it should have said)"""
    field = next((name for name in EDITED_FROM if name in row.value), EDITED_FROM[0])
    for name in (field, "edited"):
        if name not in row.value:
            raise row.error("the field is missing", name)
    return one_answer(row, row.value[field], field), one_answer(row, row.value["edited"], "edited")


def edit_pairs(row: Row) -> Iterator[Comparison]:
    """`prompt`, `original` (or `response`) and `edited`: the edited answer is chosen. Unchanged ones are left out."""
    original, edited = _edit(row)
    if original.strip() == edited.strip():
        raise Skip("the edit changed nothing")
    yield make_comparison(row, prompt_dialog(row), edited, original, "prompt")


def edit_demonstrations(row: Row) -> Iterator[Demonstration]:
    """The edited answer as one to imitate, also where the editor left it as it was."""
    answer = Message("assistant", _edit(row)[1])
    yield replace(make_demonstration(row, (*prompt_dialog(row), answer), "edited"), train="last")


def _is_edit(row: Row) -> bool:
    return row.has("prompt", "edited") and row.has_any(*EDITED_FROM) and not row.has_any("chosen", "rejected")


def _is_rating(row: Row) -> bool:
    """Unpaired preferences (a completion with true or false) too: as demonstrations they would teach the disliked."""
    unpaired = row.has("completion") and isinstance(row.value.get("label"), bool)
    rated = row.has("response") and row.has_any(*WORTH)
    return row.has("prompt") and not row.has_any("chosen", "rejected") and (rated or unpaired)


EDITS = Format("edits", _is_edit, {**with_prompts("comparisons", edit_pairs), "demonstrations": edit_demonstrations})
RATING_ROWS = Format("ratings", _is_rating, with_prompts("judgements", ratings))
