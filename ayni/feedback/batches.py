"""Batches and their items: in whole or not at all, then only read; and how far each batch is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, insert, select, update

from ayni.errors import BadInput
from ayni.feedback.accounts import stamp
from ayni.feedback.entries import BatchProgress, Item, PreferenceBatch
from ayni.feedback.rows import TEXTS, batch_from_row, batch_row, item_of, item_row
from ayni.feedback.rules import check_batch, check_item
from ayni.feedback.schema import annotators, batches, items, standing, tallies


def add_batch(connection: Connection, now: datetime, batch: PreferenceBatch, members: Sequence[Item]) -> None:
    """BadInput when the batch's name or an item's id exists."""
    check_batch(batch)
    if connection.execute(select(batches.c.id).where(batches.c.id == batch.id)).first():
        raise BadInput(f"batch {batch.id} exists", field="batch", fix="batches never change: give it another name")
    connection.execute(insert(batches), batch_row(replace(batch, created_at=stamp(now), closed_at=None)))
    positioned = [
        replace(item, batch_id=batch.id, position=position, created_at=stamp(now))
        for position, item in enumerate(members)
    ]
    for item in positioned:
        if item.dialogue_id is not None or item.turn is not None:
            raise BadInput(f"item {item.id} is a dialogue's turn", field="items", fix="add_turn adds those")
    insert_items(connection, positioned)


def insert_items(connection: Connection, members: Sequence[Item]) -> None:
    ids: set[str] = set()
    for item in members:
        check_item(item)
        if item.id in ids:
            raise BadInput(f"two items have the id {item.id}", field="items")
        ids.add(item.id)
    there = sorted(_among(connection, ids))
    if there:
        raise BadInput(f"item {there[0]} exists", field="items")
    if members:
        connection.execute(insert(items), [item_row(item) for item in members])
        connection.execute(insert(tallies), [tally_row(item) for item in members])


def tally_row(item: Item) -> dict[str, Any]:
    """The item's tally before anybody judged it."""
    return {
        "item_id": item.id,
        "batch_id": item.batch_id,
        "lane": "dialogue" if item.dialogue_id is not None else "queue" if item.gold is None else "check",
        "wanting": True,
        "judged": 0,
        "overlap": item.overlap,
        "position": item.position,
    }


def all_batches(connection: Connection) -> list[PreferenceBatch]:
    """Oldest first."""
    rows = connection.execute(select(batches).order_by(batches.c.created_at, batches.c.id))
    return [batch_from_row(row) for row in rows]


def batch(connection: Connection, batch_id: str) -> PreferenceBatch:
    row = connection.execute(select(batches).where(batches.c.id == batch_id)).one_or_none()
    if row is None:
        raise BadInput(f"there is no batch {batch_id!r}", field="batch")
    return batch_from_row(row)


def open_batch(connection: Connection, batch_id: str) -> PreferenceBatch:
    found = batch(connection, batch_id)
    if found.closed_at is not None:
        raise closed(batch_id)
    return found


def closed(batch_id: str) -> BadInput:
    return BadInput(f"batch {batch_id} is closed", field="batch")


def close_batch(connection: Connection, now: datetime, batch_id: str) -> None:
    """What stands in it stays as it is from now on. Again changes nothing."""
    batch(connection, batch_id)
    still_open = (batches.c.id == batch_id) & batches.c.closed_at.is_(None)
    connection.execute(update(batches).where(still_open).values(closed_at=stamp(now)))


def item(connection: Connection, item_id: str) -> Item:
    row = connection.execute(select(items).where(items.c.id == item_id)).one_or_none()
    if row is None:
        raise BadInput(f"there is no item {item_id!r}", field="item")
    return item_of(row)


def items_where(connection: Connection, condition: ColumnElement[bool], texts: bool = True) -> list[Item]:
    """In their batches' order; without `texts` the dialogues and answers, the bulk of a store, are left unread."""
    columns = [column for column in items.c if texts or column.name not in TEXTS]
    rows = connection.execute(select(*columns).where(condition).order_by(items.c.batch_id, items.c.position))
    return [item_of(row) for row in rows]


def progress(connection: Connection, batch_id: str) -> BatchProgress:
    batch(connection, batch_id)
    judged, overlap = tallies.c.judged, tallies.c.overlap
    counts = {
        row.lane: row
        for row in connection.execute(
            select(
                tallies.c.lane,
                func.count().label("items"),
                func.sum(overlap).label("wanted"),
                func.sum(judged).label("judged"),
                func.sum(case((judged > overlap, judged - overlap), else_=0)).label("beyond"),
            )
            .where(tallies.c.batch_id == batch_id)
            .group_by(tallies.c.lane)
        )
    }
    pairs = counts.get("queue")
    kinds: dict[str, int] = {}
    by_annotator: dict[str, int] = {}
    for name, kind, number in connection.execute(
        select(annotators.c.name, standing.c.kind, func.count())
        .join(annotators, annotators.c.id == standing.c.annotator_id)
        .where(standing.c.batch_id == batch_id)
        .group_by(annotators.c.name, standing.c.kind)
    ):
        kinds[kind] = kinds.get(kind, 0) + number
        if kind == "judged":
            by_annotator[name] = number
    return BatchProgress(
        items=sum(row.items for lane, row in counts.items() if lane != "dialogue"),
        wanted=pairs.wanted if pairs else 0,
        done=pairs.judged - pairs.beyond if pairs else 0,
        skipped=kinds.get("skipped", 0),
        flagged=kinds.get("flagged", 0),
        beyond=pairs.beyond if pairs else 0,
        turns=counts["dialogue"].judged if "dialogue" in counts else 0,
        by_annotator=dict(sorted(by_annotator.items())),
    )


def done(connection: Connection, batch_id: str) -> tuple[int, int]:
    """(judgements that count, judgements wanted): of `progress` what the pages of those who run it show."""
    judged, overlap = tallies.c.judged, tallies.c.overlap
    counted = func.sum(case((judged > overlap, overlap), else_=judged))
    pairs = (tallies.c.batch_id == batch_id) & (tallies.c.lane == "queue")
    row = connection.execute(select(counted, func.sum(overlap)).where(pairs)).one()
    return row[0] or 0, row[1] or 0


def judged_by(connection: Connection, batch_id: str, annotator_id: str) -> int:
    mine = (standing.c.batch_id == batch_id) & (standing.c.annotator_id == annotator_id) & (standing.c.kind == "judged")
    return connection.execute(select(func.count()).select_from(standing).where(mine)).scalar_one()


def _among(connection: Connection, ids: Iterable[str], at_once: int = 500) -> set[str]:
    """Which of these ids the store has; in portions, as databases limit the parameters of a statement."""
    wanted, found = sorted(ids), set[str]()
    for start in range(0, len(wanted), at_once):
        part = wanted[start : start + at_once]
        found.update(connection.scalars(select(items.c.id).where(items.c.id.in_(part))))
    return found
