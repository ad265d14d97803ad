"""A batch put before people by a stage: where its store lies, and how it is gone on with after a kill."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ayni.errors import BadInput
from ayni.feedback.entries import Item, PreferenceBatch
from ayni.feedback.store import Store
from ayni.files import json_line


def address_of(store: str, directory: Path) -> str:
    """The store that a setting names: a database's address, or a file, of which a relative one lies beside the stage in
    `directory`."""
    return store if "://" in store else str(directory.absolute().parent / store)


def put_batch(store: Store, batch: PreferenceBatch, items: Sequence[Item]) -> None:
    """Adds the batch; one that is there already, with the same settings, guidelines and items, is gone on with.

    BadInput where another one has its name. What the items are is noted among the batch's settings, by hash.
    """
    digest = hashlib.sha256("".join(json_line(asdict(item)) for item in items).encode()).hexdigest()
    settings = {**batch.settings, "items": digest}
    there = {found.id: found for found in store.batches()}.get(batch.id)
    if there is None:
        mix = {
            task: sum(item.task == task for item in items) / max(1, len(items)) for task in ("helpfulness", "safety")
        }
        store.add_batch(replace(batch, task_mix=mix, settings=settings), items)
    elif there.settings != settings or there.guidelines != batch.guidelines:
        raise BadInput(f"the store holds another batch {batch.id}", field="batch", fix="give this one another name")
