"""How a chat model introduces itself: what it knows and three questions to begin with, kept in its ayni.json.

`sft` writes it, stages that go on from the model hand it down, and `ayni chat` shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ayni.errors import BadInput
from ayni.model_directory import EXTRA, read_extra
from ayni.records import Demonstration, from_dict

KEY = "introduction"
QUESTIONS = 3
SHORT = 60  # characters of a question worth suggesting


@dataclass(frozen=True, slots=True)
class Introduction:
    about: str = ""
    ask: tuple[str, ...] = ()

    def extra(self) -> dict[str, Any]:
        """As `save_model` takes it."""
        return {KEY: asdict(self)} if self.about or self.ask else {}


def read_introduction(model: Path) -> Introduction:
    """Of the model in this directory, empty where it has none. Raises BadInput when ayni.json holds something else."""
    found = read_extra(model).get(KEY, {})
    if not isinstance(found, dict):
        raise BadInput("expected about and ask", path=model / EXTRA, field=KEY)
    return from_dict(Introduction, found, path=model / EXTRA)


def questions_of(demonstrations: Sequence[Demonstration], draw: np.random.Generator) -> tuple[str, ...]:
    """Short first questions of some dialogues, each beginning with another word."""
    found: dict[str, str] = {}
    for i in draw.permutation(len(demonstrations)):
        text = demonstrations[int(i)].dialog[0].content
        if len(text) <= SHORT and text.isprintable() and text.strip():
            found.setdefault(text.split()[0], text)
        if len(found) == QUESTIONS:
            break
    return tuple(found.values())
