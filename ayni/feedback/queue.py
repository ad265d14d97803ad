"""Which item an annotator gets next: the one with the fewest judgements, and now and then a gold check.

Nobody may tell a check by when it comes. So one comes at a random place of every stretch of as many items as the batch
has for each check, another place for everybody; and both candidates are always looked up, in the same time.

There are no leases: nothing keeps two annotators from judging one item at the same moment, and its overlap is then
exceeded (`BatchProgress.beyond` counts it). That this stays rare is why annotators begin at different positions of
the queue.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, exists, func, select, true

from ayni.feedback.accounts import active
from ayni.feedback.batches import all_batches, batch, item
from ayni.feedback.entries import Item
from ayni.feedback.schema import standing, tallies
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
    sizes = _by_lane(connection, select(tallies.c.lane, func.count()).where(tallies.c.batch_id == batch_id))
    mine = (standing.c.annotator_id == annotator_id) & (standing.c.batch_id == batch_id)
    told = select(tallies.c.lane, func.count()).join(standing, standing.c.item_id == tallies.c.item_id).where(mine)
    answered = _by_lane(connection, told)
    step, key = answered["queue"] + answered["check"], (batch_id, annotator_id)  # turns of dialogues bring none nearer
    work = _undone(annotator_id, batch_id, "queue").where(tallies.c.wanting == true())
    pair = _fewest(connection, work, sizes, seed_of("next", *key, step))
    check = _fewest(connection, _undone(annotator_id, batch_id, "check"), sizes, seed_of("check", *key, step))
    due = checks_due(step, sizes, key) > answered["check"]
    return check if due and pair is not None and check is not None else pair


def checks_due(step: int, sizes: dict[str, int], key: tuple[str, str]) -> int:
    """How many checks should come among the first `step` + 1 items: one at a drawn place of every stretch."""
    if not sizes["check"]:
        return 0
    stretch = max(1, (sizes["queue"] + sizes["check"]) // sizes["check"])
    before, place = divmod(step, stretch)
    return before + (place >= seed_of("due", *key, before) % stretch)


def _by_lane(connection: Connection, counts: Select[Any]) -> dict[str, int]:
    found = connection.execute(counts.group_by(tallies.c.lane))
    return {"queue": 0, "check": 0} | dict(found.all())


def _fewest(connection: Connection, undone: Select[tuple[str, int]], sizes: dict[str, int], seed: int) -> str | None:
    """Of those with the fewest judgements the first from a place that depends on who asks and how far they are."""
    first = connection.execute(undone.order_by(tallies.c.judged, tallies.c.position).limit(1)).one_or_none()
    if first is None:
        return None
    place = seed % (sizes["queue"] + sizes["check"])
    onward = undone.where(tallies.c.judged == first.judged, tallies.c.position >= place)
    found = connection.execute(onward.order_by(tallies.c.position).limit(1)).one_or_none()
    return first.item_id if found is None else found.item_id


def _undone(annotator_id: str, batch_id: str, lane: str) -> Select[tuple[str, int]]:
    """(item_id, judged) of this lane's items that the annotator has not judged, skipped or flagged."""
    done = exists().where(standing.c.item_id == tallies.c.item_id, standing.c.annotator_id == annotator_id)
    return select(tallies.c.item_id, tallies.c.judged).where(
        tallies.c.batch_id == batch_id, tallies.c.lane == lane, ~done
    )
