"""`ayni run`: a recipe from here to its report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ayni.cli import Outcome
from ayni.errors import AyniError
from ayni.files import read_json
from ayni.pipeline import run_recipe


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
    if not as_json:
        for stage in summary["stages"] if dry_run else []:
            print(f"{stage['state']:8} {stage['name']:24} {stage['hash'] or '(after what it reads)'}")
        if not dry_run:
            _headlines(summary)
    return summary


def _headlines(summary: dict[str, Any]) -> None:
    """The run's numbers as a table on stdout, and where to look next on stderr."""
    for row in summary["results"]:
        named = [f"{key} {row[key]}" for key in ("axis", "judge", "model", "against", "split") if row.get(key)]
        interval = row.get("interval")
        spread = f"  [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        value = "-" if row.get("value") is None else f"{row['value']:.4g}"
        print(f"{row['metric']:32} {value:>8}{spread}  {', '.join(named)}")
    print(f"report: {summary['run']}/report/index.html", file=sys.stderr)
    spoken = [stage for stage in summary["stages"] if _speaks(Path(stage["directory"]) / "model" / "config.json")]
    if spoken:
        place = Path(summary["run"]) / "stages" / Path(spoken[-1]["directory"]).name
        print(f"talk to it: ayni chat {place}", file=sys.stderr)


def _speaks(config: Path) -> bool:
    return config.is_file() and "LlamaForCausalLM" in read_json(config).get("architectures", [])
