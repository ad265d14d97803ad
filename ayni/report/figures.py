"""Small plots as inline SVG that take their colours from the page, so one drawing serves light and dark.

Each plot is drawn in stand-in colours that are then replaced by CSS variables. Titles and legends are the page's;
what little text enters a plot, matplotlib escapes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ayni.maths.statistics import Estimate

COLOURS = ("ink", "muted", "line", "card", "blue", "teal", "clay", "ochre", "plum")
_STAND_IN = {name: f"#0a0b{index:02x}" for index, name in enumerate(COLOURS)}
_SIZE = (4.7, 2.35)  # inches of 72 units: at a phone's width one unit is about one pixel
_WIDE = 5.6  # two of these stand side by side where three of the others do
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ayni",
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": _STAND_IN["line"],
    "axes.labelcolor": _STAND_IN["muted"],
    "axes.labelsize": 10.5,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _STAND_IN["line"],
    "grid.linewidth": 0.8,
    "text.color": _STAND_IN["ink"],
    "text.parse_math": False,
    "xtick.color": _STAND_IN["line"],
    "ytick.color": _STAND_IN["line"],
    "xtick.labelcolor": _STAND_IN["muted"],
    "ytick.labelcolor": _STAND_IN["muted"],
    "ytick.major.size": 0,
    "xtick.major.size": 3,
}


@dataclass(frozen=True)
class Series:
    """One line: `points` are (x, y) in order; `dots` marks sparse measurements, such as held-out ones."""

    label: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False


def curves(series: Sequence[Series], *, x_label: str = "step", percent: bool = False) -> Markup:
    """Lines over steps; a long noisy line is drawn faint, with its running mean on top."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        _draw(figure.subplots(), series, x_label, percent)
        return _svg(figure)


def stacked(
    upper: Sequence[Series],
    lower: Sequence[Series],
    labels: tuple[str, str],
    limits: Sequence[tuple[float, float] | None],
) -> Markup:
    """Two plots over one axis of steps, each on its own scale: what is optimised above, the truth below."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDE, 3.5), layout="constrained")
        axes = figure.subplots(2, 1, sharex=True)
        for panel, lines, label, limit in zip(axes, (upper, lower), labels, limits, strict=True):
            _draw(panel, lines, "step" if panel is axes[1] else "", False)
            panel.set_ylabel(label)
            if limit is not None:
                panel.set_ylim(*limit)
        return _svg(figure)


def accuracy_bars(bars: Sequence[tuple[str, Estimate]], colour: str) -> Markup:
    """Shares as bars from 0 to 100% with their intervals, and a line where a coin would be."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDE, 2.9), layout="constrained")
        axes = figure.subplots()
        positions = [float(index) for index in range(len(bars))]
        axes.bar(positions, [part.value or 0 for _, part in bars], width=0.58, color=_STAND_IN[colour], alpha=0.75)
        axes.axhline(0.5, color=_STAND_IN["muted"], linewidth=1, linestyle=(0, (4, 3)))
        for position, (_, part) in zip(positions, bars, strict=True):
            top = part.value or 0.0
            if part.interval is not None:
                axes.vlines(position, *part.interval, color=_STAND_IN["ink"], linewidth=1.4)
                top = part.interval[1]
            axes.text(position, top + 0.025, f"{part.value or 0:.0%}", ha="center", va="bottom", fontweight="bold")
        fewer = [part.clusters is not None and part.clusters < part.n for _, part in bars]
        counts = [f"n {p.n:,}" + f"\nin {p.clusters:,}" * few for (_, p), few in zip(bars, fewer, strict=True)]
        axes.set_xticks(positions, [f"{label}\n{count}" for (label, _), count in zip(bars, counts, strict=True)])
        axes.tick_params(axis="x", length=0)
        axes.set_ylim(0, 1.14)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        return _svg(figure)


def reliability_plot(points: Sequence[tuple[float, Estimate]], colour: str) -> Markup:
    """Confidence σ(difference) against the share that came true; on the diagonal the judge knows what it knows."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDE, 2.9), layout="constrained")
        axes = figure.subplots()
        axes.plot([0.5, 1], [0.5, 1], color=_STAND_IN["muted"], linewidth=1, linestyle=(0, (4, 3)))
        for confidence, observed in points:
            if observed.interval is not None:
                axes.vlines(confidence, *observed.interval, color=_STAND_IN[colour], linewidth=1.4, alpha=0.7)
        x, y = [confidence for confidence, _ in points], [part.value or 0 for _, part in points]
        axes.plot(x, y, "o-", color=_STAND_IN[colour], linewidth=1.6, markersize=5)
        axes.set_xlim(0.48, 1.02)
        low = min([0.45, *(part.interval[0] - 0.03 for _, part in points if part.interval is not None)])
        axes.set_ylim(max(0.0, low), 1.03)
        axes.set_xlabel("confidence of the reward model")
        axes.set_ylabel("came true")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_yticks(np.arange(np.ceil(max(0.0, low) * 10) / 10, 1.01, 0.1))
        return _svg(figure)


def plane(points: Sequence[tuple[str, Estimate, Estimate]], labels: tuple[str, str]) -> Markup:
    """Points (name, share on x, share on y) with both intervals, joined in their order; a coin lies at the dashes."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDE, 4.2), layout="constrained")
        axes = figure.subplots()
        x, y = ([part.value or 0.0 for part in parts] for parts in zip(*((a, b) for _, a, b in points), strict=True))
        axes.axhline(0.5, color=_STAND_IN["muted"], linewidth=1, linestyle=(0, (4, 3)))
        axes.axvline(0.5, color=_STAND_IN["muted"], linewidth=1, linestyle=(0, (4, 3)))
        for _, across, up in points:
            if across.interval is not None:
                axes.hlines(up.value or 0.0, *across.interval, color=_STAND_IN["blue"], linewidth=1.2, alpha=0.55)
            if up.interval is not None:
                axes.vlines(across.value or 0.0, *up.interval, color=_STAND_IN["teal"], linewidth=1.2, alpha=0.55)
        axes.plot(x, y, color=_STAND_IN["line"], linewidth=1.4, zorder=1)
        axes.plot(x, y, "o", color=_STAND_IN["plum"], markersize=6)
        axes.grid(True, axis="x")
        axes.margins(0.08)
        _name_at_the_right(axes, [(p[0], across, up, "plum") for p, across, up in zip(points, x, y, strict=True)])
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        for axis in (axes.xaxis, axes.yaxis):
            _in_percent(axis)
        return _svg(figure)


def scatter(groups: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> Markup:
    """Points of several colours on one plane, whose axes mean nothing but nearness; the last group lies on top."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDE, 4.2), layout="constrained")
        axes = figure.subplots()
        for place, (colour, points) in enumerate(groups):
            x, y = zip(*points, strict=True) if points else ((), ())
            top = place == len(groups) - 1
            axes.plot(x, y, "o", color=_STAND_IN[colour], markersize=4.2 if top else 2.4, alpha=0.9 if top else 0.45)
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(False)
        axes.set_xticks([])
        axes.set_yticks([])
        return _svg(figure)


@dataclass(frozen=True)
class Spending:
    """One way to choose answers: (name, tokens per prompt, score) of each of its settings, in order of the tokens."""

    label: str
    colour: str
    points: Sequence[tuple[str, Estimate, Estimate]]


def by_tokens(ways: Sequence[Spending], *, y_label: str) -> Markup:
    """Scores with their intervals over tokens, the settings of a way joined and named in a column at the right."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDE, 3.4), layout="constrained")
        axes = figure.subplots()
        named: list[tuple[str, float, float, str]] = []
        for way in ways:
            x, y = ([part.value or 0.0 for part in parts] for parts in zip(*(p[1:] for p in way.points), strict=True))
            colour = _STAND_IN[way.colour]
            for at, (_, _, score) in zip(x, way.points, strict=True):
                if score.interval is not None:
                    axes.vlines(at, *score.interval, color=colour, linewidth=1.2, alpha=0.55)
            axes.plot(x, y, "o-", color=colour, linewidth=1.4, markersize=5)
            named += [(name, left, low, way.colour) for (name, _, _), left, low in zip(way.points, x, y, strict=True)]
        axes.margins(0.08)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        _name_at_the_right(axes, named)
        axes.set_xlabel("tokens per prompt, read and drawn")
        axes.set_ylabel(y_label)
        return _svg(figure)


@dataclass(frozen=True)
class Point:
    """One method: what it cost or how far it went (x), what it is worth (y), a share; both with their intervals."""

    label: str
    colour: str
    x: Estimate
    y: Estimate


def worth(points: Sequence[Point], *, x_label: str, y_label: str, level: float | None) -> Markup:
    """Points with their names in a column at the right, in the order of their heights; the dashes lie at `level`."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDE, max(3.6, 1.2 + 0.2 * len(points))), layout="constrained")
        axes = figure.subplots()
        if level is not None:
            axes.axhline(level, color=_STAND_IN["muted"], linewidth=1, linestyle=(0, (4, 3)))
        for point in points:
            x, y, colour = point.x.value or 0.0, point.y.value or 0.0, _STAND_IN[point.colour]
            if point.x.interval is not None:
                axes.hlines(y, *point.x.interval, color=colour, linewidth=1.2, alpha=0.5)
            if point.y.interval is not None:
                axes.vlines(x, *point.y.interval, color=colour, linewidth=1.2, alpha=0.5)
            axes.plot([x], [y], "o", color=colour, markersize=5.5)
        axes.grid(True, axis="x")
        axes.margins(0.08)
        _name_at_the_right(axes, [(p.label, p.x.value or 0.0, p.y.value or 0.0, p.colour) for p in points])
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        _in_percent(axes.yaxis)
        return _svg(figure)


def _name_at_the_right(axes: Axes, points: Sequence[tuple[str, float, float, str]]) -> None:
    """Names (with x, y and a colour) in a column beside the axes, in the order of their heights, a line to each."""
    low, high = axes.get_ylim()
    inside = [(y - low) / (high - low) for _, _, y, _ in points]
    line = {"arrowstyle": "-", "color": _STAND_IN["line"], "linewidth": 0.9, "shrinkA": 2, "shrinkB": 5}
    for (name, x, y, colour), height in zip(points, spread(inside, 0.94 / max(len(points), 12)), strict=True):
        axes.annotate(
            name,
            (x, y),
            (1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=9.5,
            color=_STAND_IN[colour],
            arrowprops=line,
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """The heights moved apart to at least `gap` inside [0, 1], in their order: (n,) → (n,). All of them must fit."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved = dict[int, float]()
    floor = 0.0
    for i in order:
        moved[i] = floor = max(heights[i], floor)
        floor += gap
    roof = 1.0
    for i in reversed(order):
        moved[i] = roof = min(moved[i], roof)
        roof -= gap
    return [moved[i] for i in range(len(heights))]


@dataclass(frozen=True)
class Line:
    """One line of numbers with their intervals, over places on x in their order."""

    label: str
    colour: str
    points: Sequence[tuple[float, Estimate]]


def trend(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    share: bool = True,
    whole: bool = False,
    factors: bool = False,
    names: Sequence[str] = (),
) -> Markup:
    """Values over x with interval bars, lines side by side so that no bar hides another. A `share` is in per cent, a
    `whole` one goes to 100%; with `factors` equal ways along x are equal factors; `names` stand at x = 0, 1, 2, …"""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDE, 2.9), layout="constrained")
        axes = figure.subplots()
        places = sorted({x for line in lines for x, _ in line.points})
        gap = min((after - x for x, after in pairwise(places)), default=1.0)
        for place, line in enumerate(lines):
            shift = 0.0 if factors else 0.08 * gap * (place - (len(lines) - 1) / 2)
            at, colour = [x + shift for x, _ in line.points], _STAND_IN[line.colour]
            for x, (_, part) in zip(at, line.points, strict=True):
                if part.interval is not None:
                    axes.vlines(x, *part.interval, color=colour, linewidth=1.4, alpha=0.7)
            axes.plot(at, [part.value or 0 for _, part in line.points], "o-", color=colour, linewidth=1.6, markersize=4)
        if factors:
            axes.set_xscale("log")
        else:
            axes.set_xticks(places, names or [f"{x:g}" for x in places])
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if whole:
            axes.set_ylim(-0.03, 1.03)
            axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        else:
            axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        if share:
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]) if not factors else None)
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        return _svg(figure)


def distributions(rows: Sequence[tuple[str, Sequence[tuple[float, float]]]], *, x_label: str, colour: str) -> Markup:
    """A bar for each name from its quantiles (share, value), thick over the middle half, with a dot at the median."""
    with mpl.rc_context(_STYLE | {"axes.grid.axis": "x"}):
        figure = Figure(figsize=(_WIDE, 1.0 + 0.36 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for height, (_, quantiles) in enumerate(rows):
            for low, width, alpha in ((0.0, 2.0, 0.6), (0.25, 7.0, 0.45)):
                inside = [value for share, value in quantiles if low <= share <= 1 - low]
                axes.hlines(height, min(inside), max(inside), color=_STAND_IN[colour], linewidth=width, alpha=alpha)
            middle = [value for share, value in quantiles if share == 0.5]
            axes.plot(middle, [height] * len(middle), "o", color=_STAND_IN["ink"], markersize=5)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.invert_yaxis()
        axes.margins(y=0.12)
        axes.set_xlabel(x_label)
        return _svg(figure)


def _in_percent(axis: Axis) -> None:
    """Ticks of whole percents: 2.5 of them apart they would be rounded to odd places."""
    axis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(PercentFormatter(1, decimals=0))


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean over a window of `width` around each value, narrower at the ends; (n,) → (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, np.float64))])
    index = np.arange(len(values))
    reach = np.minimum(np.minimum(index, len(values) - 1 - index), width // 2)
    return [float(value) for value in (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)]


def _draw(axes: Axes, series: Sequence[Series], x_label: str, percent: bool) -> None:
    for line in series:
        colour = _STAND_IN[line.colour]
        x, y = np.asarray(line.x), np.asarray(line.y)
        if line.dots or len(x) == 1:
            axes.plot(x, y, "o-", color=colour, linewidth=1, markersize=3.6)
        elif len(x) < 40:
            axes.plot(x, y, color=colour, linewidth=1.8)
        else:
            keep = np.unique(np.linspace(0, len(x) - 1, 600).astype(int))
            smooth = np.asarray(running_mean(line.y, max(5, len(x) // 20)))
            axes.plot(x[keep], y[keep], color=colour, linewidth=0.7, alpha=0.35)
            axes.plot(x[keep], smooth[keep], color=colour, linewidth=1.8)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    if x_label:
        axes.set_xlabel(x_label)


def _svg(figure: Figure) -> Markup:
    """The figure as an element to place in HTML: no prolog, no style sheet, no names that could clash."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="(?!m[0-9a-f]{10}"|p[0-9a-f]{10}")[^"]*"', "", text)  # ids of markers and clips are hashes
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r"(font: (?:[a-z0-9]+ )*[0-9.]+px) [^;\"]*", r"\1 var(--sans)", text)
    text = re.sub(r"(<svg[^>]*?) width=\"[^\"]*\" height=\"[^\"]*\"", r'\1 aria-hidden="true"', text, count=1)
    for name, colour in _STAND_IN.items():
        text = text.replace(colour, f"var(--{name})")
    return Markup(re.sub(r"\n\s*", "\n", text))
