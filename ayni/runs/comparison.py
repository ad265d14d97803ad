"""Methods beside each other, from one or more finished runs: what each is worth by the judge, and what it cost.

A method is what a final evaluation judged against the model that all started from; the judge is gold, unless another
is named. What was measured prompt by prompt is pooled from the runs' outcomes.jsonl and items.jsonl, by cluster; what
is one number a run is averaged over the runs. What a method cost is what its own stages cost, those that bear its name
(ayni.runs.methods): the start, the comparisons and the reward models are given to all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ayni.errors import BadInput
from ayni.evaluate.results import Result, result
from ayni.maths.clustered import clustered_mean, clustered_share
from ayni.maths.statistics import Estimate
from ayni.runs.claims import Verdict
from ayni.runs.judged_methods import GOLD, Draw, Judged, Judges, judged_in, judges_there

CONTROL = "random"
ALIKE = 1.25  # equal compute: within this factor of the median method's


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of every method. `share`: between -1 and 1; `axis`: whose judge said so; `judge`: gold, which alone
    knows what is right; `cost`: what it took."""

    key: str
    name: str
    share: bool = False
    axis: str = ""
    judge: str | None = None
    cost: bool = False


MEASURES = (
    Measure("helpfulness", "helpfulness", share=True, axis="helpfulness"),
    Measure("over_control", "over the control", share=True, axis="helpfulness"),
    Measure("behind_best", "over the best", share=True, axis="helpfulness"),
    Measure("safety", "safety", share=True, axis="safety"),
    Measure("safety_over_control", "over the control", share=True, axis="safety"),
    Measure("content", "right content", share=True, judge="gold"),
    Measure("content_over_control", "over the control", share=True, judge="gold"),
    Measure("kl", "KL"),
    Measure("length", "tokens"),
    Measure("drawn", "tokens drawn"),
    Measure("self_bleu", "Self-BLEU", share=True),
    Measure("refused", "borderline refused", share=True, judge="gold"),
    Measure("forward", "tokens forward", cost=True),
    Measure("backward", "tokens backward", cost=True),
    Measure("flops", "compute", cost=True),
    Measure("flops_of_tries", "compute, all tries", cost=True),
    Measure("seconds", "seconds", cost=True),
    Measure("seconds_of_tries", "seconds, all tries", cost=True),
    Measure("memory", "peak memory", cost=True),
    Measure("lines", "lines of code", cost=True),
)
OVER_CONTROL = ("over_control", "safety_over_control", "content_over_control")


@dataclass(frozen=True)
class Method:
    """One method: its numbers by Measure.key (absent: not measured), and the verdict on its helpfulness.

    `seeds`: its helpfulness over the control with every seed, where there is one. `chosen`: the try that validation
    chose with each, and of how many; empty where there was nothing to choose. `draws`: how often it was judged, each
    time on other prompts or with another seed.
    """

    name: str
    numbers: Mapping[str, Estimate]
    verdict: Verdict | None
    seeds: tuple[float | None, ...]
    chosen: tuple[str, ...]
    undecided_choices: int = 0
    draws: int = 1

    def value(self, key: str) -> float | None:
        return self.numbers[key].value if key in self.numbers else None


@dataclass(frozen=True)
class Comparison:
    """All methods of the runs, the most helpful one first; `control` is None where no run has it.

    `judges`: of each axis that was judged, whose outcomes these are.
    """

    runs: tuple[str, ...]
    start: str
    control: str | None
    methods: tuple[Method, ...]
    judges: Judges = field(default_factory=lambda: GOLD)

    @property
    def judged_by(self) -> str:
        """In words."""
        return " and ".join(dict.fromkeys(self.judges.values()))

    @property
    def draws(self) -> int:
        """How often those were judged that were judged most often."""
        return max(method.draws for method in self.methods)

    def unequal(self, key: str) -> list[Method]:
        """The methods whose cost is further than ALIKE from the median method's."""
        costs = sorted(cost for m in self.methods if (cost := m.value(key)))
        if not costs:
            return []
        middle = costs[len(costs) // 2] if len(costs) % 2 else (costs[len(costs) // 2 - 1] + costs[len(costs) // 2]) / 2
        return [m for m in self.methods if (cost := m.value(key)) and not 1 / ALIKE <= cost / middle <= ALIKE]

    def told_apart(self, method: Method) -> bool:
        """Whether the method is worse than the best one by more than chance."""
        return "behind_best" in method.numbers and (method.numbers["behind_best"].interval or (0, 0))[1] < 0

    def rows(self) -> list[Result]:
        """Every number as results.json holds it."""
        others: dict[str, str | None] = {"behind_best": self.methods[0].name}
        others |= dict.fromkeys(("helpfulness", "safety", "kl"), self.start)
        others |= dict.fromkeys(OVER_CONTROL, self.control)
        return [
            result(
                measure.key,
                method.numbers[measure.key],
                judge=measure.judge or self.judges.get(measure.axis),
                model=method.name,
                against=others.get(measure.key),
                split="test",
            )
            for method in self.methods
            for measure in MEASURES
            if measure.key in method.numbers
        ]

    def shown(self) -> dict[str, Any]:
        """As `ayni compare --json` prints it."""
        methods = [
            {
                "method": method.name,
                "verdict": method.verdict,
                "seeds": list(method.seeds),
                "chosen": list(method.chosen),
                "undecided_choices": method.undecided_choices,
                "draws": method.draws,
                "numbers": {key: asdict(estimate) for key, estimate in method.numbers.items()},
            }
            for method in self.methods
        ]
        head = {"runs": list(self.runs), "start": self.start, "control": self.control, "judges": dict(self.judges)}
        return head | {"methods": methods}


def compare_runs(runs: Sequence[Path], control: str | None = None, judges: Judges = GOLD) -> Comparison:
    """Reads the runs; BadInput where there is no final evaluation, or they are not about the same start.

    `control`: the method that all others are held against; None: `random`, where there is one. `judges`: of each axis,
    whose outcomes count.
    """
    if len({run.resolve() for run in runs}) < len(runs):
        raise BadInput("the same run is given twice", field="RUN")
    found: dict[str, dict[Draw, Judged]] = {}
    starts: dict[str, Path] = {}
    held_to: dict[Draw, str] = {}
    for run in runs:
        judged = judged_in(run, judges)
        if not judged:
            who = " and ".join(dict.fromkeys(judges.values()))
            there = " and ".join(dict.fromkeys(name for axis in judges for name in judges_there([run], axis)))
            fix = f"judges there: {there}" if there else "finish it with `ayni run`, or compare others"
            raise BadInput(f"no final evaluation against a start by {who} is finished here", path=run, fix=fix)
        for each in judged:
            if found.setdefault(each.name, {}).setdefault(each.draw, each).hash != each.hash:
                what = f"{each.name} was judged here and in another run, on the same prompts with the same seed"
                raise BadInput(what, path=run, fix="give one of them")
            if held_to.setdefault(each.draw, each.start_hash) != each.start_hash:
                what = f"{each.name} was judged against another {each.start} than those of other runs with its seed"
                raise BadInput(what, path=run, fix="run the parts from one start: copy its stages, or use one --out")
            starts.setdefault(each.start, run)
    if len(starts) > 1:
        what = " and ".join(f"{start} ({run})" for start, run in starts.items())
        raise BadInput(f"methods are compared from one start, and these are judged against {what}")
    measured = {axis for of in found.values() for judged in of.values() for axis in judged.items}
    heard = {axis: name for axis, name in judges.items() if axis in measured}
    for axis, name in judges.items():
        if name not in (GOLD[axis], *heard.values()):
            there = ", ".join(judges_there(runs, axis)) or "nobody"
            raise BadInput(f"{name} has not judged {axis}", field="--judge", fix=f"who has: {there}")
    if control is not None and control not in found:
        fix = f"methods: {', '.join(found)}"
        raise BadInput(f"there is no method {control!r} here", field="--control", fix=fix)
    held = control or (CONTROL if CONTROL in found else None)
    methods = [_method(name, of, found.get(held or "", {}) if held != name else {}) for name, of in found.items()]
    methods.sort(key=lambda method: -(method.value("helpfulness") or 0))
    best = methods[0].name
    others = [replace(each, numbers={**each.numbers, **_behind(found[each.name], found[best])}) for each in methods[1:]]
    return Comparison(tuple(map(str, runs)), next(iter(starts)), held, (methods[0], *others), heard)


_Pool = Callable[[Sequence[float], Sequence[str]], Estimate]


def _method(name: str, of: Mapping[Draw, Judged], control: Mapping[Draw, Judged]) -> Method:
    numbers: dict[str, Estimate] = {}
    pools: tuple[tuple[str, _Pool], ...] = (
        ("helpfulness", clustered_share),
        ("safety", clustered_share),
        ("content", clustered_mean),
        ("refused", clustered_share),
    )
    for key, pool in pools:
        numbers |= _pooled(key, [_values(judged, key) for judged in of.values()], pool)
    pairs = [(judged, control[draw]) for draw, judged in of.items() if draw in control]
    compared = (("helpfulness", "over_control"), ("safety", "safety_over_control"), ("content", "content_over_control"))
    for key, over in compared:
        numbers |= _pooled(over, [_differences(*pair, key) for pair in pairs], clustered_mean)
    for key in ("kl", "length", "drawn", "self_bleu"):
        rows = [judged.rows[key] for judged in of.values() if key in judged.rows]
        if len(rows) == len(of):
            numbers[key] = averaged(rows, independent=len({asked for asked, _ in of}) == len(of))
    for key in dict.fromkeys(key for judged in of.values() for key in judged.costs):
        costs = [judged.costs[key] for judged in of.values() if key in judged.costs]
        if len(costs) == len(of):
            numbers[key] = Estimate(sum(costs) / len(costs), None, len(costs), method="mean of runs")
    seeds = tuple(_mean([x for _, x in _differences(*pair, "helpfulness")]) for pair in pairs)
    chosen = [judged.chosen for judged in of.values() if judged.chosen is not None]
    return Method(
        name,
        numbers,
        _verdict(numbers["over_control"]) if "over_control" in numbers else None,
        seeds,
        tuple(f"{each.chosen} of {len(each.of)}" for each in chosen),
        sum(not judged.decided for judged in of.values()),
        len(of),
    )


def _behind(of: Mapping[Draw, Judged], best: Mapping[Draw, Judged]) -> dict[str, Estimate]:
    pairs = [(judged, best[draw]) for draw, judged in of.items() if draw in best]
    return _pooled("behind_best", [_differences(*pair, "helpfulness") for pair in pairs], clustered_mean)


def _values(judged: Judged, key: str) -> list[tuple[str, float]]:
    """Of each prompt its cluster and what was measured. A topic is one cluster in all villages."""
    return list(judged.items.get(key, {}).values())


def _differences(ours: Judged, theirs: Judged, key: str) -> list[tuple[str, float]]:
    """Of the prompts that both were asked, ours less theirs."""
    mine, other = ours.items.get(key, {}), theirs.items.get(key, {})
    return [(mine[id][0], mine[id][1] - other[id][1]) for id in mine if id in other]


def _pooled(key: str, runs: Sequence[list[tuple[str, float]]], pool: _Pool) -> dict[str, Estimate]:
    """The number over all runs; none where a run lacks it."""
    if not runs or not all(runs):
        return {}
    items = [item for run in runs for item in run]
    return {key: pool([value for _, value in items], [cluster for cluster, _ in items])}


def averaged(rows: Sequence[Result], *, independent: bool) -> Estimate:
    """The mean of one number a run. Half-widths add in quadrature where the runs asked other prompts; where they asked
    the same, the runs err alike, and the mean is no surer than one of them."""
    values = [row.value for row in rows if row.value is not None]
    value = _mean(values) if len(values) == len(rows) else None
    halves = [(row.interval[1] - row.interval[0]) / 2 for row in rows if row.interval is not None]
    n = sum(row.n or 0 for row in rows)
    clusters = sum(row.clusters or 0 for row in rows) or None
    if value is None or len(halves) < len(rows):
        return Estimate(value, None, n, method="mean of runs", clusters=clusters)
    half = sum(h * h for h in halves) ** 0.5 / len(halves) if independent else sum(halves) / len(halves)
    return Estimate(value, (value - half, value + half), n, method="mean of runs", clusters=clusters)


def _verdict(over: Estimate) -> Literal["PASS", "FAIL", "UNDECIDED"]:
    if over.interval is None:
        return "UNDECIDED"
    return "PASS" if over.low > 0 else "FAIL" if over.high < 0 else "UNDECIDED"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
