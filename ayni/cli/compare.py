"""`ayni compare RUN…`: methods from one start beside each other, as a table and as a page with the picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ayni.cli import plain
from ayni.report.compared import cell, columns, sentences, verdict_of, write_comparison
from ayni.runs.comparison import Comparison, compare_runs


def compare(runs: Sequence[Path], out: Path, control: str | None, as_json: bool) -> dict[str, Any]:
    """{runs, start, control, methods, sentences, page}; the page and results.json lie in `out`."""
    comparison = compare_runs(runs, control)
    page = write_comparison(comparison, out)
    said = sentences(comparison)
    if not as_json:
        for line in [*table(comparison), *said]:
            print(plain(line))
        print(f"all numbers: {out / 'results.json'}", file=sys.stderr)
        print(f"page: {page}", file=sys.stderr)
    return comparison.shown() | {"sentences": said, "page": str(page)}


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
