"""What the store refuses before it writes anything: pure checks, each a BadInput that names the field."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection
from typing import Any

from ayni.errors import BadInput
from ayni.feedback.entries import ACCOUNT_ROLES, ENTRY_KINDS, SIDES, AccountRole, Entry, Item, PreferenceBatch
from ayni.records import RATINGS, Task

TASKS: tuple[Task, ...] = ("helpfulness", "safety")
_NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,199}")  # ids stand in addresses and file names
_SOURCE = re.compile(r"person|village|[a-z]+:\S.{0,199}")


def check_entry(entry: Entry, task: Task) -> None:
    """A judgement of an item of this task, complete and without contradiction (paper §3.2.1)."""
    check_submission(entry.submission)
    check_one_of(entry.kind, ENTRY_KINDS, "kind")
    check_text(entry.reason or "", "reason")
    if entry.seconds is not None and not (math.isfinite(entry.seconds) and entry.seconds >= 0):
        raise BadInput(f"{entry.seconds} is not a number ≥ 0", field="seconds")
    if not _SOURCE.fullmatch(entry.source):
        raise BadInput(f"{entry.source!r} is not person, village or KIND:NAME", field="source")
    if entry.kind == "judged":
        _check_judged(entry, task)
        return
    for field in ("preferred", "rating", "safety_a", "safety_b"):
        if getattr(entry, field) is not None:
            raise BadInput(f"a {entry.kind} item has none", field=field)
    if entry.kind == "flagged" and not (entry.reason or "").strip():
        raise BadInput("a flag needs a reason", field="reason")


def _check_judged(entry: Entry, task: Task) -> None:
    check_one_of(entry.preferred, SIDES, "preferred")
    if entry.rating is not None:
        check_one_of(entry.rating, RATINGS, "rating")
    labels = (entry.safety_a, entry.safety_b)
    if (labels[0] is None) != (labels[1] is None) or (task == "safety" and labels[0] is None):
        raise BadInput("both answers need a safety label", field="safety")
    if labels[0] is not None:
        chosen, rejected = labels if entry.preferred == "a" else labels[::-1]
        if rejected and not chosen:
            raise BadInput(
                "the chosen answer is labelled unsafe and the other one safe",
                field="safety",
                fix="choose the safe answer, or change the labels",
            )


def check_batch(batch: PreferenceBatch) -> None:
    check_id(batch.id, "batch")
    check_text(batch.guidelines, "guidelines")
    for task in batch.task_mix:
        check_one_of(task, TASKS, "task_mix")


def check_item(item: Item) -> None:
    check_id(item.id, "item")
    check_one_of(item.task, TASKS, "task")
    if item.overlap < 1:
        raise BadInput(f"{item.overlap} is not a count ≥ 1", field="overlap")
    if not item.prompt.dialog or item.prompt.dialog[-1].role != "user":
        raise BadInput("the dialogue does not end with the user", field="prompt")
    for field in ("answer_a", "answer_b", "model_a", "model_b"):
        check_text(getattr(item, field), field)
    about = (item.prompt.id, item.prompt.category, item.prompt.source, item.prompt.cluster)
    for text in (*about, *(m.content for m in item.prompt.dialog)):
        check_text(text, "prompt")
    if item.gold is not None:
        check_one_of(item.gold.preferred, SIDES, "gold.preferred")
        if item.gold.rating is not None:
            check_one_of(item.gold.rating, RATINGS, "gold.rating")


def check_submission(submission: str) -> None:
    if not re.fullmatch(r"[\x21-\x7e]{1,200}", submission):
        raise BadInput("is not 1 to 200 printable characters without spaces", field="submission")


def check_id(name: str, field: str) -> None:
    if not _NAMED.fullmatch(name):
        raise BadInput(
            f"{name!r} is not a name for it",
            field=field,
            fix="use up to 200 letters, digits and . _ : @ + -, a letter or digit first",
        )


def check_person(name: str, role: AccountRole) -> None:
    """Names are shown to others: no control characters, no invisible ones that turn text around."""
    if not 1 <= len(name) <= 100 or name != name.strip() or any(unicodedata.category(c)[0] == "C" for c in name):
        raise BadInput(f"{name[:100]!r} is not a name", field="name", fix="use 1 to 100 visible characters")
    check_one_of(role, ACCOUNT_ROLES, "role")


def check_text(text: str, field: str) -> None:
    """NUL and lone surrogates cannot be kept by every database."""
    if "\x00" in text:
        raise BadInput("the text has a NUL character", field=field, fix="leave it out")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadInput(f"character {error.start + 1} of the text is half a character", field=field) from None


def check_one_of(value: Any, allowed: Collection[str], field: str) -> None:
    if value not in allowed:
        raise BadInput(f"{value!r} is not one of {', '.join(allowed)}", field=field)
