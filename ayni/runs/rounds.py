"""Rounds: stages that a recipe writes once and that run once a round (paper §3.2.3: V1 … V5).

    rounds:
      count: 5
      each:
        samples{n}: {kind: reject, model: ppo{n-1} | v{n-1} | sft, earlier: ["samples{1..n-1}"]}
        ppo{n}: {kind: ppo, rounds: [5], model: v{n}}

Before a recipe is checked every stage under `each` is written out for its `rounds` (all, unless it names some, or the
`last`): `{n}` and `{n-1}` become numbers, and an item of a list with `{1..n}` becomes one item for each round so far
that has such a stage. What comes out are ordinary stages; a stage under `stages` with the name of one changes the keys
it names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ayni.config import Config, Field
from ayni.runs.settings import Key, Merges, Settings
from ayni.runs.templates import Filling, Writer

MOST_ROUNDS = 100
_ROUND = re.compile(r"\{n(?:-(\d{1,3}))?\}")
_SPAN = re.compile(r"\{1\.\.n(?:-(\d{1,3}))?\}")


class Rounds(Config):
    """`each`: bodies of stages by name, as under `stages`; beside their keys `rounds` may say which they are of."""

    count: int = Field(ge=1, le=MOST_ROUNDS)
    each: dict[str, dict[str, Any]]


def with_rounds(settings: Settings, merges: Merges) -> Settings:
    """The settings of a recipe with its rounds written out; BadInput at the line of what cannot be."""
    if "rounds" not in settings.value:
        return settings
    given = settings.value["rounds"]
    if not isinstance(given, dict):
        raise settings.wrong(("rounds",), "expected `count` and `each`")
    rounds = settings.config(Rounds, given, ("rounds",))
    names = _names(rounds, settings)
    writer = Writer(settings)
    for n in range(1, rounds.count + 1):
        for template, body in rounds.each.items():
            if n in names[template]:
                kept = {key: value for key, value in body.items() if key != "rounds"}
                at: Key = ("rounds", "each", template)
                writer.write(names[template][n], kept, at, _Round(settings, names, n))
    possible = {_numbered(template, n) for template in rounds.each for n in range(1, MOST_ROUNDS + 1)}
    return writer.in_place_of("rounds", possible, merges)


def _names(rounds: Rounds, settings: Settings) -> dict[str, dict[int, str]]:
    """The stages' names by template and round."""
    found: dict[str, dict[int, str]] = {}
    for template, body in rounds.each.items():
        at: Key = ("rounds", "each", template)
        if not _ROUND.search(template) or _SPAN.search(template):
            raise settings.wrong(at, "the name is the same in every round", "put {n} into it")
        of = body.get("rounds", list(range(1, rounds.count + 1)))
        of = [rounds.count] if of == "last" else of
        if not isinstance(of, list) or not all(type(n) is int and n >= 1 for n in of):
            raise settings.wrong((*at, "rounds"), f"expected a list of rounds, or last, found {of!r}")
        found[template] = {n: _numbered(template, n) for n in of if n <= rounds.count}
    return found


def _numbered(text: str, n: int) -> str:
    return _ROUND.sub(lambda match: str(n - int(match[1] or 0)), text)


class _Round(Filling):
    """Round n, in which `names` says which stages there are."""

    def __init__(self, settings: Settings, names: Mapping[str, Mapping[int, str]], n: int) -> None:
        self.settings, self.names, self.n = settings, names, n

    def text(self, text: str, at: Key) -> str:
        if _SPAN.search(text):
            raise self.settings.wrong(at, f"{text}: only an item of a list is written for several rounds")
        return _numbered(text, self.n)

    def items(self, item: Any, at: Key) -> list[Any]:
        """One item for each round up to n that has a stage of that name."""
        if not isinstance(item, str) or (span := _SPAN.search(item)) is None:
            return [item]
        template, _, inside = _SPAN.sub("{n}", item).partition("/")
        if template not in self.names:
            raise self.settings.wrong(at, f"{item}: there is no {template} under each", f"{', '.join(self.names)}")
        own = self.names[template]
        last = self.n - int(span[1] or 0)
        return [own[k] + (f"/{inside}" if inside else "") for k in range(1, last + 1) if k in own]
