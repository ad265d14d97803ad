"""Methods beside each other: a file of what `ayni compare` says of one run or several, and the table of such files.

python -m benchmarks.methods docs/results/compare.json runs/compare-301 runs/compare-302 [--judge [AXIS=]NAME …]

Runs that are there together are pooled prompt by prompt. Files of different days are pooled by their numbers: the mean
over the seeds, half-widths in quadrature, as if no topic were the same in two villages.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ayni.cli.compare import judges_of
from ayni.evaluate.results import SCHEMA
from ayni.files import write_text
from ayni.runs.claims import verdict
from ayni.runs.comparison import compare_runs
from ayni.runs.judged_methods import Judges
from benchmarks.publish import finished, made, readable
from benchmarks.verdicts import pooled, recipe_of

Row = Mapping[str, Any]
SHARES = {
    "over_control": "helpful, over the control",
    "safety_over_control": "safe, over the control",
    "content_over_control": "right, over the control",
    "refused": "borderline refused",
}
NUMBERS = {"kl": "KL, nats", "length": "tokens", "self_bleu": "Self-BLEU"}
COSTS = {"flops": "compute, 10¹²", "seconds": "seconds", "memory": "memory, MiB", "lines": "lines"}
SCALES = {"flops": 1e12, "memory": 2**20}


def compared(directories: Sequence[Path], judges: Judges) -> dict[str, Any]:
    """`made`, then what `ayni compare --json` says of the runs."""
    runs = finished(directories)
    return {"schema": SCHEMA, "made": made(runs), "comparison": compare_runs(directories, judges=judges).shown()}


def table(documents: Sequence[Row], columns: Sequence[str] = (*SHARES, *NUMBERS, *COSTS)) -> str:
    """All methods of these files, the one with the most helpfulness over the control first; of what they have of these
    columns.

    ValueError where other recipes made them, or they were not held against the same control by the same judges.
    """
    alike = {(recipe_of(d), d["comparison"]["control"], str(d["comparison"].get("judges"))) for d in documents}
    if len(alike) > 1:
        raise ValueError("the files differ in their recipe, their control or their judges")
    by_method: dict[str, list[Row]] = {}
    judged: Counter[str] = Counter()
    for document in documents:
        for method in document["comparison"]["methods"]:
            by_method.setdefault(method["method"], []).append(method["numbers"])
            judged[method["method"]] += method["draws"]
    heads = {
        key: name
        for key, name in (SHARES | NUMBERS | COSTS).items()
        if key in columns and any(key in n for of in by_method.values() for n in of)
    }
    control = documents[0]["comparison"]["control"]
    order = sorted(by_method, key=lambda name: -_lead(by_method[name]))
    rows = [f"| method | {' | '.join(heads.values())} | verdict |", "|---" * (len(heads) + 2) + "|"]
    for name in order:
        cells = [_cell(key, [numbers[key] for numbers in by_method[name] if key in numbers]) for key in heads]
        most = max(judged.values())
        some = "" if judged[name] == most else f" ({judged[name]} of {most} seeds)"
        rows.append(
            f"| {name}{some} | {' | '.join(cells)} | {'control' if name == control else _verdict(by_method[name])} |"
        )
    return "\n".join(rows)


def _lead(seeds: Sequence[Row]) -> float:
    values = [numbers["over_control"]["value"] for numbers in seeds if "over_control" in numbers]
    return sum(values) / len(values) if values else 0.0


def _verdict(seeds: Sequence[Row]) -> str:
    whole = pooled([numbers["over_control"] for numbers in seeds if "over_control" in numbers])
    return "UNDECIDED" if whole is None else verdict(whole[1], 0, None)


def _cell(key: str, estimates: Sequence[Row]) -> str:
    values = [each["value"] for each in estimates if each["value"] is not None]
    if not values:
        return "–"
    whole = pooled(estimates) if key in SHARES else None
    mean = whole[0] if whole is not None else sum(values) / len(values)
    if key in COSTS:
        return f"{mean / SCALES.get(key, 1):,.{2 if key == 'flops' else 0}f}"
    if key not in SHARES:
        return f"{mean:.2f}"
    spread = "" if whole is None else f" [{100 * whole[1][0]:.1f}, {100 * whole[1][1]:.1f}]"
    signed = f"{100 * mean:+.1f}" if key.endswith("over_control") else f"{100 * mean:.1f}"
    return f"{signed}{spread}".replace("-", "−")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--judge", action="append", default=[])
    given = parser.parse_args()
    write_text(given.file, readable(compared(given.runs, judges_of(given.judge))))
