"""Questions with answers known to be right and wrong: our own, and TruthfulQA's two files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ayni.formats.fields import check_answer, check_text, checked, optional_text, text_field
from ayni.formats.format import Format
from ayni.formats.rows import Row
from ayni.records import Message, Question, from_dict


def own_questions(row: Row) -> Iterator[Question]:
    value = {"id": row.name, **row.value}
    yield _sound(row, from_dict(Question, value, path=row.path, line=row.line), ("question", "correct", "incorrect"))


def truthfulqa_questions(row: Row) -> Iterator[Question]:
    """TruthfulQA.csv: answers stand in one cell, with semicolons between them."""
    names = ("Question", "Correct Answers", "Incorrect Answers")
    question, right, wrong = (text_field(row, name) for name in names)
    best = text_field(row, "Best Answer").strip()
    correct = [best, *(answer for answer in _split(right) if answer != best)]
    about = optional_text(row, "Category"), row.stem
    yield _sound(row, Question(row.name, question.strip(), tuple(correct), tuple(_split(wrong)), *about), names)


def truthfulqa_targets(row: Row) -> Iterator[Question]:
    """mc_task.json: `mc1_targets` has one right answer, the best; `mc2_targets` has all of them."""
    one, every = (_targets(row, field) for field in ("mc1_targets", "mc2_targets"))
    best = [answer for answer, right in one if right]
    correct = dict.fromkeys([*best, *(answer for answer, right in every if right)])
    incorrect = dict.fromkeys(answer for answer, right in [*one, *every] if not right)
    names = ("question", "mc2_targets", "mc2_targets")
    category = optional_text(row, "category")
    question = text_field(row, "question")
    yield _sound(row, Question(row.name, question, tuple(correct), tuple(incorrect), category, row.stem), names)


def _split(cell: str) -> list[str]:
    return [answer.strip() for answer in cell.split(";") if answer.strip()]


def _targets(row: Row, field: str) -> list[tuple[str, bool]]:
    value: Any = row.value.get(field, {})
    if not isinstance(value, dict) or not all(type(right) is int and right in (0, 1) for right in value.values()):
        raise row.error("expected an object of answers, each 1 or 0", field)
    return [(answer, bool(right)) for answer, right in value.items()]


def _sound(row: Row, found: Question, names: Sequence[str]) -> Question:
    """The question, if it can be asked and has answers of both sorts; BadInput under the `names` of its three parts."""
    check_text(row, found.id, "id")
    dialog = checked(row, (Message("user", check_text(row, found.question, names[0])),), names[0])
    for name, answers in zip(names[1:], (found.correct, found.incorrect), strict=True):
        if not answers:
            raise row.error("there is no answer", name)
        for answer in answers:
            check_answer(row, dialog, check_text(row, answer, name), name)
    if both := {*found.correct} & {*found.incorrect}:
        raise row.error(f"{min(both)!r} is both right and wrong", names[2])
    return found


QUESTION = Format("question", lambda row: row.has("question", "correct", "incorrect"), {"questions": own_questions})
TRUTHFULQA = Format(
    "truthfulqa",
    lambda row: row.has("Question", "Correct Answers", "Incorrect Answers"),
    {"questions": truthfulqa_questions},
)
TRUTHFULQA_TARGETS = Format(
    "truthfulqa_targets",
    lambda row: row.has("question") and row.has_any("mc1_targets", "mc2_targets"),
    {"questions": truthfulqa_targets},
)
