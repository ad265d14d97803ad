"""How far annotators agree beyond chance: all of them with each other, and each with the others.

Agreement is measured where two or more have judged the same item; gold checks are left out of it (everybody gets those,
and they are easy), and so are dialogues, which only their writer judges. The paper reports Gwet's AC2 (§3.4.2: 0.37 to
0.55 for helpfulness; §4.4: 0.70 to 0.95 for safety) and not its weights; ours are quadratic over the eight choices from
"a significantly better" to "b significantly better", however they were shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ayni.feedback.entries import Judged
from ayni.maths.agreement import Agreement, alpha_against, gwet_ac, gwet_ac_against, krippendorff_alpha
from ayni.records import RATINGS, Rating, Task

CHOICE_CATEGORIES = tuple(range(1, 2 * len(RATINGS) + 1))  # 1: a is significantly better … 8: b is
PREFERENCE_CATEGORIES = (0, 1)  # a or b is preferred


@dataclass(frozen=True, slots=True)
class Vote:
    """What the numbers need of a judgement that stands: no texts.

    `choice`: one of CHOICE_CATEGORIES, None without a degree. `first`: the answer that stood first was chosen.
    `right`: of a gold check, whether the known answer was met. `shared`: others judge the same item, and it is no gold
    check.
    """

    item: str
    annotator: str
    task: Task
    prefers_b: bool
    choice: int | None
    rating: Rating | None
    first: bool
    seconds: float | None
    right: bool | None
    shared: bool


@dataclass(frozen=True, slots=True)
class Agreements:
    """AC1 on which answer is preferred, AC2 (quadratic) and alpha (ordinal) on the eight choices."""

    preference: Agreement
    degree: Agreement
    alpha: Agreement


def votes_of(rows: Iterable[Judged]) -> list[Vote]:
    """Of the rows that judge, in order; their items' texts are not looked at."""
    found = []
    for row in rows:
        entry, item = row.entry, row.item
        if entry.kind != "judged" or entry.preferred is None:
            continue
        prefers_b = entry.preferred == "b"
        found.append(
            Vote(
                item=item.id,
                annotator=row.annotator,
                task=item.task,
                prefers_b=prefers_b,
                choice=_choice_of(prefers_b, entry.rating),
                rating=entry.rating,
                first=prefers_b == entry.swapped,
                seconds=entry.seconds,
                right=None if item.gold is None else item.gold.preferred == entry.preferred,
                shared=item.gold is None and item.dialogue_id is None,
            )
        )
    return found


def _choice_of(prefers_b: bool, rating: Rating | None) -> int | None:
    if rating is None:
        return None
    step = RATINGS.index(rating)
    return CHOICE_CATEGORIES[-1 - step] if prefers_b else CHOICE_CATEGORIES[step]


def by_item(votes: Iterable[Vote]) -> list[list[Vote]]:
    """The votes of each shared item, side by side."""
    found: dict[str, list[Vote]] = {}
    for v in votes:
        if v.shared:
            found.setdefault(v.item, []).append(v)
    return list(found.values())


def agreements(items: Iterable[Sequence[Vote]]) -> Agreements:
    """Among all annotators of these items (as `by_item` gives them)."""
    items = list(items)
    sides = _table([float(v.prefers_b) for v in of] for of in items)
    choices = _table([float(v.choice) for v in of if v.choice is not None] for of in items)
    return Agreements(
        gwet_ac(sides, categories=PREFERENCE_CATEGORIES),
        gwet_ac(choices, weights="quadratic", categories=CHOICE_CATEGORIES),
        krippendorff_alpha(choices, metric="ordinal"),
    )


def agreements_with_others(items: Iterable[Sequence[Vote]], name: str) -> Agreements:
    """One annotator against the others, over those of the items that both have judged."""
    own_sides, sides, own_choices, choices = [], [], [], []
    for of in items:
        others = [v for v in of if v.annotator != name]
        for mine in (v for v in of if v.annotator == name):
            own_sides.append(float(mine.prefers_b))
            sides.append([float(v.prefers_b) for v in others])
            own_choices.append(np.nan if mine.choice is None else float(mine.choice))
            choices.append([float(v.choice) for v in others if v.choice is not None])
    theirs = _table(choices, least=0)
    return Agreements(
        gwet_ac_against(own_sides, _table(sides, least=0), categories=PREFERENCE_CATEGORIES),
        gwet_ac_against(own_choices, theirs, weights="quadratic", categories=CHOICE_CATEGORIES),
        alpha_against(own_choices, theirs, metric="ordinal"),
    )


def _table(rows: Iterable[Sequence[float]], least: int = 2) -> NDArray[np.float64]:
    """Rows of at least `least` ratings, filled up with NaN: (items, most ratings of one).

    Items that one has rated say nothing of agreement, and would only widen AC's intervals (see `gwet_ac`).
    """
    wide = [row for row in rows if len(row) >= least]
    table = np.full((len(wide), max((len(row) for row in wide), default=0)), np.nan)
    for i, row in enumerate(wide):
        table[i, : len(row)] = row
    return table
