"""Lines and bars: what a number does over steps, turns or temperatures, and how numbers lie beside each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from ayni.maths.statistics import Estimate
from ayni.report.canvas import SIZE, STAND_IN, STYLE, WIDE, as_svg


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
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        _draw(figure.subplots(), series, x_label, percent)
        return as_svg(figure)


def stacked(
    upper: Sequence[Series],
    lower: Sequence[Series],
    labels: tuple[str, str],
    limits: Sequence[tuple[float, float] | None],
) -> Markup:
    """Two plots over one axis of steps, each on its own scale: what is optimised above, the truth below."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDE, 3.5), layout="constrained")
        axes = figure.subplots(2, 1, sharex=True)
        for panel, lines, label, limit in zip(axes, (upper, lower), labels, limits, strict=True):
            _draw(panel, lines, "step" if panel is axes[1] else "", False)
            panel.set_ylabel(label)
            if limit is not None:
                panel.set_ylim(*limit)
        return as_svg(figure)


def accuracy_bars(bars: Sequence[tuple[str, Estimate]], colour: str) -> Markup:
    """Shares as bars from 0 to 100% with their intervals, and a line where a coin would be."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDE, 2.9), layout="constrained")
        axes = figure.subplots()
        positions = [float(index) for index in range(len(bars))]
        axes.bar(positions, [part.value or 0 for _, part in bars], width=0.58, color=STAND_IN[colour], alpha=0.75)
        axes.axhline(0.5, color=STAND_IN["muted"], linewidth=1, linestyle=(0, (4, 3)))
        for position, (_, part) in zip(positions, bars, strict=True):
            top = part.value or 0.0
            if part.interval is not None:
                axes.vlines(position, *part.interval, color=STAND_IN["ink"], linewidth=1.4)
                top = part.interval[1]
            axes.text(position, top + 0.025, f"{part.value or 0:.0%}", ha="center", va="bottom", fontweight="bold")
        fewer = [part.clusters is not None and part.clusters < part.n for _, part in bars]
        counts = [f"n {p.n:,}" + f"\nin {p.clusters:,}" * few for (_, p), few in zip(bars, fewer, strict=True)]
        axes.set_xticks(positions, [f"{label}\n{count}" for (label, _), count in zip(bars, counts, strict=True)])
        axes.tick_params(axis="x", length=0)
        axes.set_ylim(0, 1.14)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        return as_svg(figure)


def reliability_plot(points: Sequence[tuple[float, Estimate]], colour: str) -> Markup:
    """Confidence σ(difference) against the share that came true; on the diagonal the judge knows what it knows."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDE, 2.9), layout="constrained")
        axes = figure.subplots()
        axes.plot([0.5, 1], [0.5, 1], color=STAND_IN["muted"], linewidth=1, linestyle=(0, (4, 3)))
        for confidence, observed in points:
            if observed.interval is not None:
                axes.vlines(confidence, *observed.interval, color=STAND_IN[colour], linewidth=1.4, alpha=0.7)
        x, y = [confidence for confidence, _ in points], [part.value or 0 for _, part in points]
        axes.plot(x, y, "o-", color=STAND_IN[colour], linewidth=1.6, markersize=5)
        axes.set_xlim(0.48, 1.02)
        low = min([0.45, *(part.interval[0] - 0.03 for _, part in points if part.interval is not None)])
        axes.set_ylim(max(0.0, low), 1.03)
        axes.set_xlabel("confidence of the reward model")
        axes.set_ylabel("came true")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_yticks(np.arange(np.ceil(max(0.0, low) * 10) / 10, 1.01, 0.1))
        return as_svg(figure)


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
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDE, 2.9), layout="constrained")
        axes = figure.subplots()
        places = sorted({x for line in lines for x, _ in line.points})
        gap = min((after - x for x, after in pairwise(places)), default=1.0)
        for place, line in enumerate(lines):
            shift = 0.0 if factors else 0.08 * gap * (place - (len(lines) - 1) / 2)
            at, colour = [x + shift for x, _ in line.points], STAND_IN[line.colour]
            for x, (_, part) in zip(at, line.points, strict=True):
                if part.interval is not None:
                    axes.vlines(x, *part.interval, color=colour, linewidth=1.4, alpha=0.7)
            axes.plot(at, [part.value or 0 for _, part in line.points], "o-", color=colour, linewidth=1.6, markersize=4)
        if factors:
            axes.set_xscale("log")
            ticks = round_numbers(places[0], places[-1])
            axes.set_xticks(ticks, [power(x) for x in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
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
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        if share and not factors:
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        return as_svg(figure)


def round_numbers(low: float, high: float) -> list[float]:
    """Two to five of 1, 2 and 5 times powers of ten between them; themselves where there are no two."""
    powers = [10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    found = [m * p for p in powers for m in (1, 2, 5) if low <= m * p <= high]
    if len(found) > 5:
        found = [p for p in powers if low <= p <= high]
    return found[:: -(-len(found) // 5)] if len(found) > 1 else [low, high]


def power(x: float) -> str:
    """2e13 → 2·10¹³, in characters: the page's font sets them."""
    digits, exponent = f"{x:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits.removesuffix('.0')}·10{raised}"


def distributions(rows: Sequence[tuple[str, Sequence[tuple[float, float]]]], *, x_label: str, colour: str) -> Markup:
    """A bar for each name from its quantiles (share, value), thick over the middle half, with a dot at the median."""
    with mpl.rc_context(STYLE | {"axes.grid.axis": "x"}):
        figure = Figure(figsize=(WIDE, 1.0 + 0.36 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for height, (_, quantiles) in enumerate(rows):
            for low, width, alpha in ((0.0, 2.0, 0.6), (0.25, 7.0, 0.45)):
                inside = [value for share, value in quantiles if low <= share <= 1 - low]
                axes.hlines(height, min(inside), max(inside), color=STAND_IN[colour], linewidth=width, alpha=alpha)
            middle = [value for share, value in quantiles if share == 0.5]
            axes.plot(middle, [height] * len(middle), "o", color=STAND_IN["ink"], markersize=5)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.invert_yaxis()
        axes.margins(y=0.12)
        axes.set_xlabel(x_label)
        return as_svg(figure)


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean over a window of `width` around each value, narrower at the ends; (n,) → (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, np.float64))])
    index = np.arange(len(values))
    reach = np.minimum(np.minimum(index, len(values) - 1 - index), width // 2)
    return [float(value) for value in (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)]


def _draw(axes: Axes, series: Sequence[Series], x_label: str, percent: bool) -> None:
    for line in series:
        colour = STAND_IN[line.colour]
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
