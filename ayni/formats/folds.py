"""Parts of a file of comparisons, by conversation: one is held out by whoever learns from the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from ayni.errors import BadInput
from ayni.records import Comparison, root_of
from ayni.seeds import rng


def _is_a_part(fold: str) -> str:
    part, parts = map(int, fold.split("/"))
    if not 1 <= part <= parts or parts < 2:
        raise ValueError(f"there is no part {fold}; say 1/5 for the first of five")
    return fold


Fold = Annotated[str, Field(pattern=r"^[0-9]{1,3}/[0-9]{1,3}$"), AfterValidator(_is_a_part)]


def conversations(comparisons: Iterable[Comparison]) -> list[str]:
    """The roots of their dialogues, each once, in order."""
    return sorted({root_of(c.prompt.dialog) for c in comparisons})


def part_of(comparisons: Iterable[Comparison], fold: str, order: np.random.Generator) -> set[str]:
    """The conversations of this part, mixed up: `2/5` is the second of five.

    The same ones for whoever reads the same comparisons, of both tasks, with the same generator. BadInput where nothing
    is held out, or nothing left.
    """
    roots = conversations(comparisons)
    part, parts = map(int, fold.split("/"))
    found = {roots[i] for i in order.permutation(len(roots))[part - 1 :: parts]}
    if not 0 < len(found) < len(roots):
        what = f"{len(roots)} conversations do not make {parts} parts"
        raise BadInput(what, field="fold", fix="give more comparisons, or fewer parts")
    return found


def fold_order(seed: int) -> np.random.Generator:
    """By the seed alone: two stages that read the same comparisons hold the same ones out."""
    return rng(seed, "reward", "split")


def but_for(comparisons: list[Comparison], fold: str | None, seed: int) -> list[Comparison]:
    """All but those of this part's conversations; all where there is no fold."""
    if fold is None:
        return comparisons
    apart = part_of(comparisons, fold, fold_order(seed))
    return [c for c in comparisons if root_of(c.prompt.dialog) not in apart]
