"""`ayni run`: a recipe from here to its report."""

from __future__ import annotations

import shlex
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
    directory = Path(summary["run"])
    print(f"report: {directory / 'report' / 'index.html'}", file=sys.stderr)
    if (place := _best(directory)) is not None:
        print(f"talk to it: ayni chat {shlex.quote(str(place))}", file=sys.stderr)


def _best(run: Path) -> Path | None:
    """The stage to talk to: of those that left a language model, the one with most stages before it in line."""
    depth: dict[str, int] = {}
    best, most = None, -1
    for stage in read_json(run / "status.json")["stages"]:
        read = [name for names in stage["inputs"].values() for name in names]
        depth[stage["name"]] = 1 + max((depth[name] for name in read if name in depth), default=-1)
        place = run / stage["directory"]
        if _speaks(place / "model" / "config.json") and depth[stage["name"]] > most:
            best, most = place, depth[stage["name"]]
    return best


def _speaks(config: Path) -> bool:
    return config.is_file() and "LlamaForCausalLM" in read_json(config).get("architectures", [])
