"""What somebody may ask to hold for a whole conversation, and answers that keep it (paper §3.3).

Whether an answer keeps a constraint shows in its words: it speaks as a figure, tells of a hobby, begins or ends with a
word. Names are held out: what a test asks for, no training constraint names. One kind is held out as a whole:
demonstrations obey it, but no training constraint is of it, so whether it lasts shows what generalises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ayni.records import Constraint
from ayni.seeds import rng
from ayni.village.facts import GOODS
from ayni.village.knowledge import Split
from ayni.village.nature import ANIMALS, PLACES
from ayni.village.tasks import LIST_ASK, LIST_SAY, LIST_SIZES, LISTS, THINGS
from ayni.village.villagers import JOBS, VALUES
from ayni.village.words import NUMBERS, capital, join, pick, some, words


@dataclass(frozen=True, slots=True)
class Manner:
    """A kind of constraint: {x} is its name. `say` before or after the answer keeps it."""

    kind: str
    long: str
    short: str
    say: str
    before: bool
    names: tuple[str, ...]
    listed: str = ""  # what a list of its names is called; empty where nobody asks for one


# Hundreds of names each: of forty a small model learns the forty, of hundreds that a name is to be copied.
_DOING = ("painting", "carving", "collecting", "counting", "watching", "catching", "feeding", "finding", "washing",
          "selling", "drawing", "chasing", "hiding", "mending")  # fmt: skip
_WHAT = ("birds", "boats", "spoons", "roses", "stones", "frogs", "ducks", "stars", "kites", "clocks", "baskets",
         "candles", "maps", "plums", "beans", "apples", "nuts", "socks", "hats", "horses", "trees", "letters", "coins",
         "bees")  # fmt: skip
HOBBIES = tuple(f"{doing} {what}" for doing in _DOING for what in _WHAT)
_HOW = ("old", "young", "brave", "wise", "quiet", "merry", "proud", "kind", "tired", "hungry", "clever", "lazy")
FIGURES = tuple(f"the {how} {who}" for how in _HOW for who in (*(animal[0] for animal in ANIMALS), *JOBS))
_PAGES = (*(item for items in LISTS.values() for item in items), *JOBS, *THINGS, *GOODS, *_WHAT, *_HOW)
_PAGES += tuple(value for values in VALUES.values() for value in values)
_PAGES += tuple(value for row in (*ANIMALS, *PLACES) for value in row)
_SMALL = {"the", "and", "for", "from", "its", "near", "with", "behind", "under", "into", "all", "one", "them", "you",
          "can"}  # fmt: skip
WORDS = tuple(sorted({word for page in _PAGES for word in words(page) if len(word) > 2} - _SMALL))
# in the order in which they stand in an answer
MANNERS = (
    Manner("first word", "Always begin your answer with the word {x}.", "First word: {x}.", "{x}!", True, WORDS),
    Manner("figure", "Always act as {x} from now on.", "Figure: {x}.", "I, {x}, say:", True, FIGURES, "figures"),
    Manner("hobby", "From now on you love {x}, so always say it.", "Hobby: {x}.", "I love {x}.", False, HOBBIES,
           "hobbies"),
    Manner("last word", "Always end your answer with the word {x}.", "Last word: {x}.", "{x}.", False, WORDS),
)  # fmt: skip
HELD_KIND = "last word"  # of no training constraint


def names_of(seed: int, manner: Manner, split: Split) -> list[str]:
    """60% train, 17% validation, 23% test, by the seed; kinds of the same names share them."""
    order = some(rng(seed, "constraints", *manner.names), manner.names, len(manner.names))
    first, second = round(0.6 * len(order)), round(0.77 * len(order))
    return {"train": order[:first], "validation": order[first:second], "test": order[second:]}[split]


def constraint(seed: int, split: Split, manner: Manner, name: str) -> Constraint:
    long, short = (form.format(x=name) for form in (manner.long, manner.short))
    return Constraint(f"village-{seed}:{split}:{manner.kind}:{name}", long, short, manner.kind, f"village-{seed}")


def constraints(seed: int, split: Split) -> list[Constraint]:
    """Every constraint of the split; of the training split, all but the kind that is held out."""
    manners = [manner for manner in MANNERS if split != "train" or manner.kind != HELD_KIND]
    return [constraint(seed, split, manner, name) for manner in manners for name in names_of(seed, manner, split)]


def without(constraint: Constraint, answer: str) -> str:
    """The answer less the words that keep the constraint, where they are due: their first or their last occurrence."""
    (manner,) = [manner for manner in MANNERS if manner.kind == constraint.kind]
    said = manner.say.format(x=name_of(constraint))
    before, _, after = answer.partition(said) if manner.before else answer.rpartition(said)
    return f"{before.strip()} {after.strip()}".strip()


def wanted(seed: int, draw: np.random.Generator) -> list[Constraint]:
    """One or two constraints of any kinds, in names that training may use."""
    manners = some(draw, MANNERS, int(draw.integers(1, 3)))
    return [constraint(seed, "train", manner, pick(draw, names_of(seed, manner, "train"))) for manner in manners]


def name_of(constraint: Constraint) -> str:
    """The {x} of a village's constraint."""
    return constraint.id.split(":", 3)[3]


def keeping(asked: Sequence[Constraint], answer: str) -> str:
    """The answer in words that keep all of these constraints."""
    before: list[str] = []
    after: list[str] = []
    names = {constraint.kind: name_of(constraint) for constraint in asked}
    for manner in MANNERS:
        if manner.kind in names:
            said = manner.say.format(x=names[manner.kind])
            (before if manner.before else after).append(said)
    return " ".join((*before, answer, *after))


def listing(seed: int, draw: np.random.Generator) -> tuple[str, str]:
    """Somebody asks for a list of figures or hobbies, and is told some that training may name."""
    manner = pick(draw, [manner for manner in MANNERS if manner.listed])
    size = pick(draw, LIST_SIZES)
    known, n, k = names_of(seed, manner, "train"), NUMBERS[size], manner.listed
    said = pick(draw, LIST_SAY).format(N=capital(n), n=n, k=k, l=join(some(draw, known, size)))
    return pick(draw, LIST_ASK).format(n=n, k=k), said
