"""Simulated annotators of known noise, who judge as people would: who agrees how much is known beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ayni.feedback.entries import Entry, GoldCheck, Item, Judged, PreferenceBatch, shown_swapped
from ayni.feedback.store import Store
from ayni.records import RATINGS, Message, Prompt
from ayni.seeds import rng

CHECKS = 42  # the paper's number of screening questions
READING = 20.0  # seconds that an item takes, in the median


@dataclass(frozen=True, slots=True)
class Simulated:
    """`noise` in units of how much answers differ; `first` the liking for the first place; `pace` a factor of time."""

    name: str
    noise: float
    first: float = 0.0
    pace: float = 1.0


def items_of(seed: int, count: int, overlap: int) -> list[tuple[Item, float]]:
    """Items and how much better a is (normal, sd 1); every so often a gold check with a clear winner."""
    draw = rng(seed, "panel")
    every = (count + CHECKS) // CHECKS
    found = []
    for i in range(count + CHECKS):
        gold = i % every == 0 and i // every < CHECKS
        name = f"{'check' if gold else 'item'}-{i}"
        worth = float(draw.choice((-1, 1)) * draw.uniform(1.5, 3) if gold else draw.normal())
        prompt = Prompt(f"p-{name}", (Message("user", f"What is thing number {i}?"),))
        known = GoldCheck("a" if worth > 0 else "b") if gold else None
        item = Item(
            name, prompt, f"{i} at some length", f"{i} in short", overlap=overlap, gold=known, batch_id="week-1"
        )
        found.append((item, worth))
    return found


def judgements(panel: Sequence[Simulated], seed: int, *, items: int, overlap: int = 3) -> Iterator[Judged]:
    """Everybody judges every check; each other item is judged by `overlap` of the panel, drawn anew."""
    draw = rng(seed, "judging")
    for item, worth in items_of(seed, items, overlap):
        some = draw.permutation(len(panel))[: len(panel) if item.gold else overlap]
        for annotator in (panel[i] for i in sorted(some)):
            swapped = shown_swapped(item.id, annotator.name)
            felt = worth + annotator.noise * draw.normal() + (-annotator.first if swapped else annotator.first)
            entry = Entry(
                f"{seed}-{annotator.name}-{item.id}",
                item.id,
                annotator.name,
                preferred="a" if felt > 0 else "b",
                rating=RATINGS[3 - int(np.searchsorted([0.4, 0.9, 1.5], abs(felt), side="right"))],
                swapped=swapped,
                seconds=round(float(READING * annotator.pace * np.exp(0.5 * draw.normal())), 1),
            )
            yield Judged(0, entry, item, annotator.name)


def fill(store: Store, panel: Sequence[Simulated], seed: int, *, items: int, overlap: int = 3) -> None:
    """The same judgements in a store, batch week-1."""
    store.add_batch(PreferenceBatch("week-1"), [item for item, _ in items_of(seed, items, overlap)])
    ids = {annotator.name: store.enrol(annotator.name).id for annotator in panel}
    rows = judgements(panel, seed, items=items, overlap=overlap)
    store.record_all(replace(row.entry, annotator_id=ids[row.annotator]) for row in rows)
