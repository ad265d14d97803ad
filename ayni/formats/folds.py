"""Parts of a file of comparisons, by conversation: one is held out by whoever learns from the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

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


def part_of(conversations: list[str], fold: str, order: np.random.Generator) -> set[str]:
    """Those of this part, mixed up: `2/5` is the second of five. Of the same ones and the same generator the same."""
    part, parts = map(int, fold.split("/"))
    return {conversations[i] for i in order.permutation(len(conversations))[part - 1 :: parts]}


def fold_order(seed: int) -> np.random.Generator:
    """By the seed alone: two stages that read the same comparisons hold the same ones out."""
    return rng(seed, "reward", "split")


def but_for(comparisons: list[Comparison], fold: str | None, seed: int) -> list[Comparison]:
    """All but those of this part's conversations; all where there is no fold."""
    if fold is None:
        return comparisons
    apart = part_of(conversations(comparisons), fold, fold_order(seed))
    return [c for c in comparisons if root_of(c.prompt.dialog) not in apart]
