"""Methods beside each other, from one or more finished runs: what each is worth by the sealed judge, and what it cost.

A method is what a final evaluation judged against the model that all started from. What was measured prompt by prompt
is pooled from the runs' outcomes.jsonl and items.jsonl, by cluster; what is one number a run is averaged over the runs.
What a method cost is what its own stages cost, those that bear its name (ayni.runs.methods): the start, the comparisons
and the reward models are given to all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict

from ayni.errors import BadInput
from ayni.evaluate.items import Item
from ayni.evaluate.results import Result, read_results, result
from ayni.files import read_jsonl, read_object
from ayni.maths.clustered import clustered_mean, clustered_share
from ayni.maths.statistics import Estimate
from ayni.records import Count, Number, Text, from_dict
from ayni.run import name_of
from ayni.runs.claims import Verdict
from ayni.runs.code_lines import own_lines
from ayni.runs.lineage import Made, made_in, makers
from ayni.runs.sealing import read_seal
from ayni.runs.status import stage_directories

CONTROL = "random"
COMPUTE = "compute.json"  # what a stage has computed: tokens forward and backward, and operations
ALIKE = 1.25  # equal compute: within this factor of the median method's


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of every method. `share`: between -1 and 1; `gold`: by the hidden scores; `cost`: what it took."""

    key: str
    name: str
    share: bool = False
    gold: bool = False
    cost: bool = False


MEASURES = (
    Measure("helpfulness", "helpfulness", share=True, gold=True),
    Measure("over_control", "over the control", share=True, gold=True),
    Measure("behind_best", "over the best", share=True, gold=True),
    Measure("safety", "safety", share=True, gold=True),
    Measure("safety_over_control", "over the control", share=True, gold=True),
    Measure("content", "right content", share=True, gold=True),
    Measure("content_over_control", "over the control", share=True, gold=True),
    Measure("kl", "KL"),
    Measure("length", "tokens"),
    Measure("self_bleu", "Self-BLEU", share=True),
    Measure("refused", "borderline refused", share=True, gold=True),
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
    """One method: its numbers by Measure.key (absent: not measured), and the verdict on its gold helpfulness.

    `seeds`: its helpfulness over the control with every seed, where there is one. `chosen`: the try that validation
    chose with each, and of how many; empty where there was nothing to choose.
    """

    name: str
    numbers: Mapping[str, Estimate]
    verdict: Verdict | None
    seeds: tuple[float | None, ...]
    chosen: tuple[str, ...]
    undecided_choices: int = 0

    def value(self, key: str) -> float | None:
        return self.numbers[key].value if key in self.numbers else None


@dataclass(frozen=True)
class Comparison:
    """All methods of the runs, the most helpful one first; `control` is None where no run has it."""

    runs: tuple[str, ...]
    start: str
    control: str | None
    methods: tuple[Method, ...]

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
                judge="gold" if measure.gold else None,
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
                "numbers": {key: asdict(estimate) for key, estimate in method.numbers.items()},
            }
            for method in self.methods
        ]
        head = {"runs": list(self.runs), "start": self.start, "control": self.control}
        return head | {"methods": methods}


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A line of outcomes.jsonl, as far as it is read here."""

    __pydantic_config__ = ConfigDict(extra="ignore")
    prompt_id: Text
    cluster: Text
    axis: Text
    score: Number
    model: Text
    against: Text
    judge: Text


@dataclass(frozen=True, slots=True)
class _Chosen:
    __pydantic_config__ = ConfigDict(extra="forbid")
    chosen: Text
    of: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class _Compute:
    __pydantic_config__ = ConfigDict(extra="ignore")
    forward: Count
    backward: Count
    flops: Count


_Draw = tuple[str, int]  # what was asked, by hash, and the seed: what is compared prompt by prompt


@dataclass
class _Judged:
    """One method in one run: its items by measure and prompt, single numbers, costs, and what was chosen."""

    name: str
    start: str
    start_hash: str
    hash: str
    draw: _Draw
    items: dict[str, dict[str, tuple[str, float]]] = field(default_factory=dict)
    rows: dict[str, Result] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    chosen: _Chosen | None = None
    decided: bool = True


def compare_runs(runs: Sequence[Path], control: str | None = None) -> Comparison:
    """Reads the runs; BadInput where there is no final evaluation, or they are not about the same start.

    `control`: the method that all others are held against; None: `random`, where there is one.
    """
    if len({run.resolve() for run in runs}) < len(runs):
        raise BadInput("the same run is given twice", field="RUN")
    found: dict[str, dict[_Draw, _Judged]] = {}
    starts: dict[str, Path] = {}
    held_to: dict[_Draw, str] = {}
    for run in runs:
        judged = _judged_in(run)
        if not judged:
            fix = "finish it with `ayni run`, or compare others"
            raise BadInput("no final evaluation against a start by gold is finished here", path=run, fix=fix)
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
    if control is not None and control not in found:
        fix = f"methods: {', '.join(found)}"
        raise BadInput(f"there is no method {control!r} here", field="--control", fix=fix)
    held = control or (CONTROL if CONTROL in found else None)
    methods = [_method(name, of, found.get(held or "", {}) if held != name else {}) for name, of in found.items()]
    methods.sort(key=lambda method: -(method.value("helpfulness") or 0))
    best = methods[0].name
    others = [replace(each, numbers={**each.numbers, **_behind(found[each.name], found[best])}) for each in methods[1:]]
    return Comparison(tuple(map(str, runs)), next(iter(starts)), held, (methods[0], *others))


# one run


def _judged_in(run: Path) -> list[_Judged]:
    """What the final evaluations of a run say of each method."""
    finals = []
    for directory in stage_directories(run).values():
        seal = read_seal(directory)
        if seal is not None and seal["config"].get("final") is True:
            finals.append((seal["kind"], made_in(directory)))
    evaluated = [_evaluated(made) for kind, made in finals if kind == "evaluate"]
    found = [judged for judged in evaluated if judged is not None]
    for kind, made in finals:
        for judged in found:
            if kind == "examine" and name_of(made.inputs["model"][0]) == judged.name:
                _examined(made, judged)
    return found


def _evaluated(made: Made) -> _Judged | None:
    """None of an evaluation that compares nothing, or by other judges than gold."""
    path, seal = made.directory / "outcomes.jsonl", read_seal(made.directory) or {}
    lines = read_jsonl(path) if path.is_file() else ()
    outcomes = [from_dict(_Outcome, value, path=path, line=line) for line, value in lines]
    outcomes = [outcome for outcome in outcomes if outcome.judge == "gold"]
    if not outcomes:
        return None
    name, start = outcomes[0].model, outcomes[0].against
    draw = "+".join(made.hashes.get("prompts", ())), int(seal["seed"])
    judged = _Judged(name, start, "+".join(made.hashes.get("against", ())), str(seal["hash"]), draw)
    for outcome in outcomes:
        judged.items.setdefault(outcome.axis, {})[outcome.prompt_id] = outcome.cluster, outcome.score
    for item in _items(made):
        if (item.metric, item.axis, item.model) == ("refusal_rate", "borderline", name):
            judged.items.setdefault("refused", {})[item.id] = item.cluster, item.value
    wanted = {("kl", None): "kl", ("answer_tokens", "helpfulness"): "length", ("self_bleu", "helpfulness"): "self_bleu"}
    for row in read_results(made.directory / "results.json"):
        key = wanted.get((row.metric, row.axis))
        if key is not None and row.model == name:
            judged.rows[key] = row
    _add_costs(judged, made.inputs["model"][0])
    return judged


def _examined(made: Made, judged: _Judged) -> None:
    for item in _items(made):
        if (item.metric, item.model) == ("content", judged.name):
            judged.items.setdefault("content", {})[item.id] = item.cluster, item.value


def _items(made: Made) -> Iterable[Item]:
    path = made.directory / "items.jsonl"
    if path.is_file():
        yield from (from_dict(Item, value, path=path, line=line) for line, value in read_jsonl(path))


def _add_costs(judged: _Judged, model: Path) -> None:
    """What the stages that bear the method's name cost: those of the chosen try, and those of all tries."""
    name = judged.name
    made = [each for each in makers([model]) if each.name == name or each.name.startswith(f"{name}-")]
    tried = [each for each in made if each.kind != "choose"]
    choice = next((each for each in made if each.kind == "choose"), None)
    ours = tried
    if choice is not None:
        path = choice.directory / "chosen.json"
        judged.chosen = from_dict(_Chosen, read_object(path), path=path)
        of_choice = [model for model in choice.inputs["models"] if name_of(model) == judged.chosen.chosen]
        chosen = {each.directory for each in makers(of_choice)}
        ours = [each for each in tried if each.directory in chosen]
        gains = [row for row in read_results(choice.directory / "results.json") if row.metric == "preferred_gain"]
        judged.decided = all(row.interval is not None and row.interval[0] > 0 for row in gains)
    for suffix, stages in (("", ours), ("_of_tries", tried)):
        if stages:
            judged.costs |= {f"{key}{suffix}": cost for key, cost in _costs(stages).items()}
    if ours:
        judged.costs["lines"] = own_lines({each.kind for each in ours})


def _costs(stages: Sequence[Made]) -> dict[str, float]:
    """Sums over the stages, of memory the most; what one of them does not say is not known of all."""
    seals = [read_seal(each.directory) or {} for each in stages]
    costs = {"seconds": float(sum(seal.get("seconds", 0.0) for seal in seals))}
    memory = [peak for seal in seals if isinstance(peak := seal.get("peak_memory"), int)]
    if len(memory) == len(stages):
        costs["memory"] = float(max(memory))
    paths = [each.directory / COMPUTE for each in stages]
    if all(path.is_file() for path in paths):
        spent = [from_dict(_Compute, read_object(path), path=path) for path in paths]
        costs |= {key: float(sum(getattr(each, key) for each in spent)) for key in ("forward", "backward", "flops")}
    return costs


# all runs


_Pool = Callable[[Sequence[float], Sequence[tuple[str, str]]], Estimate]


def _method(name: str, of: Mapping[_Draw, _Judged], control: Mapping[_Draw, _Judged]) -> Method:
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
    for key in ("kl", "length", "self_bleu"):
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
    )


def _behind(of: Mapping[_Draw, _Judged], best: Mapping[_Draw, _Judged]) -> dict[str, Estimate]:
    pairs = [(judged, best[draw]) for draw, judged in of.items() if draw in best]
    return _pooled("behind_best", [_differences(*pair, "helpfulness") for pair in pairs], clustered_mean)


def _values(judged: _Judged, key: str) -> list[tuple[tuple[str, str], float]]:
    return [((judged.draw[0], cluster), value) for cluster, value in judged.items.get(key, {}).values()]


def _differences(ours: _Judged, theirs: _Judged, key: str) -> list[tuple[tuple[str, str], float]]:
    """Of the prompts that both were asked, ours less theirs."""
    mine, other = ours.items.get(key, {}), theirs.items.get(key, {})
    return [((ours.draw[0], mine[id][0]), mine[id][1] - other[id][1]) for id in mine if id in other]


def _pooled(key: str, runs: Sequence[list[tuple[tuple[str, str], float]]], pool: _Pool) -> dict[str, Estimate]:
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
