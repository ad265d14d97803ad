"""Turns become numbers: medians of ratios over pairs, shares of what the machine can do, and whether work was equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

Round = Mapping[str, Mapping[str, Any]]  # label → report


def speed(report: Mapping[str, Any]) -> float:
    """Items a second."""
    return float(report["items"] / report["seconds"])


def ratio(rounds: Sequence[Round], ours: str, theirs: str) -> dict[str, float]:
    """Our speed over theirs: the median over pairs, the least and the most."""
    seen = [speed(each[ours]) / speed(each[theirs]) for each in rounds]
    return {"ratio": median(seen), "least": min(seen), "most": max(seen)}


def compared(rounds: Sequence[Round], ours: str, theirs: str) -> dict[str, Any]:
    """One row of a table: both speeds, their ratio, both peaks of memory in MB."""
    return {
        "side": ours,
        "peer": theirs,
        "speed": median(speed(each[ours]) for each in rounds),
        "peer_speed": median(speed(each[theirs]) for each in rounds),
        **ratio(rounds, ours, theirs),
        "memory": max(each[ours]["memory"] for each in rounds),
        "peer_memory": max(each[theirs]["memory"] for each in rounds),
        "pairs": len(rounds),
    }


def alone(rounds: Sequence[Round], side: str) -> dict[str, Any]:
    """What is said of one side by itself: speed, memory, and the seconds of its parts where it tells them."""
    reports = [each[side] for each in rounds]
    said: dict[str, Any] = {
        "side": side,
        "speed": median(map(speed, reports)),
        "memory": max(report["memory"] for report in reports),
    }
    if "split" in reports[0]:
        said["split"] = {part: median(r["split"][part] / r["seconds"] for r in reports) for part in reports[0]["split"]}
    return said


def shares(rounds: Sequence[Round], side: str, machine: str) -> dict[str, float]:
    """Of one side beside the machine's ceilings, as they were in the same round.

    `of_products`: its FLOPs a second over those of a large product. `of_reading`: its seconds over those in which
    the bytes it must read are copied at the machine's speed (a copy reads and writes: two bytes moved for one).
    """
    found = {}
    if "flops" in rounds[0][side]:
        found["of_products"] = median(r[side]["flops"] / r[side]["seconds"] / r[machine]["flops_s"] for r in rounds)
    if "bytes" in rounds[0][side]:
        found["of_reading"] = median(r[side]["seconds"] * r[machine]["bytes_s"] / r[side]["bytes"] for r in rounds)
    return found


def best(rounds: Sequence[Round], labels: Sequence[str]) -> str:
    """The fastest of these, by the median."""
    return max(labels, key=lambda label: median(speed(each[label]) for each in rounds))


def disagreement(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest relative difference of two runs of losses from the same weights on the same data."""
    return max(abs(a - b) / (max(abs(a), abs(b)) or 1) for a, b in zip(ours, theirs, strict=True))


def checked(first: Sequence[Round], ours: str, theirs: str, tolerance: float, *, mean: bool = False) -> dict[str, Any]:
    """How far the losses of the first turns disagree (their means, where a peer cuts its data otherwise).

    Raises SystemExit beyond the tolerance: a comparison of unequal work is worth nothing.
    """
    both = [[loss for each in first for loss in each[label]["losses"]] for label in (ours, theirs)]
    compared = [[sum(losses) / len(losses)] for losses in both] if mean else both
    found = disagreement(*compared)
    if not found <= tolerance:
        raise SystemExit(f"{theirs} does other work than {ours}: {both[1]} beside {both[0]}, allowed {tolerance}")
    return {"disagreement": found, "tolerance": tolerance, "losses": both}
