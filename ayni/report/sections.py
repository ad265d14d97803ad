"""What each section of the page says: a run's numbers chosen, ordered and put into words. None where data is absent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ayni.evaluate.results import Result
from ayni.maths.statistics import Estimate
from ayni.online.alarms import Alarm, alarms
from ayni.records import RATINGS
from ayni.report.figures import Series, accuracy_bars, curves, reliability_plot, stacked
from ayni.runs.headlines import NO_INTERVAL, counted, headlines, too_few
from ayni.runs.reading import RunData, SampleRow, StageData

AXIS_COLOUR = {"helpfulness": "blue", "safety": "teal"}
_RATING_LABEL = dict(
    zip(RATINGS, ("significantly\nbetter", "better", "slightly\nbetter", "negligibly\nbetter"), strict=True)
)
_PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Reward", ("reward", "score")),
    ("Reward by axis", ("helpfulness", "safety")),
    ("Gold score by axis", ("gold_helpfulness", "gold_safety")),
    ("Best and typical answer", ("best", "mean", "median")),
    ("KL, nats per answer", ("kl",)),
    ("Variance that the critic explains", ("explained_variance",)),
    ("Entropy, nats per token", ("entropy",)),
    ("Value loss", ("value_loss",)),
    ("Clipped share of tokens", ("clipped",)),
    ("Answer length, tokens", ("length",)),
)
_LINE_COLOUR = {
    "safety": "teal",
    "gold_safety": "teal",
    "kl": "clay",
    "best": "ochre",
    "reward": "plum",
    "score": "ochre",
    "median": "muted",
}
MORE = "blue", "clay", "teal", "ochre", "plum"


@dataclass(frozen=True)
class Card:
    """One headline number."""

    title: str
    label: str
    value: str
    detail: str
    colour: str


@dataclass(frozen=True)
class Panel:
    """One small plot with its title, its keys (label, colour) and a closing number."""

    title: str
    subtitle: str
    keys: tuple[tuple[str, str], ...]
    last: str
    svg: Markup


@dataclass(frozen=True)
class ComparedAnswers:
    """One prompt with the answers to compare: (model, answer, ((axis, score), …))."""

    row: SampleRow
    answers: tuple[tuple[str, str, tuple[tuple[str, float], ...]], ...]


def percent(value: float) -> str:
    """A share for reading: 78%, 4.5% when small, 99.6% when nearly all."""
    digits = 1 if 0 < value < 0.1 or 0.99 < value < 1 else 0
    return f"{100 * value:.{digits}f}%"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def operations(flops: float) -> str:
    """3.2 TFLOP"""
    exponent = min(max(int(math.log10(flops) // 3), 0), 6) if flops >= 1 else 0
    return f"{flops / 1000**exponent:.3g} {['', 'K', 'M', 'G', 'T', 'P', 'E'][exponent]}FLOP"


def span(row: Result, unit: str = "share") -> str:
    """The interval in words, or nothing."""
    if row.interval is None:
        return NO_INTERVAL if too_few(row) else ""
    low, high = row.interval
    return f"{percent(low)} to {percent(high)}" if unit == "share" else f"{low:.2f} to {high:.2f}"


def cards(run: RunData) -> list[Card]:
    """The headlines of the final model, and those that are not about it."""
    final, found = run.final_model(), []
    for shown, row in headlines(run.results):
        if not shown.label or (row.model and final and row.model != final and not shown.any_model):
            continue
        axis, value = row.axis or "", row.value or 0.0
        label = shown.label.format(axis=axis or "all", model=row.model or "", against=row.against or "the reference")
        number = percent(value) if shown.share else f"{value:.2f}"
        title, colour = shown.name, shown.colour
        if row.metric == "win_rate" and axis:
            title, colour = axis, AXIS_COLOUR.get(axis, shown.colour)
        detail = joined(shown.unit, span(row, "share" if shown.share else "number"), _in_clusters(row), judged_by(row))
        found.append(Card(title[:1].upper() + title[1:], label.strip(" ,"), number, detail, colour))
    return list(dict.fromkeys(found))


def openings(run: RunData) -> list[str]:
    """Who opened the sealed test split: a sentence for every recipe, commit and seed that did."""
    found: dict[str, list[str]] = {}
    for stage in run.stages:
        if stage.opened is not None:
            commit = str(stage.opened.get("commit") or "")[:12]
            changed = " with changes" if stage.opened.get("changed") else ""
            by = f"recipe {stage.opened['recipe']}" if stage.opened.get("recipe") else "a single command"
            at = f"commit {commit}{changed}" if commit else "no repository"
            found.setdefault(f"{by}, {at}, seed {stage.opened.get('seed')}", []).append(stage.name)
    return [f"The test split was opened by {', '.join(names)}: {who}." for who, names in found.items()]


def loss_panels(run: RunData) -> list[Panel]:
    panels = []
    for stage in run.stages:
        x, y = stage.series("loss")
        if stage.family == "online" or not x:
            continue
        lines = [Series("training loss", "blue", x, y)]
        for key in ("heldout_loss", "heldout", "validation_loss"):
            held_x, held_y = stage.series(key)
            if held_x:
                lines.append(Series("held out", "clay", held_x, held_y, dots=True))
        keys = tuple((line.label, line.colour) for line in lines) if len(lines) > 1 else ()
        panels.append(
            Panel(
                stage.name,
                joined(stage.kind, f"{len(x):,} steps logged"),
                keys,
                f"{lines[-1].y[-1]:.3f}",
                curves(lines),
            )
        )
    return panels


def online_panels(run: RunData) -> list[tuple[str, list[Panel], list[Alarm]]]:
    """(title, plots, alarms) of every stage that samples; the rounds of rejection sampling share one title."""
    found: dict[str, list[Panel]] = {}
    rung: dict[str, list[Alarm]] = {}
    for stage in run.stages:
        if stage.family == "online" or stage.selects_samples:
            subtitle = stage.name if stage.selects_samples else ""
            panels = [_panel(stage, title, keys, subtitle) for title, keys in _PANELS]
            title = "Rejection sampling" if stage.selects_samples else stage.name
            found.setdefault(title, []).extend(panel for panel in panels if panel is not None)
            if not stage.selects_samples:
                rung[title] = alarms(stage.metrics)
    return [(title, panels, rung.get(title, [])) for title, panels in found.items() if panels]


def _panel(stage: StageData, title: str, names: Sequence[str], subtitle: str) -> Panel | None:
    lines = []
    for name in names:
        for key, dots in ((name, False), (f"heldout_{name}", True)):
            x, y = stage.series(key)
            if len(x) > 1:  # one point is no curve
                colour = _LINE_COLOUR.get(name, "blue")
                lines.append(Series(key.replace("_", " "), "clay" if dots and len(names) == 1 else colour, x, y, dots))
    if not lines:
        return None
    keys = tuple((line.label, line.colour) for line in lines) if len(lines) > 1 else ()
    by_n = stage.selects_samples and any("n" in line for line in stage.metrics)
    drawn = curves(lines, x_label="answers per prompt" if by_n else "step", percent="clipped" in names)
    last = percent(lines[0].y[-1]) if "clipped" in names else f"{lines[0].y[-1]:.3g}"
    return Panel(title, subtitle, keys, last, drawn)


def reward_panels(run: RunData) -> list[Panel]:
    """For every reward model on every axis: accuracy by rating as bars, and its reliability."""
    panels = []
    groups = dict.fromkeys(
        (row.model, row.axis, row.split, row.judge) for row in run.results if row.metric == "accuracy"
    )
    for group in groups:
        rows = [row for row in run.results if (row.model, row.axis, row.split, row.judge) == group]
        model, axis, split, judge = group
        colour = AXIS_COLOUR.get(axis or "", "plum")
        title = f"{(axis or model or 'Reward').capitalize()} reward model"
        overall = next(row for row in rows if row.metric == "accuracy")
        last = percent(overall.value) if overall.value is not None else ""
        name = " ".join(part for part in (model, split, judge) if part)
        bars = [(_rating(row.metric), estimate_of(row)) for row in rows if row.metric.startswith("accuracy:")]
        bars.sort(key=lambda bar: list(_RATING_LABEL.values()).index(bar[0]) if bar[0] in _RATING_LABEL.values() else 9)
        gain = next((_gain(row) for row in rows if row.metric == "accuracy_gain"), "")
        subtitle = joined("accuracy by clearness of the preference", name, gain)
        drawn = accuracy_bars([*bars, ("all", estimate_of(overall))], colour)
        panels.append(Panel(title, subtitle, (), last, drawn))
        points = [_point(row) for row in rows if row.metric.startswith("calibration:")]
        if points:
            error = next((row.value for row in rows if row.metric == "calibration_error"), None)
            note = f"calibration error {error:.3f}" if error is not None else ""
            panels.append(
                Panel(title, joined("is its confidence earned?", note), (), "", reliability_plot(points, colour))
            )
    return panels


def _gain(row: Result) -> str:
    """How many points more an earlier model's successor has."""
    if row.value is None or row.interval is None:
        return ""
    low, high = (f"{100 * bound:+.1f}" for bound in row.interval)
    return f"{100 * row.value:+.1f} points on {row.against} [{low}, {high}]"


def _point(row: Result) -> tuple[float, Estimate]:
    return float(row.metric.split(":", 1)[1]), estimate_of(row)


def _rating(metric: str) -> str:
    name = metric.split(":", 1)[1]
    return _RATING_LABEL.get(name, name.replace("_", " ")) if name in RATINGS else name.replace("_", "\n")


def hacking(run: RunData) -> list[Panel]:
    """Studies that logged what was optimised (`proxy`) beside the truth (`gold`), one panel per variant."""
    found: list[tuple[str, Series, Series]] = []
    for stage in run.stages:
        variants = dict.fromkeys(
            str(line.get("variant", "")) for line in stage.metrics if {"proxy", "gold"} <= line.keys()
        )
        for variant in variants:
            lines = [
                line
                for line in stage.metrics
                if {"proxy", "gold"} <= line.keys() and str(line.get("variant", "")) == variant
            ]
            x = [float(line["step"]) for line in lines]
            proxy = Series("proxy: what is optimised", "plum", x, [float(line["proxy"]) for line in lines])
            gold = Series("gold: the truth", "ochre", x, [float(line["gold"]) for line in lines])
            found.append((variant or stage.name, proxy, gold))
    limits = [_limits([proxy.y for _, proxy, _ in found]), _limits([gold.y for _, _, gold in found])]
    panels = []
    for name, proxy, gold in found:
        keys = ((proxy.label, proxy.colour), (gold.label, gold.colour))
        drawn = stacked([proxy], [gold], ("proxy", "gold"), limits)
        panels.append(Panel(name, "", keys, "", drawn))
    return panels


def _limits(values: Iterable[Sequence[float]]) -> tuple[float, float] | None:
    flat = [value for series in values for value in series]
    if not flat or max(flat) == min(flat):
        return None
    room = 0.06 * (max(flat) - min(flat))
    return min(flat) - room, max(flat) + room


def compared_answers(run: RunData, most: int = 24) -> list[ComparedAnswers]:
    """Samples in which answers differ, a category at a time so that every sort of prompt is seen early.

    A prompt's answers in all evaluations stand together: of those that others are held against first, then version by
    version.
    """
    asked: dict[str, list[SampleRow]] = {}
    for stage in run.stages:
        for number, row in enumerate(stage.samples):
            asked.setdefault(row.prompt.id or f"{stage.name} {number}", []).append(row)
    by_category: dict[tuple[str, str], list[ComparedAnswers]] = {}
    for rows in asked.values():
        prompt = rows[0].prompt
        by_category.setdefault((prompt.task, prompt.category), []).append(ComparedAnswers(rows[0], _in_order(rows)))
    categories = [
        sorted(found, key=lambda each: len({text for _, text, _ in each.answers}) < 2) for found in by_category.values()
    ]
    chosen = [
        found[turn] for turn in range(max(map(len, categories), default=0)) for found in categories if turn < len(found)
    ]
    return chosen[:most]


def _in_order(rows: list[SampleRow]) -> tuple[tuple[str, str, tuple[tuple[str, float], ...]], ...]:
    """The answers of all rows of one prompt, each model's once; a row's first model is held against its others."""
    names = dict.fromkeys(name for row in rows for name in list(row.answers)[1:])
    names |= dict.fromkeys(name for row in rows for name in row.answers)
    found = {name: next(row for row in rows if name in row.answers) for name in names}
    return tuple((name, row.answers[name], tuple(row.scores.get(name, {}).items())) for name, row in found.items())


def result_rows(run: RunData) -> list[Result]:
    """Every measured number but the points of the reliability plots."""
    return [row for row in run.results if not row.metric.startswith("calibration:")]


def estimate_of(row: Result) -> Estimate:
    return Estimate(row.value, row.interval, row.n or 0, row.level or 0.95, row.method or "", row.clusters)


def _in_clusters(row: Result) -> str:
    """What it was counted on, where that is less than it looks."""
    return counted(row) if row.clusters is not None and row.clusters < (row.n or 0) else ""


def judged_by(row: Result) -> str:
    return f"{row.judge} judge" if row.judge else ""


def joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)
