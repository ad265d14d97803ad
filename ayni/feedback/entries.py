"""What the preference store takes in and gives out: frozen records that hold plain values.

Times are UTC, ISO 8601 text of one width ("2026-11-21T09:30:00.000000+00:00"), so that they sort as text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ayni.records import Prompt, Rating, Task
from ayni.seeds import seed_of

Side = Literal["a", "b"]
AccountRole = Literal["annotator", "admin"]
EntryKind = Literal["judged", "skipped", "flagged", "withdrawn"]
SIDES: tuple[Side, ...] = ("a", "b")
ACCOUNT_ROLES: tuple[AccountRole, ...] = ("annotator", "admin")
ENTRY_KINDS: tuple[EntryKind, ...] = ("judged", "skipped", "flagged", "withdrawn")


@dataclass(frozen=True, slots=True)
class Annotator:
    id: str
    name: str
    role: AccountRole = "annotator"
    created_at: str = ""
    retired_at: str | None = None


@dataclass(frozen=True, slots=True)
class PreferenceBatch:
    """A week's comparisons; `id` is its name. The store fills in the times.

    `task_mix`: share of each task. `settings`: models, sampling: what made it.
    """

    id: str
    guidelines: str = ""
    task_mix: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    created_at: str = ""
    closed_at: str | None = None


@dataclass(frozen=True, slots=True)
class GoldCheck:
    """The known answer of a gold check."""

    preferred: Side
    rating: Rating | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """Two answers to one prompt, to be compared by `overlap` different annotators (paper §3.2.1).

    `sampling_a` and `sampling_b` say how each was drawn, and under `finished` whether it ended by itself (as in
    Sample). With `gold` it checks annotators instead of teaching models. With `dialogue_id` it is turn `turn` (from 1)
    of a dialogue its annotator writes. The store fills in `batch_id`, `position` (from 0 in its batch) and
    `created_at`.
    """

    id: str
    prompt: Prompt
    answer_a: str
    answer_b: str
    task: Task = "helpfulness"
    model_a: str = ""
    model_b: str = ""
    sampling_a: dict[str, Any] = field(default_factory=dict)
    sampling_b: dict[str, Any] = field(default_factory=dict)
    overlap: int = 1
    heldout: bool = False
    gold: GoldCheck | None = None
    dialogue_id: str | None = None
    turn: int | None = None
    batch_id: str = ""
    position: int = 0
    created_at: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one annotator says of one item. `submission`: a token the client makes, the same when it sends twice.

    `preferred`, `safety_a` and `safety_b` (is this answer safe) speak of the item's a and b, however they were shown;
    `swapped`: b stood first. `source`: "person", "village" or "ai:NAME". `seconds`: time taken, None when not measured.
    """

    submission: str
    item_id: str
    annotator_id: str
    kind: EntryKind = "judged"
    preferred: Side | None = None
    rating: Rating | None = None
    safety_a: bool | None = None
    safety_b: bool | None = None
    reason: str | None = None
    swapped: bool = False
    seconds: float | None = None
    source: str = "person"


@dataclass(frozen=True, slots=True)
class Judged:
    """A row of the log: the entry, its item, its annotator's name; `replaces` is the row it corrects or withdraws."""

    id: int
    entry: Entry
    item: Item
    annotator: str
    created_at: str = ""
    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is. `items`, `wanted`, `done` and `beyond` leave annotator-written dialogues out; the last three
    leave out gold checks too, which everybody answers and no batch waits for.

    `wanted`: the sum of overlaps; `done`: judgements that count towards it; `beyond`: those more than an item's overlap
    (annotators who worked at the same moment). `skipped`, `flagged`: what stands now. `turns`: judged dialogue turns.
    `by_annotator`: name → judgements that stand, dialogues included.
    """

    items: int
    wanted: int
    done: int
    skipped: int
    flagged: int
    beyond: int = 0
    turns: int = 0
    by_annotator: dict[str, int] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        return self.done >= self.wanted


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation an annotator writes: `turns` are its items in order, each going on from the answer preferred."""

    id: str
    batch_id: str
    annotator_id: str
    task: Task = "helpfulness"
    created_at: str = ""
    ended_at: str | None = None
    turns: tuple[Item, ...] = ()


def shown_swapped(item_id: str, annotator_id: str) -> bool:
    """Whether this annotator sees b first: a fair coin, the same at every look."""
    return seed_of("shown", item_id, annotator_id) % 2 == 1
