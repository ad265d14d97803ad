"""A file of docs/results from finished runs: python -m benchmarks.publish docs/results/mini.json runs/mini

It says what made it: command, commit, machine, date. Of several runs, which differ in their village, it also holds
what they say together: every prompt's part in one pool, in which a topic or a subject is one cluster in all villages.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ayni.config import parse_yaml
from ayni.errors import BadInput
from ayni.evaluate.items import Item, rows_of
from ayni.evaluate.results import SCHEMA, Result
from ayni.evaluate.win_rate import Outcome, win_rate_results
from ayni.files import write_text
from ayni.records import from_dict
from ayni.runs.reading import RunData, read_run
from ayni.runs.recipe import read_recipe
from benchmarks.fingerprint import fingerprint
from benchmarks.machine import described
from benchmarks.turns import ROOT

RECIPES = ROOT / "recipes"
WIDEST = 400  # characters of a line of what is published
NAMES = ("model", "against", "judge")


def published(directories: Sequence[Path]) -> dict[str, Any]:
    """`made`, then `results` of the run; of several, `results` of all together and `runs`, each apart."""
    runs = finished(directories)
    document: dict[str, Any] = {"schema": SCHEMA, "made": made(runs)}
    if len(runs) == 1:
        return document | {"claims": [claim.shown() for claim in runs[0].claims()], "results": rows(runs[0].results)}
    each = [{"run": run.name, "results": rows(run.results)} for run in runs]
    return document | {"results": rows(pooled(runs)), "runs": each}


def finished(directories: Sequence[Path]) -> list[RunData]:
    """These runs; BadInput where one is not done."""
    runs = [read_run(directory) for directory in directories]
    for run in runs:
        if run.status != "done":
            raise BadInput(f"the run is {run.status}", path=run.directory, fix="run its recipe again")
    return runs


def made(runs: Sequence[RunData]) -> dict[str, Any]:
    about, recipes = described("cpu"), [run.directory / "recipe.yaml" for run in runs]
    opened = [stage.opened for run in runs for stage in run.stages if stage.opened]
    commits = {f"{o['commit'][:7]}{'-dirty' if o['changed'] else ''}" for o in opened if o["commit"]}
    return {
        "command": " && ".join(map(command, runs)),
        "recipe": ", ".join(dict.fromkeys(fingerprint(read_recipe(path)) for path in recipes if path.is_file())),
        "commit": ", ".join(sorted(commits)) or about["commit"],
        "machine": about["machine"],
        "cores": about["cores"],
        "versions": about["versions"],
        "date": max(run.when for run in runs).strftime("%Y-%m-%d"),
        "seconds": round(sum(run.seconds for run in runs)),
    }


def command(run: RunData) -> str:
    """What made it, with the seeds of another village than its recipe's."""
    recipe = next(iter(RECIPES.rglob(f"{run.name}.yaml")), RECIPES / f"{run.name}.yaml")
    said = f"ayni run {recipe.relative_to(ROOT)}"
    if not run.recipe or not recipe.is_file():
        return said
    made, here = (seeds(value) for value in (parse_yaml(run.recipe, run.directory)[0], read_recipe(recipe).resolved()))
    return said + "".join(f" --set {key}={made[key]}" for key in made if made[key] != here.get(key))


def seeds(recipe: Any) -> dict[str, int]:
    villages = {f"{name}.village_seed": stage.get("village_seed") for name, stage in recipe["stages"].items()}
    return {"seed": recipe["seed"]} | {key: seed for key, seed in villages.items() if seed is not None}


def pooled(runs: Sequence[RunData]) -> list[Result]:
    """The rows of what the runs' evaluations say of single prompts, taken together; a model that several evaluations of
    one run ask counts with all its answers."""
    stages = [stage.directory for run in runs for stage in run.stages]
    contests: dict[tuple[str, ...], list[Outcome]] = {}
    for line in (line for stage in stages for line in lines_of(stage / "outcomes.jsonl")):
        who = tuple(line.pop(name) for name in NAMES)
        contests.setdefault(who, []).append(from_dict(Outcome, line))
    found: list[Result] = []
    for who, outcomes in contests.items():
        found += win_rate_results(outcomes, split="test", **dict(zip(NAMES, who, strict=True)))
    items = [from_dict(Item, line) for stage in stages for line in lines_of(stage / "items.jsonl")]
    return found + rows_of(items)


def lines_of(file: Path) -> Iterator[dict[str, Any]]:
    if file.exists():
        yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())


def rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Without what is absent."""
    return [{key: value for key, value in asdict(row).items() if value is not None} for row in results]


def readable(value: Any) -> str:
    """JSON with a row of results on a line: whatever is short and holds nothing long."""
    return _lines(value, "") + "\n"


def _lines(value: Any, indent: str) -> str:
    whole = json.dumps(value, ensure_ascii=False)
    if len(whole) <= WIDEST or not isinstance(value, (dict, list)):
        return whole
    deeper = indent + "  "
    if isinstance(value, list):
        return "[\n" + ",\n".join(deeper + _lines(each, deeper) for each in value) + f"\n{indent}]"
    members = (f"{deeper}{json.dumps(key)}: {_lines(each, deeper)}" for key, each in value.items())
    return "{\n" + ",\n".join(members) + f"\n{indent}}}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    write_text(given.file, readable(published(given.runs)))
