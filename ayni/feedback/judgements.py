"""The log of judgements: rows are added, never changed. A correction or a withdrawal is a new row that replaces one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, select, update

from ayni.errors import BadInput
from ayni.feedback.accounts import active, stamp
from ayni.feedback.batches import closed, items_where, open_batch
from ayni.feedback.damage import intact
from ayni.feedback.entries import Entry, Judged
from ayni.feedback.rows import entry_of
from ayni.feedback.rules import check_entry, check_submission
from ayni.feedback.schema import annotators, batches, dialogues, items, judgements, standing, tallies


def record(connection: Connection, now: datetime, entry: Entry) -> int:
    """The id of the new row, or of the one that this submission made before; `seconds` may differ when sent again.

    A second judgement of the same item by the same annotator corrects the first; BadInput for a dialogue's turn that
    later turns build on, and for a submission that `undo` took back: to say that it is saved would not be true.
    """
    before = _submitted(connection, entry.submission)
    if before is not None:
        if asdict(entry_of(before)) | {"seconds": None} != asdict(entry) | {"seconds": None}:
            raise BadInput("this submission said something else before", field="submission")
        withdrawn = (judgements.c.replaces == before.id) & (judgements.c.kind == "withdrawn")
        if connection.execute(select(judgements.c.id).where(withdrawn)).first() is not None:
            raise BadInput("this judgement was taken back", field="submission", fix="load the page again to judge anew")
        return before.id
    about = _about(connection, entry)
    if about is None:
        raise BadInput(f"there is no item {entry.item_id!r}", field="item")
    if entry.kind == "withdrawn":
        raise BadInput("undo withdraws a judgement, record does not", field="kind")
    check_entry(entry, about.task)
    active(connection, entry.annotator_id)
    if about.closed_at is not None:
        raise closed(about.batch_id)
    if about.writer not in (None, entry.annotator_id):
        raise BadInput("only who writes a dialogue judges it", field="annotator")
    if about.dialogue_id is not None:
        _check_open_end(connection, entry.item_id)
    number = _append(connection, now, entry, about.judgement_id)
    if about.judgement_id is None:
        key = {"item_id": entry.item_id, "annotator_id": entry.annotator_id, "batch_id": about.batch_id}
        connection.execute(insert(standing).values(**key, judgement_id=number, kind=entry.kind))
    else:
        mine = standing.c.judgement_id == about.judgement_id
        connection.execute(update(standing).where(mine).values(judgement_id=number, kind=entry.kind))
    _count(connection, entry.item_id, (entry.kind == "judged") - (about.kind == "judged"))
    return number


def undo(connection: Connection, now: datetime, annotator_id: str, submission: str) -> int | None:
    """The id of a new row that withdraws the annotator's last standing judgement; None when there is none.

    BadInput when that is a dialogue's turn that later turns build on.
    """
    check_submission(submission)
    before = _submitted(connection, submission)
    if before is not None:
        if (before.kind, before.annotator_id) != ("withdrawn", annotator_id):
            raise BadInput("this submission said something else before", field="submission")
        return before.id
    active(connection, annotator_id)
    last = connection.execute(_last_of(annotator_id)).one_or_none()
    if last is None:
        return None
    open_batch(connection, last.batch_id)
    _check_open_end(connection, last.item_id)
    was = connection.execute(select(judgements).where(judgements.c.id == last.judgement_id)).one()
    entry = Entry(submission, last.item_id, annotator_id, "withdrawn", swapped=was.swapped, source=was.source)
    number = _append(connection, now, entry, last.judgement_id)
    connection.execute(delete(standing).where(standing.c.judgement_id == last.judgement_id))
    _count(connection, last.item_id, -(last.kind == "judged"))
    return number


def current(connection: Connection, batch_id: str | None, annotator_id: str | None, texts: bool = True) -> list[Judged]:
    """What stands, one row per (item, annotator), in the order it was said; the items with or without their texts."""
    rows = _log().join(standing, standing.c.judgement_id == judgements.c.id)
    return list(_judged(connection, rows, batch_id, annotator_id, texts))


def standing_of(connection: Connection, item_id: str, annotator_id: str) -> Judged | None:
    """What stands of this item by this annotator."""
    mine = (standing.c.item_id == item_id) & (standing.c.annotator_id == annotator_id)
    number = connection.scalars(select(standing.c.judgement_id).where(mine)).one_or_none()
    return None if number is None else judgement(connection, number)


def last(connection: Connection, annotator_id: str) -> Judged | None:
    """The annotator's last judgement that stands: what `undo` would take back."""
    row = connection.execute(_last_of(annotator_id)).one_or_none()
    return None if row is None else judgement(connection, row.judgement_id)


def log(connection: Connection, batch_id: str | None, annotator_id: str | None) -> list[Judged]:
    """Every row ever recorded, in order: what stands, what was corrected and what was withdrawn."""
    return list(_judged(connection, _log(), batch_id, annotator_id))


def judgement(connection: Connection, number: int) -> Judged:
    """One row of the log by its id."""
    found = list(_judged(connection, _log().where(judgements.c.id == number), None, None))
    if not found:
        raise BadInput(f"there is no judgement {number}", field="judgement")
    return found[0]


def _about(connection: Connection, entry: Entry) -> Row[Any] | None:
    """All that must be known of the item, in one question; `judgement_id` and `kind` of what this annotator said."""
    mine = (standing.c.item_id == items.c.id) & (standing.c.annotator_id == entry.annotator_id)
    of_item = (items.c.task, items.c.batch_id, items.c.dialogue_id)
    of_others = (
        batches.c.closed_at,
        dialogues.c.annotator_id.label("writer"),
        standing.c.judgement_id,
        standing.c.kind,
    )
    question: Select[Any] = (
        select(*of_item, *of_others)
        .join(batches, batches.c.id == items.c.batch_id)
        .outerjoin(dialogues, dialogues.c.id == items.c.dialogue_id)
        .outerjoin(standing, mine)
        .where(items.c.id == entry.item_id)
    )
    return connection.execute(question).one_or_none()


def _last_of(annotator_id: str) -> Select[Any]:
    mine = select(standing).where(standing.c.annotator_id == annotator_id)
    return mine.order_by(standing.c.judgement_id.desc()).limit(1)


def _check_open_end(connection: Connection, item_id: str) -> None:
    """BadInput for a turn that a later one of its dialogue goes on from."""
    later = items.alias()
    next_turn = (later.c.dialogue_id == items.c.dialogue_id) & (later.c.turn == items.c.turn + 1)
    if connection.execute(select(later.c.id).join(items, next_turn).where(items.c.id == item_id)).first() is not None:
        raise BadInput("later turns of the dialogue build on this choice, so it stays", field="dialogue")


def _log() -> Select[Any]:
    return select(judgements, annotators.c.name).join(annotators, annotators.c.id == judgements.c.annotator_id)


def _judged(
    connection: Connection, rows: Select[Any], batch_id: str | None, annotator_id: str | None, texts: bool = True
) -> Iterator[Judged]:
    if annotator_id is not None:
        rows = rows.where(judgements.c.annotator_id == annotator_id)
    if batch_id is not None:
        rows = rows.where(judgements.c.item_id.in_(select(items.c.id).where(items.c.batch_id == batch_id)))
    about = rows.with_only_columns(judgements.c.item_id)
    by_id = {item.id: item for item in items_where(connection, items.c.id.in_(about), texts)}
    for row in connection.execute(rows.order_by(judgements.c.id)):
        with intact(f"judgement {row.id}"):
            found = Judged(row.id, entry_of(row), by_id[row.item_id], row.name, row.created_at, row.replaces)
        yield found


def _submitted(connection: Connection, submission: str) -> Row[Any] | None:
    return connection.execute(select(judgements).where(judgements.c.submission == submission)).one_or_none()


def _append(connection: Connection, now: datetime, entry: Entry, replaces: int | None) -> int:
    values = asdict(entry) | {"replaces": replaces, "created_at": stamp(now)}
    return connection.execute(insert(judgements).values(**values).returning(judgements.c.id)).scalar_one()


def _count(connection: Connection, item_id: str, change: int) -> None:
    judged = tallies.c.judged + change
    connection.execute(
        update(tallies).where(tallies.c.item_id == item_id).values(judged=judged, wanting=judged < tallies.c.overlap)
    )
