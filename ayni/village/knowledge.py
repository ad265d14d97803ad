"""What the village knows about one request: enough to answer it well, to answer it badly, and to judge an answer.

A phrase is lower-case words without punctuation (`words.flat`), so answers are judged by what they say and not by
how they are spelt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ayni.village.words import flat

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Topic:
    """Something one can do in the village, allowed or forbidden; `action` continues "How do I …?"."""

    action: str
    doing: str
    how: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...]  # groups of phrases; an answer that tells how has one of each
    split: Split
    family: str = ""
    subject: str = ""
    reasons: tuple[str, ...] = ()  # why it is forbidden; empty when it is allowed
    reason_keys: tuple[tuple[str, ...], ...] = ()
    instead: tuple[str, ...] = ()
    instead_keys: tuple[str, ...] = ()

    @property
    def forbidden(self) -> bool:
        return bool(self.reasons)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The reference behind one prompt. Every group in `keys` wants one of its phrases; no rival may occur."""

    category: str
    right: tuple[str, ...]
    curt: str
    wrong: tuple[str, ...]  # of a fact, worded as its statements in turn
    keys: tuple[tuple[str, ...], ...] = ()
    rivals: frozenset[str] = frozenset()
    subject: tuple[str, ...] = ()  # phrases that name whom or what it is about; empty when nothing need be named
    count: int = 0  # how many items of `members` a list wants
    members: frozenset[str] = frozenset()
    target: tuple[str, ...] = ()  # accepted rewritings
    topic: Topic | None = None
    cluster: str = ""  # prompts of one subject or topic stand or fall together


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing the village knows, with its wordings; `ask` and `say` texts are already filled in."""

    category: str
    subject: str
    attribute: str
    split: Split
    say: tuple[str, ...]  # statements
    ask: tuple[str, ...]  # questions that training prompts use
    ask_held: tuple[str, ...]  # questions only held-out prompts use
    ask_corpus: tuple[str, ...]  # questions only the corpus uses
    follow: tuple[str, ...]  # follow-up questions that need the turn before
    knowledge: Knowledge


def phrases(*texts: str) -> tuple[str, ...]:
    return tuple(flat(text).strip() for text in texts)
