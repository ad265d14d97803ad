"""Stages written out from templates: a round's, or a method's tries'. Every value keeps the place it comes from."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ayni.runs.settings import Key, Merges, Origin, Settings, merged


class Filling:
    """What stands in a template for something else, in one round or try. As it is here, nothing does."""

    def text(self, text: str, at: Key) -> str:
        return text

    def items(self, item: Any, at: Key) -> list[Any]:
        """What one item of a list stands for."""
        return [item]

    def instead(self, value: dict[str, Any], at: Key) -> tuple[Any, Key]:
        """The value that a mapping stands for, and where that stands."""
        return value, at


class Writer:
    """Writes templates out as `stages`; `origins` says where each value comes from."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stages: dict[str, Any] = {}
        self.origins: dict[Key, Origin] = {}

    def write(self, name: str, body: dict[str, Any], at: Key, filling: Filling) -> None:
        """The template's `body`, which stands at `at`, as the stage of that name."""
        if name in self.stages:
            raise self.settings.wrong(at, f"two stages would be called {name!r}", "give them different names")
        self.stages[name] = self._value(body, at, ("stages", name), filling)

    def in_place_of(self, key: str, possible: Collection[str], merges: Merges) -> Settings:
        """The settings with what is written in place of `key`, what `stages` says of it on top.

        What they say of stages that are `possible` and not written goes: with fewer rounds or tries the same recipe
        still reads.
        """
        absent = {*possible} - self.stages.keys()
        rest = {name: part for name, part in self.settings.value.items() if name != key}
        for name in ("stages", "seconds"):
            if isinstance(rest.get(name), dict):
                rest[name] = {stage: body for stage, body in rest[name].items() if stage not in absent or _whole(body)}
        written = Settings({"stages": self.stages}, {(): self.settings.origin(())} | self.origins)
        return merged(written, Settings(rest, self.settings.origins), merges)

    def _value(self, value: Any, at: Key, to: Key, filling: Filling) -> Any:
        """`value`, which stands at `at`, as it is where it stands at `to`."""
        if isinstance(value, dict):
            value, at = filling.instead(value, at)
        self.origins[to] = self.settings.origin(at)
        if isinstance(value, dict):
            return {key: self._value(part, (*at, key), (*to, key), filling) for key, part in value.items()}
        if isinstance(value, list):
            items = [(part, (*at, i)) for i, item in enumerate(value) for part in filling.items(item, (*at, i))]
            return [self._value(part, place, (*to, i), filling) for i, (part, place) in enumerate(items)]
        return filling.text(value, at) if isinstance(value, str) else value


def _whole(body: object) -> bool:
    return isinstance(body, dict) and "kind" in body
