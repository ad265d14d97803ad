"""What is trained on, held against what is evaluated on: prompts that stand in it, near copies of them, sibling turns.

Words and the signs of sums are compared: case, other punctuation, white space and system messages do not count. Short
prompts resemble each other by chance (templates do on purpose), so of those only the same words are a copy; what is
near, or stands inside something longer, needs as many words as no two people write alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from ayni.records import Dialog
from ayni.text.dedup import FINGERPRINT, SHORTEST, SIMILAR, fingerprint, repeated

# a word, or a sign that stands alone: 5 + 2 is not 5 - 2
TOKEN = re.compile(r"\w+|(?<![^\s\d])[-+*/×÷=<>](?![^\s\d])")
INSIDE = 10  # words: a prompt of so many, in a row in something longer, is a copy (the paper's §A.6 takes 10 tokens)
Overlap = Literal["copy", "near copy", "sibling turn"]
Words = tuple[str, ...]


def words_of(text: str) -> Words:
    return tuple(TOKEN.findall(text.lower()))


class PromptIndex:
    """The prompts to evaluate on; `in_dialog` and `in_text` say which of them something else overlaps with.

    copy: the prompt's messages begin the dialogue, or its one message of INSIDE words or more stands in a user's
    message or a text. sibling turn: another turn of the conversation; it begins with the same messages, of SHORTEST
    words or more. near copy: of SHORTEST words or more, SIMILAR of the 5-word runs in common (ayni.text.dedup).
    """

    def __init__(self, prompts: Sequence[Dialog]) -> None:
        self._whole: dict[tuple[Words, ...], int] = {}
        self._openings: dict[tuple[Words, ...], int] = {}
        self._inside: dict[str, dict[Words, list[tuple[Words, int]]]] = {}
        near: list[np.ndarray] = []
        self._near_numbers: list[int] = []
        lengths: list[int] = []
        for number, dialog in enumerate(prompts):
            messages = _messages(dialog)
            self._whole.setdefault(messages, number)
            opening = _opening(messages)
            if opening != messages:
                self._openings.setdefault(opening, number)
            if len(messages) == 1 and len(messages[0]) >= INSIDE:
                head = messages[0][:INSIDE]
                self._inside.setdefault(head[0], {}).setdefault(head, []).append((messages[0], number))
            if (length := sum(map(len, messages))) >= SHORTEST:
                near.append(_print(messages))
                self._near_numbers.append(number)
                lengths.append(length)
        self._near = np.array(near, FINGERPRINT)
        # what shares so much is not much longer or shorter
        self._lengths = (SIMILAR * min(lengths), max(lengths) / SIMILAR) if lengths else (0.0, -1.0)

    def copies_in(self, dialog: Dialog) -> Iterator[int]:
        """The prompts that the dialogue begins with: the cheapest and surest of the three."""
        messages = _messages(dialog)
        for end in range(1, len(messages) + 1):
            if (number := self._whole.get(messages[:end])) is not None:
                yield number

    def in_dialog(self, dialog: Dialog) -> Iterator[tuple[Overlap, int]]:
        """(how, which prompt) of every prompt found, by the first of the three that finds any."""
        found: dict[int, Overlap] = dict.fromkeys(self.copies_in(dialog), "copy")
        for message in dialog:
            if message.role == "user":
                found |= dict.fromkeys(self.in_text(message.content), "copy")
        messages = _messages(dialog)
        if not found and (number := self._openings.get(_opening(messages))) is not None:
            found[number] = "sibling turn"
        if not found:
            found = dict.fromkeys(self._near_in(dialog, messages), "near copy")
        yield from ((how, number) for number, how in found.items())

    def _near_in(self, dialog: Dialog, messages: tuple[Words, ...]) -> Iterator[int]:
        """The prompts that the dialogue up to one of its user's messages nearly repeats."""
        said = [message.role for message in dialog if message.role != "system"]
        for end in [number for number, role in enumerate(said, 1) if role == "user"]:
            if self._lengths[0] <= sum(map(len, messages[:end])) <= self._lengths[1]:
                at = repeated(_print(messages[:end]), self._near)
                if at is not None:
                    yield self._near_numbers[at]

    def in_text(self, text: str) -> Iterator[int]:
        """The prompts whose one message stands word for word in the text."""
        words = words_of(text)
        for start in range(len(words) - INSIDE + 1):
            if (heads := self._inside.get(words[start])) is None:
                continue
            for whole, number in heads.get(words[start : start + INSIDE], ()):
                if words[start : start + len(whole)] == whole:
                    yield number


def _messages(dialog: Dialog) -> tuple[Words, ...]:
    return tuple(words_of(message.content) for message in dialog if message.role != "system")


def _opening(messages: tuple[Words, ...]) -> tuple[Words, ...]:
    """The first messages, as few as hold SHORTEST words; all of them where they hold less."""
    length = 0
    for end, message in enumerate(messages, 1):
        length += len(message)
        if length >= SHORTEST:
            return messages[:end]
    return messages


def _print(messages: tuple[Words, ...]) -> np.ndarray:
    return fingerprint(" ".join(word for message in messages for word in message))
