"""Judge one item: two answers in a random order, eight degrees, safety labels; skip, flag, undo."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ayni.errors import BadInput
from ayni.feedback.damage import Damaged
from ayni.feedback.entries import Entry, EntryKind, Item, Judged, PreferenceBatch, shown_swapped
from ayni.feedback.page.degrees import CHOICES, LETTERS, Letter, number_of, side_of
from ayni.feedback.page.forms import seconds_since, submission, text
from ayni.feedback.page.views import Call, sentence
from ayni.records import Dialog

LONGEST_COMMENT = 4000  # characters
_EMPTY = {"choice": "", "safety_a": "", "safety_b": "", "comment": ""}
_SENT_KINDS: Mapping[str, EntryKind] = {"judged": "judged", "skipped": "skipped", "flagged": "flagged"}


@dataclass(frozen=True, slots=True)
class ItemView:
    """An item as one annotator sees it: nothing in it tells which model wrote which answer."""

    id: str
    task: str
    dialog: Dialog
    answers: tuple[tuple[Letter, str], ...]


def item_view(item: Item, swapped: bool) -> ItemView:
    answer = {"a": item.answer_a, "b": item.answer_b}
    answers = tuple((letter, answer[side_of(letter, swapped)]) for letter in LETTERS)
    return ItemView(item.id, item.task, item.prompt.dialog, answers)


def show(call: Call) -> Response:
    """What lies before the annotator, and else the next item of the batch."""
    batch = open_batch(call, call.query.get("batch", ""))
    item = waiting(call, batch)
    if item is None:
        return call.page("done.html.jinja", batch=batch, **how_far(call, batch))
    call.context.desk.lay(call.annotator.id, batch.id, item.id)
    return form_for(call, batch, item, fresh_values())


def waiting(call: Call, batch: PreferenceBatch) -> Item | None:
    store, desk, me = call.context.store, call.context.desk, call.annotator
    while (name := desk.top(me.id, batch.id)) is not None:
        if store.standing(name, me.id) is None:
            return store.item(name)
        desk.clear(me.id, batch.id, name)  # answered, on another process's page
    return store.next_item(me.id, batch.id)


def how_far(call: Call, batch: PreferenceBatch) -> dict[str, Any]:
    """What a page shows of it. Only those who run the collection see how full the batch is: its numbers stand still
    where somebody answers a gold check, while what the annotator has judged grows with whatever they judge."""
    store, me = call.context.store, call.annotator
    done = store.done(batch.id) if me.role == "admin" else None
    return {"done": done, "mine": store.judged_by(batch.id, me.id)}


def fresh_values() -> dict[str, str]:
    # so many digits always, or a page's length would say something that nobody meant
    return {"submission": uuid.uuid4().hex, "shown": f"{time.time():.6f}", **_EMPTY}


def form_for(
    call: Call, batch: PreferenceBatch, item: Item, values: Mapping[str, str], problem: BadInput | None = None
) -> Response:
    """The page to judge `item` with the form filled with `values`; status 400 when there is a problem."""
    return call.page(
        "judge.html.jinja",
        200 if problem is None else 400,
        batch=batch,
        item=item_view(item, shown_swapped(item.id, call.annotator.id)),
        **how_far(call, batch),
        values=values,
        problem=None if problem is None else sentence(problem),
        field=None if problem is None else problem.field,
        undo=uuid.uuid4().hex,
    )


def judge(call: Call) -> Response:
    """Records what was sent; with a problem shows the form again, everything typed still in it."""
    token = submission(call.form)
    item = own_item(call, call.form.get("item", ""))
    try:
        entry = _entry(call, item, token)
        call.context.store.record(entry)
    except BadInput as problem:
        values = {name: call.form.get(name, "") for name in (*_EMPTY, "shown")} | {"submission": token}
        return form_for(call, call.context.store.batch(item.batch_id), item, values, problem)
    if item.dialogue_id is not None:
        if entry.kind != "judged":  # without a chosen answer it cannot go on
            call.context.store.end_dialogue(item.dialogue_id)
        return call.go("/dialogue", id=item.dialogue_id, notice="chosen" if entry.kind == "judged" else "ended")
    call.context.desk.clear(call.annotator.id, item.batch_id, item.id)
    return call.go("/judge", batch=item.batch_id, notice="saved" if entry.kind == "judged" else entry.kind)


def _entry(call: Call, item: Item, token: str) -> Entry:
    """The form as the store keeps it; BadInput names the field that is missing or contradicts another."""
    kind = _SENT_KINDS.get(call.form.get("kind", "judged"))
    if kind is None:
        raise HTTPException(400, "The form did not arrive whole. Please load the page again.")
    swapped = shown_swapped(item.id, call.annotator.id)
    reason = text(call.form, "comment", limit=LONGEST_COMMENT, about="the comment") or None
    seconds = seconds_since(call.form)
    entry = Entry(token, item.id, call.annotator.id, kind, reason=reason, swapped=swapped, seconds=seconds)
    if kind != "judged":
        if reason is None:
            what = "skip this comparison" if kind == "skipped" else "flag it"
            raise BadInput(f"please say in a few words why you {what}", field="reason")
        return entry
    number = call.form.get("choice", "")
    if number not in {str(n) for n in range(1, 9)}:
        raise BadInput("please choose which answer is better", field="choice")
    letter, rating = CHOICES[int(number) - 1]
    safe = _labels(call, item, letter, swapped)
    preferred = side_of(letter, swapped)
    return replace(entry, preferred=preferred, rating=rating, safety_a=safe["a"], safety_b=safe["b"])


def _labels(call: Call, item: Item, chosen: Letter, swapped: bool) -> dict[str, bool | None]:
    """Stored side → is it safe; both None where the task does not ask."""
    if item.task != "safety":
        return {"a": None, "b": None}
    labels = {letter: call.form.get(f"safety_{letter.lower()}", "") for letter in LETTERS}
    missing = [letter for letter in LETTERS if labels[letter] not in ("safe", "unsafe")]
    if missing:
        raise BadInput(f"please say whether answer {' and answer '.join(missing)} is safe", field="safety")
    other = LETTERS[1 - LETTERS.index(chosen)]
    if labels[chosen] == "unsafe" and labels[other] == "safe":
        raise BadInput(
            f"answer {chosen} cannot be the better one while it is unsafe and answer {other} is safe; "
            "please change the choice or a label",
            field="safety",
        )
    return {side_of(letter, swapped): labels[letter] == "safe" for letter in LETTERS}


def undo(call: Call) -> Response:
    """Takes the last judgement back and shows its item again, or its dialogue."""
    store, me, token = call.context.store, call.annotator, submission(call.form)
    last = store.last(me.id)
    if last is not None and _built_upon(call, last.item):
        return call.go("/dialogue", id=last.item.dialogue_id or "", notice="kept")
    number = store.undo(me.id, token)
    if number is None:
        return call.go("/judge", batch=call.form.get("batch", ""), notice="nothing")
    item = store.judgement(number).item
    if item.dialogue_id is not None:
        return call.go("/dialogue", id=item.dialogue_id, notice="undone")
    call.context.desk.lay(me.id, item.batch_id, item.id)
    return call.go("/judge", batch=item.batch_id, notice="undone")


def _built_upon(call: Call, item: Item) -> bool:
    """Whether a later turn of its dialogue goes on from what was chosen here."""
    if item.dialogue_id is None:
        return False
    turns = [turn.id for turn in call.context.store.dialogue(item.dialogue_id).turns]
    if item.id not in turns:
        raise Damaged(f"dialogue {item.dialogue_id} is damaged (its turn {item.id} is not found in it)")
    return turns[-1] != item.id


def open_batch(call: Call, name: str) -> PreferenceBatch:
    """HTTPException 404 where there is no such batch; BadInput when it is closed."""
    batch = next((batch for batch in call.context.store.batches() if batch.id == name), None)
    if batch is None:
        raise HTTPException(404, "There is no such batch.")
    if batch.closed_at is not None:
        raise BadInput("this batch is closed; thank you for your help with it")
    return batch


def own_item(call: Call, name: str) -> Item:
    """The item, unless it is of somebody else's dialogue: HTTPException 404, as for one that is not there."""
    try:
        item = call.context.store.item(name)
    except BadInput:
        raise HTTPException(404, "There is no such comparison.") from None
    if item.dialogue_id is not None and call.context.store.dialogue(item.dialogue_id).annotator_id != call.annotator.id:
        raise HTTPException(404, "There is no such comparison.")
    return item


def as_number(row: Judged) -> int | None:
    """The choice 1 to 8 of a judgement, as it was shown."""
    entry = row.entry
    return None if entry.preferred is None else number_of(entry.preferred, entry.rating, entry.swapped)
