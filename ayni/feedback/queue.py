"""Which item an annotator gets next: the one with the fewest judgements, and gold checks at their positions.

There are no leases: nothing keeps two annotators from judging one item at the same moment, and its overlap is then
exceeded (`BatchProgress.beyond` counts it). That this stays rare is why annotators begin at different positions of
the queue.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Select, exists, func, select, true

from ayni.feedback.accounts import active
from ayni.feedback.batches import all_batches, batch, item
from ayni.feedback.entries import Item
from ayni.feedback.schema import items, standing, tallies
from ayni.seeds import seed_of


def next_item(connection: Connection, annotator_id: str, batch_id: str | None) -> Item | None:
    """None when nothing is left for them. Without `batch_id`, from the oldest open batch that has something.

    The same answer until somebody judges: a page that is loaded again shows the same item.
    """
    active(connection, annotator_id)
    batches = all_batches(connection) if batch_id is None else [batch(connection, batch_id)]
    for each in batches:
        if each.closed_at is None:
            found = _next_in(connection, annotator_id, each.id)
            if found is not None:
                return item(connection, found)
    return None


def _next_in(connection: Connection, annotator_id: str, batch_id: str) -> str | None:
    """A due check goes first, but only where work follows it: it tests who is still at work."""
    mine = (standing.c.annotator_id == annotator_id) & (standing.c.batch_id == batch_id)
    answered = select(func.count()).select_from(standing).where(mine).scalar_subquery()
    end = select(func.max(items.c.position)).where(items.c.batch_id == batch_id).scalar_subquery()
    wanted = _undone(annotator_id, batch_id, "queue").where(tallies.c.wanting == true())
    first = wanted.order_by(tallies.c.judged, tallies.c.position).limit(1).add_columns(answered.label("answered"), end)
    fewest = connection.execute(first).one_or_none()
    if fewest is None:
        checks = _undone(annotator_id, batch_id, "check").where(tallies.c.wanting == true())
        last = connection.execute(checks.order_by(tallies.c.judged, tallies.c.position).limit(1)).one_or_none()
        return None if last is None else last.item_id
    item_id, judged, answered_now, last_position = fewest
    checks = _undone(annotator_id, batch_id, "check").where(tallies.c.position <= answered_now)
    due = connection.execute(checks.order_by(tallies.c.position).limit(1)).one_or_none()
    if due is not None:
        return due.item_id
    # Among those with equally few judgements: the first one from a place that depends on who asks and how far they are.
    position = seed_of("next", batch_id, annotator_id, answered_now) % (last_position + 1)
    onward = wanted.where(tallies.c.judged == judged, tallies.c.position >= position)
    found = connection.execute(onward.order_by(tallies.c.position).limit(1)).one_or_none()
    return item_id if found is None else found.item_id


def _undone(annotator_id: str, batch_id: str, lane: str) -> Select[tuple[str, int]]:
    """(item_id, judged) of this lane's items that the annotator has not judged, skipped or flagged."""
    done: ColumnElement[bool] = exists().where(
        standing.c.item_id == tallies.c.item_id, standing.c.annotator_id == annotator_id
    )
    return select(tallies.c.item_id, tallies.c.judged).where(
        tallies.c.batch_id == batch_id, tallies.c.lane == lane, ~done
    )
