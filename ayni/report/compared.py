"""The page of `ayni compare`: methods from one start beside each other, in one table and one picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ayni.evaluate.results import write_results
from ayni.files import write_text
from ayni.maths.statistics import Estimate
from ayni.report.page import template
from ayni.report.planes import Point, worth
from ayni.report.sections import Panel
from ayni.runs.comparison import ALIKE, MEASURES, Comparison, Measure, Method

COLOURS = {"PASS": "teal", "FAIL": "clay", "UNDECIDED": "ochre", None: "muted"}


@dataclass(frozen=True)
class Cell:
    """One number of one method: as it is read, and its interval beneath."""

    value: str = "–"
    spread: str = ""


def columns(comparison: Comparison) -> list[Measure]:
    """What any of the methods has a number of."""
    return [measure for measure in MEASURES if any(measure.key in m.numbers for m in comparison.methods)]


def cell(measure: Measure, estimate: Estimate | None) -> Cell:
    if estimate is None or estimate.value is None:
        return Cell()
    value = number(measure, estimate.value)
    if estimate.interval is None:
        return Cell(value)
    low, high = (number(measure, bound) for bound in estimate.interval)
    return Cell(value, f"{low} to {high}")


def number(measure: Measure, value: float) -> str:
    if measure.key in ("forward", "backward"):
        return f"{value / 1e6:.2f} M"
    if measure.key.startswith("flops"):
        return f"{value / 1e12:.2f} TFLOP"
    if measure.key == "memory":
        return f"{value / 2**20:,.0f} MiB"
    if measure.cost:
        return f"{value:,.0f}"
    if measure.share:
        return f"{100 * value:.1f}%"
    return f"{value:.2f}"


def verdict_of(comparison: Comparison, method: Method) -> str:
    """PASS, FAIL, UNDECIDED; what the control and methods without one are instead."""
    return method.verdict or ("control" if method.name == comparison.control else "no control")


def sentences(comparison: Comparison) -> list[str]:
    """What the numbers say, and what they do not, in plain words."""
    found = []
    control, best = comparison.control, comparison.methods[0]
    for verdict, what in (("PASS", "more helpful than"), ("FAIL", "less helpful than"), ("UNDECIDED", "not told from")):
        names = [m.name for m in comparison.methods if m.verdict == verdict]
        if names:
            found.append(f"{verdict}: {_listed(names)} {_are(names)} {what} {control}.")
    if control is None:
        found.append("There is no control among these methods, so none of them has a verdict.")
    alone = [m.name for m in comparison.methods if control and m.verdict is None and m.name != control]
    if alone:
        found.append(
            f"No verdict on {_listed(alone)}: {control} was not judged with the same seed on the same prompts."
        )
    with_best = [m.name for m in comparison.methods[1:] if m.name != control and not comparison.told_apart(m)]
    if with_best:
        found.append(f"Undecided: whether {best.name} is more helpful than {_listed(with_best)}.")
    mixed = [m.name for m in comparison.methods if m.verdict == "PASS" and any((x or 0) <= 0 for x in m.seeds)]
    if mixed:
        found.append(f"Not with every seed: {_listed(mixed)} {_are(mixed)} ahead of {control} with some only.")
    chance = [m.name for m in comparison.methods if m.undecided_choices]
    if chance:
        found.append(f"Chosen by chance: the best try of {_listed(chance)} was not told from another one.")
    fewer = [f"{m.name} ({m.draws})" for m in comparison.methods if m.draws < comparison.draws]
    if fewer:
        found.append(f"Judged less often than others, {comparison.draws} times: {_listed(fewer)}.")
    for key, what in (("flops", "compute"), ("seconds", "wall-clock")):
        unequal = comparison.unequal(key)
        if unequal and len(comparison.methods) > 1:
            names = [f"{m.name} ({number(_measure(key), m.value(key) or 0)})" for m in unequal]
            found.append(f"Not at equal {what}, more than a factor of {ALIKE:g} from the median: {_listed(names)}.")
        elif any(m.value(key) for m in comparison.methods):
            found.append(f"Equal {what}: all methods are within a factor of {ALIKE:g} of the median.")
        else:
            found.append(f"Nobody counted {what}.")
    return found


def panels(comparison: Comparison) -> list[Panel]:
    """Helpfulness against KL, against compute and against wall-clock time."""
    found = []
    for key, title, label, scale in (
        ("kl", "Helpfulness against KL", "KL to the start, nats per answer", 1.0),
        ("flops", "Helpfulness against compute", "floating-point operations, 10¹²", 1e12),
        ("seconds", "Helpfulness against time", "seconds", 1.0),
    ):
        points = [
            Point(m.name, COLOURS[m.verdict], _scaled(m.numbers[key], scale), y)
            for m in comparison.methods
            if key in m.numbers and (y := m.numbers.get("helpfulness")) is not None
        ]
        if points:
            drawn = worth(points, x_label=label, y_label=f"more helpful than {comparison.start}", level=0.5)
            found.append(
                Panel(title, f"by {comparison.judges['helpfulness']}, ties as half; 95% intervals", (), "", drawn)
            )
    return found


def render(comparison: Comparison) -> str:
    """The comparison as one HTML document; everything that came from outside is escaped."""
    measures = columns(comparison)
    rows = [
        (m, verdict_of(comparison, m), COLOURS[m.verdict], [cell(each, m.numbers.get(each.key)) for each in measures])
        for m in comparison.methods
    ]
    return template("compare.html.jinja").render(
        comparison=comparison,
        measures=measures,
        rows=rows,
        sentences=sentences(comparison),
        panels=panels(comparison),
    )


def write_comparison(comparison: Comparison, out: Path) -> Path:
    """Writes `out/index.html` and `out/results.json`; returns the page."""
    write_results(out / "results.json", comparison.rows())
    write_text(out / "index.html", render(comparison))
    return out / "index.html"


def _measure(key: str) -> Measure:
    return next(measure for measure in MEASURES if measure.key == key)


def _scaled(estimate: Estimate, scale: float) -> Estimate:
    value = None if estimate.value is None else estimate.value / scale
    interval = None if estimate.interval is None else (estimate.low / scale, estimate.high / scale)
    return replace(estimate, value=value, interval=interval)


def _listed(names: list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _are(names: list[str]) -> str:
    return "are" if len(names) > 1 else "is"
