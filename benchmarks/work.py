"""A work that is compared: its sides, and the command line and report that all works share."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import machine
from benchmarks.options import Asked, Options, asked
from benchmarks.side import Turns
from benchmarks.summary import Round, alone, best, checked, compared, shares
from benchmarks.turns import play, started

Take = Callable[[Options, Turns], None]  # what a side does in its process: its turns, until there are no more
OURS = "ayni"
FIRST = 3  # turns whose losses must agree, the one to warm up among them


@dataclass(frozen=True)
class Work:
    """`sides` by name, ours among them. `tolerance` of the first losses by number format; a peer in `loosely` lays its
    data out otherwise, so only the means of the first turns are compared, within that."""

    name: str
    unit: str
    sides: Mapping[str, Take]
    tolerance: Mapping[str, float] = field(default_factory=dict)
    loosely: Mapping[str, float] = field(default_factory=dict)
    steps: int = 1
    variants: tuple[str, ...] = ()
    ceiling: bool = True  # whether the machine's ceilings are measured in turn with it
    needs: str = "trl"  # what a peer imports

    def peers(self, wanted: tuple[str, ...] | None) -> list[str]:
        names = [name for name in self.sides if name != OURS]
        for name in wanted or ():
            if name not in names:
                raise SystemExit(f"{self.name} has no peer {name!r}; it has {', '.join(names)}")
        return names if wanted is None else list(wanted)


def compare(work: Work, given: Asked) -> dict[str, Any]:
    """All sides in all number formats in turn. Rows: each peer in each format, and the best beside the best."""
    peers = work.peers(given.peers)
    if peers and importlib.util.find_spec(work.needs) is None:
        raise SystemExit(f"the peers need {work.needs}: make bench puts them into .venv-bench")
    sides: list[tuple[str, str, Options]] = []
    for options in given.each():
        sides += [(work.name, name, options) for name in (OURS, *peers)]
        if work.ceiling:
            sides.append(("machine", machine.CEILING, options))
    with started(sides) as running:
        built = {side.label: side.built for side in running}
        warm, rounds = play(running, given.options.pairs)
    limits = {d: machine.median_of(rounds, f"{machine.CEILING} {d}") for d in given.dtypes} if work.ceiling else {}
    where = {"work": work.name, "variant": given.options.variant, "shape": given.options.shape, "unit": work.unit}
    return {
        **where,
        "threads": given.options.threads,
        "device": given.options.device,
        "steps": given.options.steps,
        "ceilings": limits,
        "rows": rows_of(work, given.dtypes, peers, built, [warm, *rounds]),
    }


def rows_of(
    work: Work, dtypes: Sequence[str], peers: Sequence[str], built: Mapping[str, float], turns: Sequence[Round]
) -> list[dict[str, Any]]:
    """`turns`: the one to warm up, then those that count. Raises SystemExit where the sides did unequal work."""
    rounds = turns[1:]
    rows: list[dict[str, Any]] = []
    ours, theirs = list[str](), list[str]()
    for dtype in dtypes:
        us, limit = f"{OURS} {dtype}", f"{machine.CEILING} {dtype}"
        ours.append(us)
        extra = shares(rounds, us, limit) if work.ceiling else {}
        rows.append({**alone(rounds, us), **extra, "memory_built": built[us]})
        for name in peers:
            them = f"{name} {dtype}"
            theirs.append(them)
            row = compared(rounds, us, them)
            tolerance = work.loosely.get(name, work.tolerance.get(dtype))
            if tolerance is not None:
                row |= checked(turns[:FIRST], us, them, tolerance, mean=name in work.loosely)
            rows.append(row)
    if len(dtypes) > 1 and peers:
        rows.append({"best": True, **compared(rounds, best(rounds, ours), best(rounds, theirs))})
    return rows


def main(work: Work, description: str) -> None:
    """The script of one work: progress on stderr, one JSON object on stdout."""
    given = asked(description, steps=work.steps, variants=work.variants)
    json.dump(compare(work, given), sys.stdout, indent=1)
    print()
