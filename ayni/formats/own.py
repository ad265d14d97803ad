"""Our own records, as the stages write them."""

from __future__ import annotations

from collections.abc import Iterator

from ayni.errors import BadInput
from ayni.formats.building import check_answers
from ayni.formats.fields import check_answer, check_text, checked
from ayni.formats.format import Format, with_prompts
from ayni.formats.pairing import LABELS, liked
from ayni.formats.rows import Row
from ayni.records import Comparison, Constraint, Demonstration, Dialog, Judgement, Message, Principle, Prompt, from_dict
from ayni.text.chat import check_dialog


def own_comparisons(row: Row) -> Iterator[Comparison]:
    record = from_dict(Comparison, row.value, path=row.path, line=row.line)
    _check_prompt(row, record.prompt, "prompt.")
    yield check_answers(row, record)


def own_prompts(row: Row) -> Iterator[Prompt]:
    record = from_dict(Prompt, row.value, path=row.path, line=row.line)
    _check_prompt(row, record, "")
    yield record


def own_demonstrations(row: Row) -> Iterator[Demonstration]:
    record = from_dict(Demonstration, row.value, path=row.path, line=row.line)
    _check_texts(row, record.dialog, "dialog")
    checked(row, record.dialog, "dialog", last="assistant")
    yield record


def own_constraints(row: Row) -> Iterator[Constraint]:
    record = from_dict(Constraint, row.value, path=row.path, line=row.line)
    check_text(row, record.id, "id")
    for field in ("long", "short"):
        _check_said(row, check_text(row, getattr(record, field), field, blank=field == "short"), field)
    yield record


def own_principles(row: Row) -> Iterator[Principle]:
    record = from_dict(Principle, row.value, path=row.path, line=row.line)
    check_text(row, record.id, "id")
    for field in ("critique", "revision"):
        _check_said(row, check_text(row, getattr(record, field), field), field)
    yield record


def _check_said(row: Row, text: str, field: str) -> None:
    """BadInput for what no user's message can hold."""
    try:
        check_dialog((Message("user", text),))
    except BadInput as error:
        raise row.error(error.what, field) from None


def demonstrated_prompts(row: Row) -> Iterator[Prompt]:
    for record in own_demonstrations(row):
        yield Prompt(row.name, record.dialog[:-1], source=record.source)


def own_judgements(row: Row) -> Iterator[Judgement]:
    """One of `score` and `label`."""
    record = from_dict(Judgement, row.value, path=row.path, line=row.line)
    _check_prompt(row, record.prompt, "prompt.")
    check_answer(row, record.prompt.dialog, check_text(row, record.response, "response"), "response")
    if (record.score is None) == (record.label is None):
        raise row.error("give a score or a label, one of the two", "score")
    if record.label is not None and liked(record.label) is None:
        what = f"{record.label!r} is neither a number nor a thumb up or down"
        raise row.error(what, "label", fix=f"thumbs: {LABELS}")
    yield record


def _check_prompt(row: Row, prompt: Prompt, inside: str) -> None:
    check_text(row, prompt.id, f"{inside}id")
    _check_texts(row, prompt.dialog, f"{inside}dialog")
    checked(row, prompt.dialog, f"{inside}dialog", last="user")


def _check_texts(row: Row, dialog: Dialog, field: str) -> None:
    for index, message in enumerate(dialog):
        check_text(row, message.content, f"{field}.{index}.content")


def _is_comparison(row: Row) -> bool:
    return isinstance(row.value.get("prompt"), dict) or (row.has("dialog") and row.has_any("chosen", "rejected"))


def _is_judgement(row: Row) -> bool:
    return isinstance(row.value.get("prompt"), dict) and row.has("response") and not row.has_any("chosen", "rejected")


JUDGEMENT = Format("judgement", _is_judgement, with_prompts("judgements", own_judgements))
COMPARISON = Format("comparison", _is_comparison, with_prompts("comparisons", own_comparisons))
CONSTRAINT = Format("constraint", lambda row: row.has("id", "long"), {"constraints": own_constraints})
PRINCIPLE = Format("principle", lambda row: row.has("critique", "revision"), {"principles": own_principles})
PROMPT = Format(
    "prompt", lambda row: row.has("dialog") and row.has_any("id", "task", "category"), {"prompts": own_prompts}
)
DEMONSTRATION = Format(
    "demonstration",
    lambda row: row.has("dialog"),
    {"demonstrations": own_demonstrations, "prompts": demonstrated_prompts},
)
