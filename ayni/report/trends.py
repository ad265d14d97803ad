"""What a number does while something grows: turns of a talk, the temperature, what a reward model has learnt from, the
versions of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ayni.evaluate.results import Result
from ayni.records import RATINGS
from ayni.report.figures import Line, distributions, trend
from ayni.report.sections import AXIS_COLOUR, MORE, Panel, estimate_of, joined, judged_by, percent
from ayni.runs.reading import RunData


@dataclass(frozen=True)
class Growing:
    """Rows METRIC:PLACE drawn over their places: `metric` matches the first, `place` what stands before the number."""

    metric: str
    title: str
    y_label: str
    x_label: str
    place: str = ""
    share: bool = True
    whole: bool = False


_BY_TURN = (
    Growing("kept", "Kept", "answers that keep it", "turn", "turn ", whole=True),
    Growing("talk_content", "Right answers", "right content", "turn", "turn ", whole=True),
    Growing("constraint_attention", "Attention to the instruction", "largest weight", "turn", "turn "),
)
_BY_TEMPERATURE = (
    Growing(r"best_of_\d+", "Best of {}", "reward", "temperature", share=False),
    Growing("self_bleu", "Alike", "Self-BLEU", "temperature", share=False),
)
# of a red team's attacks, and of harmless questions beside them: (metric, what the key says)
_ATTACKED = (
    ("violation", "attacks that succeed"),
    ("severe_violation", "severely"),
    ("false_refusal", "harmless questions refused"),
)
LEAST = 3  # reward models that make a line of what more of them would know


def persistence(run: RunData) -> list[Panel]:
    """What an instruction of the first turn is worth in later ones: a panel a metric and axis, a line a model."""
    return [panel for kind in _BY_TURN for panel in _over(run, kind)]


def temperatures(run: RunData) -> list[Panel]:
    """Figures 8 and 21: what the best of N answers scores, and how alike the answers to one prompt are."""
    return [panel for kind in _BY_TEMPERATURE for panel in _over(run, kind)]


def _over(run: RunData, kind: Growing) -> list[Panel]:
    form = re.compile(rf"({kind.metric}):{kind.place}(\d+(?:\.\d+)?)")
    found: dict[tuple[str, str | None, str | None, str | None], dict[str, dict[float, Result]]] = {}
    for row in run.results:
        if (named := form.fullmatch(row.metric)) is not None:
            models = found.setdefault((named[1], row.axis, row.judge, row.split), {})
            models.setdefault(row.model or "", {})[float(named[2])] = row
    panels = []
    for (metric, axis, judge, split), models in found.items():
        lines = _lines({name: list(models[name].items()) for name in _in_order(run, models)})
        whole = {
            row.model: row.value for row in run.results if (row.metric, row.axis, row.split) == (metric, axis, split)
        }
        means = " · ".join(f"{name} {percent(mean)}" for name, mean in whole.items() if mean is not None and kind.share)
        title = kind.title.format(metric.rpartition("_")[2])
        drawn = trend(lines, x_label=kind.x_label, y_label=kind.y_label, share=kind.share, whole=kind.whole)
        said = joined(axis or "", f"{judge} judge" if judge not in (None, "gold", "reward") else "", split or "", means)
        panels.append(Panel(title, said, _keys(lines), "", drawn))
    return panels


def scaling(run: RunData) -> list[Panel]:
    """Figure 6: accuracy of reward models over the operations of their training, where three or more differ in them;
    of all pairs, and of the clearest and the least clear."""
    spent = {row.model: float(row.value) for row in run.results if row.metric == "compute" and row.value}
    clear, unsure = f"accuracy:{RATINGS[0]}", f"accuracy:{RATINGS[-1]}"
    panels = []
    for axis in AXIS_COLOUR:
        rows = [r for r in run.results if r.axis == axis and r.split == "heldout" and r.model in spent]
        models = dict.fromkeys(r.model for r in rows if r.metric == "accuracy")
        if len(models) < LEAST or len({spent[name] for name in models}) < LEAST:
            continue
        order = sorted(models, key=lambda name: spent[name])
        named = (("clear preferences", clear), ("all", "accuracy"), ("unsure ones", unsure))
        lines = _lines({label: [(spent[r.model], r) for r in rows if r.metric == key] for label, key in named})
        drawn = trend(lines, x_label="operations of its training", y_label="accuracy", factors=True)
        said = joined(axis, ", ".join(str(name) for name in order), "each on its own held-out pairs")
        panels.append(Panel("More to learn from", said, _keys(lines), "", drawn))
    return panels


def scores(run: RunData) -> list[Panel]:
    """Figure 20: how the scores of each version's answers are distributed, by who scored them."""
    found: dict[tuple[str | None, str | None, str | None], dict[str, dict[float, float]]] = {}
    for row in run.results:
        metric, _, share = row.metric.partition(":")
        if metric == "score_quantile" and row.value is not None:
            models = found.setdefault((row.axis, row.judge, row.split), {})
            models.setdefault(row.model or "", {})[float(share)] = row.value
    panels = []
    for (axis, judge, split), models in found.items():
        if len(models) < 2:
            continue
        rows = [(name, sorted(models[name].items())) for name in _in_order(run, models)]
        drawn = distributions(rows, x_label="score", colour=AXIS_COLOUR.get(axis or "", "plum"))
        panels.append(Panel("Scores of the answers", joined(axis or "", judge or "", split or ""), (), "", drawn))
    return panels


def attacks(run: RunData) -> list[Panel]:
    """Figure 15: which share of a red team's attacks succeeds with each model, and what it refuses beside them."""
    shown = [metric for metric, _ in _ATTACKED]
    rows = [row for row in run.results if row.metric in shown and row.model]
    panels = []
    for split in dict.fromkeys(row.split for row in rows):
        names = _in_order(run, dict.fromkeys(row.model or "" for row in rows if row.split == split))
        if len(names) < 2:
            continue
        lines = _lines(
            {
                label: [(float(names.index(r.model or "")), r) for r in rows if (r.metric, r.split) == (metric, split)]
                for metric, label in _ATTACKED
            }
        )
        drawn = trend(lines, x_label="", y_label="share", names=names)
        panels.append(Panel("Attacks", joined(judged_by(rows[0]), split or ""), _keys(lines), "", drawn))
    return panels


def _lines(points: dict[str, list[tuple[float, Result]]]) -> list[Line]:
    return [
        Line(name, colour, sorted(((x, estimate_of(row)) for x, row in each), key=lambda point: point[0]))
        for (name, each), colour in zip(points.items(), MORE * len(points), strict=False)
        if each
    ]


def _keys(lines: Iterable[Line]) -> tuple[tuple[str, str], ...]:
    return tuple((line.label, line.colour) for line in lines)


def _in_order(run: RunData, names: Iterable[str]) -> list[str]:
    """Models in the order in which they were made."""
    order = [stage.name for stage in run.stages]
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))
