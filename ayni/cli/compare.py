"""`ayni compare RUN…`: methods from one start beside each other, as a table and as a page with the picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ayni.cli import plain
from ayni.errors import BadInput
from ayni.report.compared import cell, columns, sentences, verdict_of, write_comparison
from ayni.runs.comparison import Comparison, compare_runs
from ayni.runs.judged_methods import GOLD, Judges


def compare(
    runs: Sequence[Path], out: Path, control: str | None, judge: Sequence[str], as_json: bool
) -> dict[str, Any]:
    """{runs, start, control, judges, methods, sentences, page}; the page and results.json lie in `out`."""
    comparison = compare_runs(runs, control, judges_of(judge))
    page = write_comparison(comparison, out)
    said = sentences(comparison)
    if not as_json:
        for line in [*table(comparison), *said]:
            print(plain(line))
        print(f"all numbers: {out / 'results.json'}", file=sys.stderr)
        print(f"page: {page}", file=sys.stderr)
    return comparison.shown() | {"sentences": said, "page": str(page)}


def judges_of(given: Sequence[str]) -> Judges:
    """Of NAME, who judges both axes, and AXIS=NAME, who judges one; gold of what is not given."""
    judges = dict(GOLD)
    # who judges one axis is named after who judges both, in whatever order they are given
    for each in sorted(given, key=lambda each: "=" in each):
        axis, named, name = each.rpartition("=")
        if not name or (named and axis not in judges):
            fix = "say NAME, helpfulness=NAME or safety=NAME"
            raise BadInput(f"{each!r} names no judge", field="--judge", fix=fix)
        judges |= {axis: name} if named else dict.fromkeys(judges, name)
    return judges


def table(comparison: Comparison) -> list[str]:
    """The methods as the lines of a table, the most helpful one first."""
    measures = columns(comparison)
    rows = [["method", "verdict", *(measure.name for measure in measures)]]
    for method in comparison.methods:
        cells = [cell(measure, method.numbers.get(measure.key)) for measure in measures]
        shown = [f"{each.value} [{each.spread}]" if each.spread else each.value for each in cells]
        rows.append([method.name, verdict_of(comparison, method), *shown])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
