"""`ayni run`: a recipe from here to its report."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ayni.cli import Outcome, program
from ayni.errors import AyniError
from ayni.report import build_report
from ayni.runs.pipeline import run_recipe
from ayni.runs.reading import read_run


def run(
    recipe: Path,
    out: Path | None,
    sets: Sequence[str],
    *,
    only: Sequence[str],
    dry_run: bool,
    fresh: bool,
    quiet: bool,
    as_json: bool,
) -> dict[str, Any] | Outcome:
    """{run, status, stages, results}; when a stage fails, the same with the failed stage in it."""
    latest: dict[str, Any] = {}
    try:
        summary = run_recipe(
            recipe, out, sets, only=only, dry_run=dry_run, fresh=fresh, quiet=quiet, watch=latest.update
        )
    except AyniError as error:
        if latest:
            return Outcome(latest, error)
        raise
    if int(os.environ.get("RANK", "0")):  # the first process tells
        return summary
    if not dry_run:
        build_report(Path(summary["run"]))
    if not as_json and dry_run:
        for stage in summary["stages"]:
            print(f"{stage['state']:8} {stage['name']:24} {(stage['hash'] or '(after what it reads)')[:8]}")
    elif not as_json:
        for line in headlines(summary["results"]):
            print(line)
        directory = Path(summary["run"])
        print(f"all numbers: {directory / 'results.json'}", file=sys.stderr)
        print(f"report: {directory / 'report' / 'index.html'}", file=sys.stderr)
        if read_run(directory).chat_stage() is not None:
            print(f"talk to it: {program()} chat {shlex.quote(str(directory))}", file=sys.stderr)
    return summary


# What a person wants to know first: the metric, what to call it, and whether it is a share.
HEADLINES = {
    "bits_per_byte": ("bits per byte", False),
    "accuracy": ("reward accuracy", True),
    "accuracy_gain": ("accuracy gained", True),
    "win_rate": ("win rate", True),
    "refusal_rate": ("refused", True),
    "kl": ("KL, nats", False),
    "proxy_change": ("change of reward", False),
    "gold_change": ("change of gold", False),
}


def headlines(results: Sequence[dict[str, Any]]) -> list[str]:
    """The run's main numbers as the lines of a table; each once, however many stages measured it."""
    rows: dict[tuple[str, ...], None] = {}
    for metric, (name, share) in HEADLINES.items():
        for row in results:
            if row["metric"] == metric and row.get("value") is not None:
                model = row.get("model") or ""
                whose = f"{model} against {row['against']}" if row.get("against") else model
                spread = " to ".join(_number(bound, share) for bound in row.get("interval") or ())
                count = f"n {row['n']}" if row.get("n") else ""
                if row.get("wins") is not None:
                    count = f"{row['wins']} won, {row['ties']} tied, {row['losses']} lost"
                value = _number(row["value"], share) + ("%" if share else "")
                rows[name, row.get("axis") or "", whose, value, spread, count] = None
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(6)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _number(value: float, share: bool) -> str:
    return f"{100 * value:.1f}" if share else f"{value:.2f}"
