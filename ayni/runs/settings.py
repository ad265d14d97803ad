"""Settings out of YAML files and `--set`, where every value knows the place it comes from.

A file that says `extends: other.yaml` starts from that file's values (which may extend another) and changes or adds
some: mappings are merged key by key, everything else is replaced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ayni.config import Config, apply_sets, parse_config, read_yaml
from ayni.errors import BadInput

Key = tuple[str | int, ...]
Merges = Callable[[Key, dict[str, Any], dict[str, Any]], bool]
C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class Origin:
    """Where a value stands: in a file at a line, or in an option. A relative path in it starts at `folder`."""

    source: str
    line: int | None
    folder: Path


@dataclass(frozen=True)
class Settings:
    """The values, and the origin of each by the keys that lead to it; `()` is the origin of the whole."""

    value: dict[str, Any]
    origins: dict[Key, Origin]

    def origin(self, at: Key) -> Origin:
        """Of the value there, or of what it is a part of."""
        return next(self.origins[at[:n]] for n in range(len(at), -1, -1) if at[:n] in self.origins)

    def wrong(self, at: Key, what: str, fix: str | None = None) -> BadInput:
        """`source:line: the.keys: what; fix`."""
        origin = self.origin(at)
        return BadInput(what, path=origin.source, line=origin.line, field=".".join(map(str, at)) or None, fix=fix)

    def config(self, kind: type[C], value: dict[str, Any], at: Key = ()) -> C:
        """`value`, which stands at `at`, as this config; BadInput with the origin of the key at fault."""
        try:
            return parse_config(kind, value, at=at)
        except BadInput as error:
            inside = error.field.split(".")[len(at) :] if error.field else []
            keys = (int(part) if part.isdigit() else part for part in inside)
            raise self.wrong((*at, *keys), error.what, error.fix) from None

    def with_sets(self, sets: Sequence[str]) -> Settings:
        """`a.b=c` replaces one value each; a relative path in it starts where the command does."""
        value, origins = apply_sets(self.value, list(sets)), self.origins
        for item in sets:
            place = tuple(item.partition("=")[0].split("."))
            origins = {at: origin for at, origin in origins.items() if not _inside(at, {place})}
            origins[place] = Origin(f"--set {item}", None, Path())
        return Settings(value, origins)


def read_settings(path: Path | None, sets: Sequence[str] = ()) -> Settings:
    """One file (none is an empty one) and `--set`."""
    if path is None:
        return Settings({}, {(): Origin("settings", None, Path())}).with_sets(sets)
    value, lines = read_yaml(path)
    origins: dict[Key, Origin] = {at: Origin(str(path), line, path.parent) for at, line in lines.items()}
    return Settings(value, origins).with_sets(sets)


def read_extended(path: Path, own: Collection[str], merges: Merges, extended_by: tuple[Path, ...] = ()) -> Settings:
    """A file on top of the one that it `extends`, of which the keys in `own` are not taken over.

    `merges(at, under, over)` says whether two mappings at the same place are merged or the later one stands alone.
    Raises BadInput with the line of `extends` when that file is not there or the files extend each other.
    """
    here = read_settings(path)
    name = here.value.pop("extends", None)
    if name is None:
        return here
    if not isinstance(name, str) or not name:
        raise here.wrong(("extends",), f"expected a file, found {name!r}")
    other = path.parent / os.path.expanduser(name)
    if not os.path.isfile(other):
        raise here.wrong(("extends",), f"{name}: no such file")
    chain = (*extended_by, path)
    if other.resolve() in {file.resolve() for file in chain}:
        circle = " → ".join(file.name for file in (*chain, other))
        raise here.wrong(("extends",), f"the files extend each other: {circle}")
    under = read_extended(other, own, merges, chain)
    kept = {at: origin for at, origin in under.origins.items() if not _inside(at, {(key,) for key in own})}
    return merged(Settings({key: part for key, part in under.value.items() if key not in own}, kept), here, merges)


def merged(under: Settings, over: Settings, merges: Merges) -> Settings:
    """`over` on top of `under`; what it replaced there has no origin any more."""
    value, replaced = _merged(under.value, over.value, merges)
    kept = {at: origin for at, origin in under.origins.items() if not _inside(at, replaced)}
    return Settings(value, kept | over.origins)


def _merged(
    under: dict[str, Any], over: dict[str, Any], merges: Merges, at: Key = ()
) -> tuple[dict[str, Any], set[Key]]:
    """`over` on top of `under`, and where a value of `under` was replaced rather than merged."""
    value, replaced = dict(under), set[Key]()
    for key, part in over.items():
        here, before = (*at, key), under.get(key)
        if isinstance(before, dict) and isinstance(part, dict) and merges(here, before, part):
            value[key], inside = _merged(before, part, merges, here)
            replaced |= inside
        else:
            value[key] = part
            replaced.add(here)
    return value, replaced


def _inside(at: Key, places: Collection[Key]) -> bool:
    return any(at[:n] in places for n in range(1, len(at) + 1))
