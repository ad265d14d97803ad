"""Small English: numbers as words, plain word sequences to compare texts by, and quick random choice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_WORD = re.compile(r"[a-z0-9]+")
_SENTENCE = re.compile(r"[^.!?]*[.!?]+[\"']?|[^.!?]+$")


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """One of the items, each equally likely."""
    return items[int(rng.integers(len(items)))]


def some(rng: np.random.Generator, items: Sequence[T], n: int) -> list[T]:
    """`n` different items in random order (all of them when there are fewer)."""
    return [items[int(i)] for i in rng.permutation(len(items))[:n]]


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; a possessive counts as its owner."""
    return _WORD.findall(text.lower().replace("’", "'").replace("'s", ""))


def flat(text: str) -> str:
    """The words with one space around each, so that `f" {phrase} " in flat(text)` asks for whole words."""
    return f" {' '.join(words(text))} "


def has(flat_text: str, phrase: str) -> bool:
    """Whether the phrase (already lower-case, without punctuation) occurs as whole words."""
    return f" {phrase} " in flat_text


def sentences(text: str) -> list[str]:
    return [part.strip() for part in _SENTENCE.findall(text) if part.strip()]


def join(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
