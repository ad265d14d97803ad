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
from ayni.runs.settings import Key, Merges, Origin, Settings, merged

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
    writer = _Writer(settings, names)
    for n in range(1, rounds.count + 1):
        for template, body in rounds.each.items():
            if n in names[template]:
                kept = {key: value for key, value in body.items() if key != "rounds"}
                writer.write(template, kept, n)
    written = Settings({"stages": writer.stages}, {(): settings.origin(())} | writer.origins)
    possible = {_numbered(template, n) for template in rounds.each for n in range(1, MOST_ROUNDS + 1)}
    return merged(
        written, Settings(_without(settings.value, possible - writer.stages.keys()), settings.origins), merges
    )


def _without(recipe: dict[str, Any], absent: set[str]) -> dict[str, Any]:
    """The recipe without its rounds, and without what it says of stages of rounds that it does not have: with fewer
    rounds the same recipe still reads."""
    rest = {key: value for key, value in recipe.items() if key != "rounds"}
    for key in ("stages", "seconds"):
        if isinstance(rest.get(key), dict):
            rest[key] = {name: body for name, body in rest[key].items() if name not in absent or _whole(body)}
    return rest


def _whole(body: object) -> bool:
    return isinstance(body, dict) and "kind" in body


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


class _Writer:
    """Writes templates out and keeps where every value came from."""

    def __init__(self, settings: Settings, names: Mapping[str, Mapping[int, str]]) -> None:
        self.settings, self.names = settings, names
        self.stages: dict[str, Any] = {}
        self.origins: dict[Key, Origin] = {}

    def write(self, template: str, body: dict[str, Any], n: int) -> None:
        name, at = self.names[template][n], ("rounds", "each", template)
        if name in self.stages:
            raise self.settings.wrong(at, f"two stages would be called {name!r}", "give them different names")
        self.stages[name] = self._value(body, at, ("stages", name), n)

    def _value(self, value: Any, at: Key, to: Key, n: int) -> Any:
        """`value`, which stands at `at`, as it is in round n, where it stands at `to`."""
        self.origins[to] = self.settings.origin(at)
        if isinstance(value, dict):
            return {key: self._value(part, (*at, key), (*to, key), n) for key, part in value.items()}
        if isinstance(value, list):
            items = [(part, (*at, i)) for i, item in enumerate(value) for part in self._spanned(item, (*at, i), n)]
            return [self._value(part, place, (*to, i), n) for i, (part, place) in enumerate(items)]
        if not isinstance(value, str):
            return value
        if _SPAN.search(value):
            raise self.settings.wrong(at, f"{value}: only an item of a list is written for several rounds")
        return _numbered(value, n)

    def _spanned(self, item: Any, at: Key, n: int) -> list[Any]:
        """One item for each round up to n that has a stage of that name."""
        if not isinstance(item, str) or (span := _SPAN.search(item)) is None:
            return [item]
        template, _, inside = _SPAN.sub("{n}", item).partition("/")
        if template not in self.names:
            raise self.settings.wrong(at, f"{item}: there is no {template} under each", f"{', '.join(self.names)}")
        own = self.names[template]
        last = n - int(span[1] or 0)
        return [own[k] + (f"/{inside}" if inside else "") for k in range(1, last + 1) if k in own]
