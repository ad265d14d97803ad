"""`ayni run`: a recipe from here to its report."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ayni.cli import VerbFailure, plain, program
from ayni.errors import AyniError
from ayni.evaluate.results import Result
from ayni.report import build_report
from ayni.runs.headlines import NO_INTERVAL, counted, headlines, too_few
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
) -> dict[str, Any] | VerbFailure:
    """{run, status, stages, results, claims}; when a stage fails, the same with the failed stage in it."""
    latest: dict[str, Any] = {}
    try:
        summary = run_recipe(
            recipe, out, sets, only=only, dry_run=dry_run, fresh=fresh, quiet=quiet, watch=latest.update
        )
    except AyniError as error:
        if latest:
            return VerbFailure(latest, error)
        raise
    if int(os.environ.get("RANK", "0")):  # the first process tells
        return summary
    if not dry_run:
        build_report(Path(summary["run"]))
    if not as_json and dry_run:
        for stage in summary["stages"]:
            print(f"{stage['state']:8} {stage['name']:24} {(stage['hash'] or '')[:8] or '(after what it reads)'}")
    elif not as_json:
        for line in table(summary["results"]):
            print(line)
        for claim in read_run(Path(summary["run"])).claims():
            print(plain(str(claim)))
        directory = Path(summary["run"])
        print(f"all numbers: {directory / 'results.json'}", file=sys.stderr)
        print(f"report: {directory / 'report' / 'index.html'}", file=sys.stderr)
        if read_run(directory).chat_stage() is not None:
            print(f"talk to it: {program()} chat {shlex.quote(str(directory))}", file=sys.stderr)
    return summary


def table(results: Sequence[dict[str, Any]]) -> list[str]:
    """The run's main numbers as the lines of a table; each once, however many stages measured it."""
    rows: dict[tuple[str, ...], None] = {}
    for shown, row in headlines(Result(**row) for row in results):
        model = row.model or ""
        whose = f"{model} against {row.against}" if row.against else model
        spread = " to ".join(_number(bound, shown.share) for bound in row.interval or ())
        if too_few(row):
            spread = NO_INTERVAL
        value = _number(row.value or 0.0, shown.share) + ("%" if shown.share else "")
        name = ", ".join(part for part in (shown.name, shown.unit) if part)
        rows[name, row.axis or "", whose, value, spread, counted(row)] = None
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(6)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _number(value: float, share: bool) -> str:
    return f"{100 * value:.1f}" if share else f"{value:.2f}"
