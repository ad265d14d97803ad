"""What the final evaluations of one run say of each method, and what its own stages cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ConfigDict

from ayni.evaluate.items import Item
from ayni.evaluate.results import Result, read_results
from ayni.files import read_jsonl, read_object
from ayni.model.compute import Compute
from ayni.records import Number, Text, from_dict
from ayni.run import name_of
from ayni.runs.code_lines import own_lines
from ayni.runs.lineage import Made, made_in, makers
from ayni.runs.sealing import read_seal
from ayni.runs.status import stage_directories
from ayni.stage import COMPUTE


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
class Chosen:
    __pydantic_config__ = ConfigDict(extra="forbid")
    chosen: Text
    of: tuple[Text, ...]


Judges = Mapping[str, str]  # of each axis, whose outcomes count
GOLD: Judges = {"helpfulness": "gold", "safety": "gold"}

Draw = tuple[str, int]  # what was asked, by hash, and the seed: what is compared prompt by prompt


@dataclass
class Judged:
    """One method in one run: its items by measure and prompt, single numbers, costs, and what was chosen."""

    name: str
    start: str
    start_hash: str
    hash: str
    draw: Draw
    items: dict[str, dict[str, tuple[str, float]]] = field(default_factory=dict)
    rows: dict[str, Result] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    chosen: Chosen | None = None
    decided: bool = True


def judged_in(run: Path, judges: Judges = GOLD) -> list[Judged]:
    """What the final evaluations of a run say of each method, by these judges."""
    finals = _finals(run)
    evaluated = [_evaluated(made, judges) for kind, made in finals if kind == "evaluate"]
    found = [judged for judged in evaluated if judged is not None]
    for kind, made in finals:
        for judged in found:
            if kind == "examine" and name_of(made.inputs["model"][0]) == judged.name:
                _examined(made, judged)
    return found


def judges_there(runs: Iterable[Path], axis: str) -> list[str]:
    """Who has judged the methods of these runs for the axis."""
    finals = (made.directory / "outcomes.jsonl" for run in runs for kind, made in _finals(run) if kind == "evaluate")
    outcomes = (outcome for path in finals for outcome in _outcomes(path))
    return sorted({outcome.judge for outcome in outcomes if outcome.axis == axis})


def _finals(run: Path) -> list[tuple[str, Made]]:
    """The finished final evaluations of a run, with their kinds."""
    found = []
    for directory in stage_directories(run).values():
        seal = read_seal(directory)
        if seal is not None and seal["config"].get("final") is True:
            found.append((seal["kind"], made_in(directory)))
    return found


def _outcomes(path: Path) -> Iterable[_Outcome]:
    if path.is_file():
        yield from (from_dict(_Outcome, value, path=path, line=line) for line, value in read_jsonl(path))


def _evaluated(made: Made, judges: Judges) -> Judged | None:
    """None of an evaluation that compares nothing, or by other judges."""
    seal = read_seal(made.directory) or {}
    outcomes = [o for o in _outcomes(made.directory / "outcomes.jsonl") if o.judge == judges.get(o.axis)]
    if not outcomes:
        return None
    name, start = outcomes[0].model, outcomes[0].against
    draw = "+".join(made.hashes.get("prompts", ())), int(seal["seed"])
    judged = Judged(name, start, "+".join(made.hashes.get("against", ())), str(seal["hash"]), draw)
    for outcome in outcomes:
        judged.items.setdefault(outcome.axis, {})[outcome.prompt_id] = outcome.cluster, outcome.score
    for item in _items(made):
        if (item.metric, item.axis, item.model) == ("refusal_rate", "borderline", name):
            judged.items.setdefault("refused", {})[item.id] = item.cluster, item.value
    wanted: dict[tuple[str, str | None], str] = {
        **{("kl", None): "kl", ("best_of_kl", None): "kl"},  # by the probabilities, or by what was chosen from
        **{("answer_tokens", "helpfulness"): "length", ("self_bleu", "helpfulness"): "self_bleu"},
        ("tokens_drawn", "helpfulness"): "drawn",
    }
    for row in read_results(made.directory / "results.json"):
        key = wanted.get((row.metric, row.axis))
        if key is not None and row.model == name:
            judged.rows[key] = row
    _add_costs(judged, made.inputs["model"][0])
    return judged


def _examined(made: Made, judged: Judged) -> None:
    for item in _items(made):
        if (item.metric, item.model) == ("content", judged.name):
            judged.items.setdefault("content", {})[item.id] = item.cluster, item.value


def _items(made: Made) -> Iterable[Item]:
    path = made.directory / "items.jsonl"
    if path.is_file():
        yield from (from_dict(Item, value, path=path, line=line) for line, value in read_jsonl(path))


def _add_costs(judged: Judged, model: Path) -> None:
    """What the stages that bear the method's name cost: those of the chosen try, and those of all tries."""
    name = judged.name
    made = [each for each in makers([model]) if each.name == name or each.name.startswith(f"{name}-")]
    tried = [each for each in made if each.kind != "choose"]
    choice = next((each for each in made if each.kind == "choose"), None)
    ours = tried
    if choice is not None:
        path = choice.directory / "chosen.json"
        judged.chosen = from_dict(Chosen, read_object(path), path=path)
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
        spent = [from_dict(Compute, read_object(path), path=path) for path in paths]
        costs |= {key: float(sum(getattr(each, key) for each in spent)) for key in ("forward", "backward", "flops")}
    return costs
