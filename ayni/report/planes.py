"""Points on planes, each with both its intervals and its name: versions, methods, ways to choose an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ayni.maths.statistics import Estimate
from ayni.report.canvas import STAND_IN, STYLE, WIDE, as_svg, in_percent


def plane(points: Sequence[tuple[str, Estimate, Estimate]], labels: tuple[str, str]) -> Markup:
    """Points (name, share on x, share on y) with both intervals, joined in their order; a coin lies at the dashes."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDE, 4.2), layout="constrained")
        axes = figure.subplots()
        x, y = ([part.value or 0.0 for part in parts] for parts in zip(*((a, b) for _, a, b in points), strict=True))
        axes.axhline(0.5, color=STAND_IN["muted"], linewidth=1, linestyle=(0, (4, 3)))
        axes.axvline(0.5, color=STAND_IN["muted"], linewidth=1, linestyle=(0, (4, 3)))
        for _, across, up in points:
            if across.interval is not None:
                axes.hlines(up.value or 0.0, *across.interval, color=STAND_IN["blue"], linewidth=1.2, alpha=0.55)
            if up.interval is not None:
                axes.vlines(across.value or 0.0, *up.interval, color=STAND_IN["teal"], linewidth=1.2, alpha=0.55)
        axes.plot(x, y, color=STAND_IN["line"], linewidth=1.4, zorder=1)
        axes.plot(x, y, "o", color=STAND_IN["plum"], markersize=6)
        axes.grid(True, axis="x")
        axes.margins(0.08)
        _name_at_the_right(axes, [(p[0], across, up, "plum") for p, across, up in zip(points, x, y, strict=True)])
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        for axis in (axes.xaxis, axes.yaxis):
            in_percent(axis)
        return as_svg(figure)


def scatter(groups: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> Markup:
    """Points of several colours on one plane, whose axes mean nothing but nearness; the last group lies on top."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDE, 4.2), layout="constrained")
        axes = figure.subplots()
        for place, (colour, points) in enumerate(groups):
            x, y = zip(*points, strict=True) if points else ((), ())
            top = place == len(groups) - 1
            axes.plot(x, y, "o", color=STAND_IN[colour], markersize=4.2 if top else 2.4, alpha=0.9 if top else 0.45)
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(False)
        axes.set_xticks([])
        axes.set_yticks([])
        return as_svg(figure)


@dataclass(frozen=True)
class Spending:
    """One way to choose answers: (name, tokens per prompt, score) of each of its settings, in order of the tokens."""

    label: str
    colour: str
    points: Sequence[tuple[str, Estimate, Estimate]]


def by_tokens(ways: Sequence[Spending], *, y_label: str) -> Markup:
    """Scores with their intervals over tokens, the settings of a way joined and named in a column at the right."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDE, 3.4), layout="constrained")
        axes = figure.subplots()
        named: list[tuple[str, float, float, str]] = []
        for way in ways:
            x, y = ([part.value or 0.0 for part in parts] for parts in zip(*(p[1:] for p in way.points), strict=True))
            colour = STAND_IN[way.colour]
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
        return as_svg(figure)


@dataclass(frozen=True)
class Point:
    """One method: what it cost or how far it went (x), what it is worth (y), a share; both with their intervals."""

    label: str
    colour: str
    x: Estimate
    y: Estimate


def worth(points: Sequence[Point], *, x_label: str, y_label: str, level: float | None) -> Markup:
    """Points with their names in a column at the right, in the order of their heights; the dashes lie at `level`."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDE, max(3.6, 1.2 + 0.2 * len(points))), layout="constrained")
        axes = figure.subplots()
        if level is not None:
            axes.axhline(level, color=STAND_IN["muted"], linewidth=1, linestyle=(0, (4, 3)))
        for point in points:
            x, y, colour = point.x.value or 0.0, point.y.value or 0.0, STAND_IN[point.colour]
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
        in_percent(axes.yaxis)
        return as_svg(figure)


def _name_at_the_right(axes: Axes, points: Sequence[tuple[str, float, float, str]]) -> None:
    """Names (with x, y and a colour) in a column beside the axes, in the order of their heights, a line to each."""
    low, high = axes.get_ylim()
    inside = [(y - low) / (high - low) for _, _, y, _ in points]
    line = {"arrowstyle": "-", "color": STAND_IN["line"], "linewidth": 0.9, "shrinkA": 2, "shrinkB": 5}
    for (name, x, y, colour), height in zip(points, spread(inside, 0.94 / max(len(points), 12)), strict=True):
        axes.annotate(
            name,
            (x, y),
            (1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=9.5,
            color=STAND_IN[colour],
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
