"""One model beside another: win rates, versions in one plane, what the recipe claimed, what choosing answers buys."""

from __future__ import annotations

from dataclasses import dataclass

from ayni.evaluate.results import Result
from ayni.maths.statistics import Estimate
from ayni.report.planes import Spending, by_tokens, plane, scatter
from ayni.report.sections import AXIS_COLOUR, MORE, Panel, estimate_of, joined, judged_by, percent
from ayni.runs.headlines import NO_INTERVAL, counted
from ayni.runs.reading import RunData


@dataclass(frozen=True)
class Rate:
    """One row of the forest plot; numbers are per cent, `bounds` None where too little was drawn for an interval.

    `equal_length` says what it would be if answers were equally long, where their lengths are known.
    """

    label: str
    against: str
    judge: str
    value: float
    bounds: tuple[float, float] | None
    half: float | None
    counts: str
    equal_length: str = ""


@dataclass(frozen=True)
class ClaimRow:
    """One claim of the recipe: what it says, where the paper says it, and what became of it."""

    says: str
    paper: str
    verdict: str
    number: str
    asked: str


def win_rates(run: RunData) -> list[tuple[str, str, list[Rate]]]:
    """(axis, colour, rows) for every axis that has a win rate."""
    axes: dict[str, list[Rate]] = {}
    for row in run.results:
        if row.metric != "win_rate" or row.value is None:
            continue
        same = (row.axis, row.judge, row.model, row.against, row.split)
        alike = {r.metric: r for r in reversed(run.results) if (r.axis, r.judge, r.model, r.against, r.split) == same}
        half, controlled = alike.get("win_rate_half"), alike.get("win_rate_length_controlled")
        judge = joined(judged_by(row), row.split or "")
        rate = Rate(
            row.model or "",
            row.against or "",
            judge,
            100 * row.value,
            None if row.interval is None else (100 * row.interval[0], 100 * row.interval[1]),
            None if half is None or half.value is None else 100 * half.value,
            counted(row) if row.interval is not None else joined(counted(row), NO_INTERVAL),
            "" if controlled is None else _at_equal_length(controlled),
        )
        axes.setdefault(row.axis or "overall", []).append(rate)
    return [(axis, AXIS_COLOUR.get(axis, "plum"), rates) for axis, rates in axes.items()]


@dataclass(frozen=True)
class Agreed:
    """How far two judges agree on the same answers of two models; both numbers as read, with their intervals."""

    axis: str
    models: str
    judges: str
    share: str
    ac2: str
    counts: str


def agreements(run: RunData) -> list[Agreed]:
    """Every two judges of one contest, people among themselves too."""
    rows = []
    for row in run.results:
        if not row.metric.startswith("agreement:"):
            continue
        other = row.metric.removeprefix("agreement:")
        same = (row.axis, row.judge, row.model, row.against, row.split)
        alike = (r for r in run.results if (r.axis, r.judge, r.model, r.against, r.split) == same)
        beyond = next((r for r in alike if r.metric == f"ac2:{other}"), None)
        judges = f"{row.judge} among themselves" if other == row.judge else f"{row.judge} and {other}"
        models = f"{row.model} against {row.against}"
        spread = "" if row.interval is None else f" [{percent(row.interval[0])}, {percent(row.interval[1])}]"
        share = "" if row.value is None else percent(row.value) + spread
        rows.append(Agreed(row.axis or "", models, judges, share, _number(beyond), counted(row)))
    return list(dict.fromkeys(rows))


def _number(row: Result | None) -> str:
    if row is None or row.value is None:
        return ""
    return f"{row.value:.2f}" + ("" if row.interval is None else f" [{row.interval[0]:.2f}, {row.interval[1]:.2f}]")


def _at_equal_length(row: Result) -> str:
    if row.value is None:
        return ""
    bounds = "" if row.interval is None else f" [{100 * row.interval[0]:.0f}, {100 * row.interval[1]:.0f}]"
    return f"{percent(row.value)}{bounds} at equal length"


def claims(run: RunData) -> list[ClaimRow]:
    """What the recipe said before it ran."""
    rows = []
    for each in run.claims():
        claim = each.claim
        side, bound = ("above", claim.above) if claim.above is not None else ("below", claim.below)
        spread = "" if each.interval is None else f"[{each.interval[0]:.3g}, {each.interval[1]:.3g}]"
        number = joined("" if each.value is None else f"{each.value:.3g} {spread}".strip(), each.why)
        rows.append(ClaimRow(claim.says, claim.paper, each.verdict, number, f"{side} {bound:g}"))
    return rows


def versions(run: RunData) -> list[Panel]:
    """Figure 11: all models that were compared with the same one by the same judge, on both axes, in the order in which
    they were made; from two of them on."""
    order = [stage.name for stage in run.stages]
    found: dict[tuple[str | None, ...], dict[str, dict[str, Result]]] = {}
    for row in run.results:
        if row.metric == "win_rate" and row.axis in AXIS_COLOUR and row.model and row.value is not None:
            found.setdefault((row.against, row.judge, row.split), {}).setdefault(row.model, {})[row.axis] = row
    panels = []
    for (against, judge, split), models in found.items():
        both = [(name, rows) for name, rows in models.items() if rows.keys() == AXIS_COLOUR.keys()]
        both.sort(key=lambda named: order.index(named[0]) if named[0] in order else len(order))
        if len(both) < 2:
            continue
        points = [(name, estimate_of(rows["helpfulness"]), estimate_of(rows["safety"])) for name, rows in both]
        title = f"Every version against {against}"
        subtitle = joined(f"{judge} judge" if judge else "", split or "", "95% intervals", "ties left out")
        panels.append(Panel(title, subtitle, (), "", plane(points, ("more helpful", "safer"))))
    return panels


def spending(run: RunData) -> list[Panel]:
    """What choosing among answers buys for how many tokens: per axis the judge's score and the chooser's own."""
    panels = []
    for metric, y_label in (("score", "score"), ("chosen_reward", "reward")):
        rows = [row for row in run.results if row.metric == metric and row.value is not None]
        for axis, judge, split in dict.fromkeys((row.axis, row.judge, row.split) for row in rows):
            found: dict[str, list[tuple[str, Estimate, Estimate]]] = {}
            for row in rows:
                key = (row.model, row.axis, row.split)
                cost = next(
                    (r for r in run.results if r.metric == "tokens_spent" and (r.model, r.axis, r.split) == key), None
                )
                if cost is not None and (row.axis, row.judge, row.split) == (axis, judge, split):
                    way, setting = _chosen(row.model or "")
                    found.setdefault(way, []).append((setting, estimate_of(cost), estimate_of(row)))
            ways = [
                Spending(way, colour, sorted(points, key=lambda point: point[1].value or 0))
                for (way, points), colour in zip(found.items(), MORE * len(found), strict=False)
            ]
            if ways:
                keys = tuple((way.label, way.colour) for way in ways)
                said = joined(axis or "", f"{judge} judge" if metric == "score" and judge else "", split or "")
                panels.append(Panel(y_label.capitalize(), said, keys, "", by_tokens(ways, y_label=y_label)))
    return panels


def _chosen(model: str) -> tuple[str, str]:
    """The model with the way in which its answers were chosen, and that way's setting: (sft best of, 8)."""
    for how in (" best of ", " beam ", " tree "):
        base, found, setting = model.partition(how)
        if found:
            guided = " by critic" if setting.endswith(" by critic") else ""
            return f"{base}{how.rstrip()}{guided}", setting.removesuffix(guided)
    return model, ""


MOST_POINTS = 2000  # of a colour on one plane: more are no clearer, and a page has a size


def selections(run: RunData) -> list[Panel]:
    """What every core set took, among all that it could have taken."""
    panels = []
    for stage in run.stages:
        if not stage.points:
            continue
        both = [[(p.x, p.y) for p in stage.points if p.chosen is chosen] for chosen in (False, True)]
        shown = [points[:: -(-len(points) // MOST_POINTS) or 1] for points in both]
        keys = (("left", "muted"), ("chosen", "clay"))
        title = f"{len(both[1]):,} of {len(stage.points):,}"
        drawn = scatter([(colour, points) for (_, colour), points in zip(keys, shown, strict=True)])
        panels.append(Panel(stage.name, "the two widest directions of the embeddings", keys, title, drawn))
    return panels
