"""Is the store whole: the file itself, and what must hold between its tables. Reads everything, changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, case, func, inspect, literal, or_, select

from ayni.errors import BadInput
from ayni.feedback.damage import Damaged, intact, sound
from ayni.feedback.rows import annotator_from_row, batch_from_row, entry_of, item_of
from ayni.feedback.rules import check_batch, check_entry, check_item, check_person
from ayni.feedback.schema import dialogues, items, judgements, metadata, standing, tallies
from ayni.records import Dialog, Message, Prompt, from_json

SHOWN = 20  # problems of one sort that are listed


def check(connection: Connection) -> list[str]:
    """A line for each problem, at most `SHOWN` of a sort; empty when the store is whole."""
    for part in (_schema, _file, _rows):
        if found := list(islice(part(connection), SHOWN)):
            return found  # what a damaged file says of itself is worth nothing
    for what, query in _crooked():
        found += [f"{what}: {' '.join(str(value) for value in row)}" for row in connection.execute(query.limit(SHOWN))]
    return [*found, *islice(_entries(connection), SHOWN), *islice(_dialogues(connection), SHOWN)]


def _schema(connection: Connection) -> Iterator[str]:
    """Tables, columns, and the triggers that refuse changes to what was said."""
    there = inspect(connection)
    names = set(there.get_table_names())
    for table in metadata.sorted_tables:
        columns = {column["name"] for column in there.get_columns(table.name)} if table.name in names else set()
        for column in table.columns:
            if column.name not in columns:
                yield f"{table.name}.{column.name} is not there"
    triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    if connection.dialect.name != "sqlite":
        tables = "('items'::regclass, 'judgements'::regclass)"
        triggers = f"SELECT tgname FROM pg_trigger WHERE tgenabled <> 'D' AND tgrelid IN {tables}"
    guards = set(connection.exec_driver_sql(triggers).scalars()) if {"items", "judgements"} <= names else set()
    for guard in ("items_never_update", "items_never_delete", "judgements_never_update", "judgements_never_delete"):
        if guard not in guards:
            yield f"the trigger {guard} is not there"


def _file(connection: Connection) -> Iterator[str]:
    """SQLite's own checks; PostgreSQL keeps its foreign keys itself."""
    if connection.dialect.name == "sqlite":
        for (line,) in connection.exec_driver_sql(f"PRAGMA integrity_check({SHOWN})"):
            if line != "ok":
                yield f"the file is damaged: {line}"
        for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
            yield f"{table} row {row} names a row of {parent} that is not there"
        last = select(func.count(), func.coalesce(func.max(judgements.c.id), 0)).select_from(judgements)
        count, number = connection.execute(last).one()
        given = connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'judgements'").scalar() or 0
        if not count == number == given:  # a number is given once, and one that was not kept is given again
            yield f"judgements are missing: {given} were made and {count} are there"


def _rows(connection: Connection) -> Iterator[str]:
    """Every row read whole, as what it should be, and held against the rules it once passed."""
    for table in metadata.sorted_tables:
        rule = _RULES.get(table.name, lambda row: None)
        for number, row in enumerate(connection.execute(select(table)).yield_per(1000), 1):
            try:
                with intact(f"{table.name} row {number}"):
                    sound(table, dict(row._mapping))
                    rule(row)
            except Damaged as error:
                yield error.what


_RULES: dict[str, Callable[[Row[Any]], object]] = {
    "annotators": lambda row: check_person(row.name, annotator_from_row(row).role),
    "batches": lambda row: check_batch(batch_from_row(row)),
    "items": lambda row: check_item(item_of(row)),
}


def _crooked() -> Iterator[tuple[str, Select[Any]]]:
    """(what is wrong, the query whose rows have it)."""
    pair = (judgements.c.item_id, judgements.c.annotator_id)
    before = func.lag(judgements.c.id).over(partition_by=pair, order_by=judgements.c.id)
    before_kind = func.lag(judgements.c.kind).over(partition_by=pair, order_by=judgements.c.id)
    after = func.lead(judgements.c.id).over(partition_by=pair, order_by=judgements.c.id)
    row = select(judgements, before.label("before"), before_kind.label("before_kind"), after.label("after")).subquery()
    due = case((row.c.before_kind == "withdrawn", None), else_=row.c.before)
    yield (
        "judgement does not replace the one before it",
        select(row.c.id).where(or_(row.c.replaces.is_distinct_from(due), (row.c.kind == "withdrawn") & due.is_(None))),
    )
    last = select(row).where(row.c.after.is_(None), row.c.kind != "withdrawn").subquery()
    same = and_(standing.c.judgement_id == last.c.id, standing.c.kind == last.c.kind)
    yield (
        "judgement should stand and does not",
        select(last.c.id).outerjoin(standing, same).where(standing.c.item_id.is_(None)),
    )
    yield (
        "judgement stands and should not",
        select(standing.c.judgement_id).outerjoin(last, same).where(last.c.id.is_(None)),
    )
    owner = judgements.join(standing, standing.c.judgement_id == judgements.c.id)
    about = owner.join(items, items.c.id == standing.c.item_id)
    yield (
        "judgement stands in another's place",
        select(judgements.c.id)
        .select_from(about)
        .where(
            or_(
                standing.c.item_id != judgements.c.item_id,
                standing.c.annotator_id != judgements.c.annotator_id,
                standing.c.batch_id != items.c.batch_id,
            )
        ),
    )
    yield "item is tallied wrongly", _wrong_tallies()
    writer = judgements.join(items, items.c.id == judgements.c.item_id).join(
        dialogues, dialogues.c.id == items.c.dialogue_id
    )
    yield (
        "dialogue judged by another than its writer, in judgement",
        select(judgements.c.id).select_from(writer).where(judgements.c.annotator_id != dialogues.c.annotator_id),
    )
    yield (
        "items are missing from batch",
        select(items.c.batch_id)
        .group_by(items.c.batch_id)
        .having(or_(func.min(items.c.position) != 0, func.max(items.c.position) != func.count() - 1)),
    )
    yield (
        "dialogue misses a turn",
        select(items.c.dialogue_id)
        .where(items.c.dialogue_id.is_not(None))
        .group_by(items.c.dialogue_id)
        .having(or_(func.min(items.c.turn) != 1, func.max(items.c.turn) != func.count())),
    )


def _wrong_tallies() -> Select[Any]:
    judged = (
        select(func.count())
        .select_from(standing)
        .where(standing.c.item_id == items.c.id, standing.c.kind == "judged")
        .scalar_subquery()
    )
    lane = case(
        (items.c.dialogue_id.is_not(None), literal("dialogue")),
        (items.c.gold.is_not(None), literal("check")),
        else_=literal("queue"),
    )
    return (
        select(items.c.id)
        .outerjoin(tallies, tallies.c.item_id == items.c.id)
        .where(
            or_(
                tallies.c.item_id.is_(None),
                tallies.c.judged != judged,
                tallies.c.wanting != (tallies.c.judged < tallies.c.overlap),
                tallies.c.overlap != items.c.overlap,
                tallies.c.position != items.c.position,
                tallies.c.batch_id != items.c.batch_id,
                tallies.c.lane != lane,
            )
        )
    )


def _entries(connection: Connection) -> Iterator[str]:
    rows = connection.execute(
        select(judgements, items.c.task).join(items, items.c.id == judgements.c.item_id).order_by(judgements.c.id)
    )
    for row in rows.yield_per(1000):
        try:
            check_entry(entry_of(row), row.task)
        except BadInput as error:
            yield f"judgement {row.id}: {error}"


def _dialogues(connection: Connection) -> Iterator[str]:
    """Every turn goes on from the one before it and the answer preferred there."""
    columns = (items.c.dialogue_id, items.c.turn, items.c.prompt, items.c.answer_a, items.c.answer_b)
    turns = (
        select(*columns, judgements.c.preferred)
        .outerjoin(standing, standing.c.item_id == items.c.id)
        .outerjoin(judgements, judgements.c.id == standing.c.judgement_id)
        .where(items.c.dialogue_id.is_not(None))
        .order_by(items.c.dialogue_id, items.c.turn)
    )
    before: Dialog | None = ()  # what the next turn begins with; None: no answer is preferred, so there should be none
    now = None
    for row in connection.execute(turns).yield_per(100):
        if row.dialogue_id != now:
            now, before = row.dialogue_id, ()
        dialog = from_json(Prompt, row.prompt).dialog
        if before is None or dialog[:-1] != before:
            yield f"dialogue {now} does not go on from what was preferred before turn {row.turn}"
        answer = {"a": row.answer_a, "b": row.answer_b, None: None}[row.preferred]
        before = None if answer is None else (*dialog, Message("assistant", answer))
