"""Records out of the parts of a row, with whatever of our own fields the row has."""

from __future__ import annotations

from typing import cast

from ayni.formats.fields import check_answer, check_text, checked, optional_text
from ayni.formats.rows import Row, Skip
from ayni.records import Comparison, Demonstration, Dialog, Prompt, Task, comparable, from_dict

SAME = "the answers are the same"
MOST_RANKED = 100  # answers to one prompt: each is paired with each
PROMPT_KEYS = ("id", "task", "category", "source", "cluster")
OUR_FIELDS = (
    *("rating", "margin", "safety", "annotator", "batch", "model_chosen", "model_rejected", "source"),
    *("finished_chosen", "finished_rejected"),
)


def task_of(row: Row) -> Task:
    task = row.value.get("task") or "helpfulness"
    if task not in ("helpfulness", "safety"):
        raise row.error(f"{task!r} is not one of helpfulness, safety", "task")
    return cast(Task, task)


def make_prompt(row: Row, dialog: Dialog, field: str) -> Prompt:
    """The dialogue as a prompt of this row, without its last answer if it ends in one."""
    checked(row, dialog, field)
    return _prompt(row, dialog[:-1] if dialog[-1].role == "assistant" else dialog)


def _prompt(row: Row, dialog: Dialog) -> Prompt:
    source = optional_text(row, "source") or row.stem
    number = row.value.get("cluster")  # other people's clusters are often numbered
    cluster = str(number) if type(number) is int else optional_text(row, "cluster")
    return Prompt(row.name, dialog, task_of(row), optional_text(row, "category"), source, cluster)


def make_demonstration(row: Row, dialog: Dialog, field: str) -> Demonstration:
    checked(row, dialog, field, last="assistant")
    train = row.value.get("train", "all")
    if train not in ("all", "last"):
        raise row.error(f"{train!r} is not one of all, last", "train")
    return Demonstration(dialog, train, row.stem)


def check_answers(row: Row, comparison: Comparison) -> Comparison:
    """The comparison, if both answers may follow its prompt (which is checked); Skip where they are the same."""
    for name in ("chosen", "rejected"):
        answer = check_text(row, getattr(comparison, name), name)
        check_answer(row, comparison.prompt.dialog, answer, name)
    if not comparable(comparison.chosen, comparison.rejected):
        raise Skip(SAME)
    return comparison


def make_comparison(row: Row, dialog: Dialog, chosen: str, rejected: str, field: str) -> Comparison:
    """A comparison with whatever of our own fields the row has."""
    prompt = _prompt(row, checked(row, dialog, field, last="user"))
    ours = {key: row.value[key] for key in OUR_FIELDS if row.value.get(key) is not None}
    if ours.get("safety") in ("rejected_safe", "chosen_unsafe"):
        raise row.error("the chosen answer is unsafe and the rejected one safe", "safety", fix="leave such pairs out")
    answers = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "task": prompt.task}
    value = {"source": prompt.source, **ours, **answers}
    return check_answers(row, from_dict(Comparison, value, path=row.path, line=row.line))
