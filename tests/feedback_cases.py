"""Small batches, items and judgements for the tests of the preference store, and a clock that obeys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ayni.feedback.entries import Entry, GoldCheck, Item, PreferenceBatch
from ayni.feedback.store import Store
from ayni.records import Message, Prompt


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def go_on(self, days: float) -> None:
        self.now += timedelta(days=days)


def item(name: str, **fields: Any) -> Item:
    prompt = Prompt(f"prompt-{name}", (Message("user", f"What is {name}?"),), fields.get("task", "helpfulness"))
    return Item(name, prompt, f"{name}: the long answer", f"{name}: the short answer", **fields)


def check(name: str, preferred: Any = "a", **fields: Any) -> Item:
    return item(name, gold=GoldCheck(preferred), **fields)


def filled(store: Store, *items: Item, batch: str = "week-1") -> Store:
    store.add_batch(PreferenceBatch(batch), items)
    return store


def judgement(submission: str, item_id: str, annotator_id: str, preferred: Any = "a", **fields: Any) -> Entry:
    return Entry(submission, item_id, annotator_id, preferred=preferred, **fields)
