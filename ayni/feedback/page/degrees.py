"""The eight choices, from answer A significantly better (1) to answer B significantly better (8), as they are shown."""

from __future__ import annotations

from typing import Literal

from ayni.feedback.entries import SIDES, Side
from ayni.records import RATINGS, Rating

Letter = Literal["A", "B"]
LETTERS: tuple[Letter, ...] = ("A", "B")
RATING_WORDS: dict[Rating, str] = {
    "significantly_better": "significantly better",
    "better": "better",
    "slightly_better": "slightly better",
    "negligibly_better_or_unsure": "negligibly better, or unsure",
}
CHOICES: tuple[tuple[Letter, Rating], ...] = (
    *(("A", rating) for rating in RATINGS),
    *(("B", rating) for rating in reversed(RATINGS)),
)
# letter → (number, rating, words) of its four choices, in the order of the scale
CHOICES_BY_LETTER: dict[Letter, list[tuple[int, Rating, str]]] = {
    letter: [(number, rating, RATING_WORDS[rating]) for number, (of, rating) in enumerate(CHOICES, 1) if of == letter]
    for letter in LETTERS
}


def side_of(letter: Letter, swapped: bool) -> Side:
    """Which stored answer stood under this letter."""
    return SIDES[(letter == "B") != swapped]


def number_of(preferred: Side, rating: Rating | None, swapped: bool) -> int | None:
    """The choice 1 to 8 that was made on the page; None without a rating."""
    if rating is None:
        return None
    letter: Letter = "B" if (preferred == "b") != swapped else "A"
    return 1 + CHOICES.index((letter, rating))
