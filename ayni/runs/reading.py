"""A run's directory as plain values for the page: what is there is read strictly, what is missing is left out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ayni.config import parse_config, parse_yaml
from ayni.errors import BadInput
from ayni.evaluate.results import Result, read_results
from ayni.files import lines_of, parse_json, read_json, read_jsonl, read_text, text_file
from ayni.records import Message, Prompt
from ayni.run import name_of
from ayni.runs.claims import Claim, Judged, judged
from ayni.runs.evaluations import OPENED
from ayni.runs.faces import face_of
from ayni.runs.ownership import is_held
from ayni.runs.sealing import SEAL, read_seal
from ayni.runs.status import STATUS, read_status, stage_directory
from ayni.stage import Family


@dataclass(frozen=True)
class SampleRow:
    """One prompt, the models' answers to it in the order of the file, and their scores by axis."""

    prompt: Prompt
    answers: dict[str, str]
    scores: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Point:
    """Where a dialogue lies on the plane of a selection, and whether it was chosen."""

    x: float
    y: float
    chosen: bool


@dataclass(frozen=True)
class StageData:
    """One stage of the run; `parents` are the earlier stages whose outputs it reads, `opened` what opened the test
    split where it is a final evaluation (see ayni.runs.evaluations)."""

    name: str
    kind: str
    directory: Path
    state: str
    seconds: float | None
    parents: tuple[str, ...]
    metrics: tuple[dict[str, Any], ...]
    results: tuple[Result, ...]
    samples: tuple[SampleRow, ...]
    opened: dict[str, Any] | None = None
    points: tuple[Point, ...] = ()

    @property
    def family(self) -> Family:
        """What the stage's face says; a stage that this version of ayni does not know passes for one of records."""
        face = face_of(self.kind)
        return "records" if face is None else face.family

    @property
    def chat_model(self) -> Path | None:
        """The language model it left to talk to, if it did."""
        face = face_of(self.kind)
        model = self.directory / "model"
        return model if face is not None and face.chats and model.is_dir() else None

    @property
    def selects_samples(self) -> bool:
        """Whether it draws samples and keeps some of them as demonstrations: rejection sampling."""
        face = face_of(self.kind)
        return face is not None and {"samples", "demonstrations"} <= {*face.leaves.values()}

    def series(self, key: str) -> tuple[list[float], list[float]]:
        """(steps, values) of one metric, where it was logged as a number."""
        points = [(line["step"], line[key]) for line in self.metrics if _number(line.get(key)) and "step" in line]
        return [float(x) for x, _ in points], [float(y) for _, y in points]


@dataclass(frozen=True)
class RunData:
    """The whole run; `results` are the run's own rows, then those of stages that the run does not repeat."""

    name: str
    directory: Path
    status: str
    when: datetime
    stages: tuple[StageData, ...]
    results: tuple[Result, ...]
    recipe: str | None

    @property
    def seconds(self) -> float:
        return sum(stage.seconds or 0.0 for stage in self.stages)

    def claims(self) -> list[Judged]:
        """What its recipe claims, held against the numbers; nothing before all are there."""
        value = parse_yaml(self.recipe, self.directory / "recipe.yaml")[0] if self.recipe else {}
        given = value.get("claims") if isinstance(value, dict) else None
        if not isinstance(given, list) or self.status != "done":
            return []
        path = self.directory / "recipe.yaml"
        return judged([parse_config(Claim, each, path=path) for each in given], self.results)

    def depth(self) -> dict[str, int]:
        """How many stages stand in line before each one."""
        depth: dict[str, int] = {}
        for stage in self.stages:
            depth[stage.name] = 1 + max((depth[parent] for parent in stage.parents), default=-1)
        return depth

    def final_model(self) -> str | None:
        """The model that the run is about: of those with a win rate, the one made furthest down the pipeline."""
        depth = self.depth()
        names = dict.fromkeys(row.model for row in self.results if row.metric == "win_rate" and row.model)
        family = {stage.name: stage.family for stage in self.stages}
        return max(names, key=lambda name: (family.get(name) in {"online", "fits"}, depth.get(name, -1)), default=None)

    def chat_stage(self) -> StageData | None:
        """The stage whose model to talk to: the final one, else the one made furthest down; None if none can talk."""
        depth, final = self.depth(), self.final_model()
        made = [stage for stage in self.stages if stage.chat_model is not None]
        return max(made, key=lambda stage: (stage.name == final, depth[stage.name]), default=None)


def read_run(directory: Path) -> RunData:
    """Reads status.json, results.json, recipe.yaml and every stage; BadInput where a file is not what it should be.

    The directory of a finished stage passes for a run of that stage alone.
    """
    dead = not is_held(directory)  # a process that was killed could not write that it works no more
    alone = None if (directory / STATUS).is_file() else read_seal(directory)
    status = read_status(directory) if alone is None else _run_of(directory, alone)
    stages: list[StageData] = []
    for entry in status["stages"]:
        stages.append(_read_stage(directory, entry, stages, dead))
    own = read_results(directory / "results.json") if (directory / "results.json").is_file() else []
    rows = dict.fromkeys([*own, *(row for stage in stages for row in stage.results)])
    recipe = directory / "recipe.yaml"
    return RunData(
        name=str(status.get("run") or directory.resolve().name),
        directory=directory,
        status=_truly(str(status.get("status") or "unknown"), dead),
        when=datetime.fromtimestamp((directory / (STATUS if alone is None else SEAL)).stat().st_mtime),
        stages=tuple(stages),
        results=tuple(rows),
        recipe=read_text(recipe) if recipe.is_file() else None,
    )


def _run_of(directory: Path, seal: dict[str, Any]) -> dict[str, Any]:
    name = name_of(directory)
    stage = {"name": name, "kind": seal["kind"], "directory": ".", "state": "ran", "seconds": seal["seconds"]}
    return {"run": name, "status": "done", "stages": [stage]}


def _truly(state: str, dead: bool) -> str:
    return "interrupted" if dead and state == "running" else state


def _read_stage(run: Path, entry: dict[str, Any], earlier: list[StageData], dead: bool) -> StageData:
    kind = str(entry.get("kind") or entry["name"])
    directory = stage_directory(run, entry.get("directory") or "")
    results = directory / "results.json"
    seconds: Any = entry.get("seconds")
    samples, points = directory / "samples.jsonl", directory / "points.jsonl"
    face = face_of(kind)
    shown = face is not None and face.leaves.get(samples.name) == "answers" and samples.is_file()
    return StageData(
        name=entry["name"],
        kind=kind,
        directory=directory,
        state=_truly(str(entry.get("state") or "waiting"), dead),
        seconds=seconds if _number(seconds) else None,
        parents=_parents(entry.get("inputs"), earlier),
        metrics=read_metrics(directory / "metrics.jsonl"),
        results=tuple(read_results(results)) if results.is_file() else (),
        samples=_samples(samples) if shown else (),
        opened=_opened(directory / OPENED),
        points=_points(points) if kind == "select" and points.is_file() else (),
    )


def _parents(inputs: Any, earlier: list[StageData]) -> tuple[str, ...]:
    named = {stage.name: stage.name for stage in earlier} | {stage.directory.name: stage.name for stage in earlier}
    found: dict[str, None] = {}
    for written in inputs.values() if isinstance(inputs, dict) else ():
        for source in written if isinstance(written, list) else [written]:
            parts = [str(source), *Path(str(source)).parts]
            found |= dict.fromkeys([named[part] for part in parts if part in named][:1])
    return tuple(found)


def read_metrics(path: Path) -> tuple[dict[str, Any], ...]:
    """Every whole line; the last may be torn while the stage runs."""
    if not path.is_file():
        return ()
    with text_file(path) as file:
        whole = ((number, line[:-1]) for number, line in lines_of(file, path) if line.endswith("\n") and line.strip())
        values = [parse_json(line, path=path, line=number) for number, line in whole]
    return tuple(value for value in values if isinstance(value, dict))


def _opened(path: Path) -> dict[str, Any] | None:
    value = read_json(path) if path.is_file() else None
    if value is not None and not isinstance(value, dict):
        raise BadInput("expected an object", path=path)
    return value


def _points(path: Path) -> tuple[Point, ...]:
    points = []
    for line, value in read_jsonl(path):
        try:
            points.append(Point(float(value["x"]), float(value["y"]), bool(value["chosen"])))
        except (LookupError, TypeError, ValueError) as error:
            raise BadInput(f"not a point: {error!r}", path=path, line=line) from None
    return tuple(points)


def _samples(path: Path) -> tuple[SampleRow, ...]:
    rows = []
    for line, value in read_jsonl(path):
        try:
            asked = value["prompt"]
            dialog = tuple(Message(turn["role"], turn["content"]) for turn in asked["dialog"])
            kept = {key: asked[key] for key in ("task", "category", "source", "cluster") if key in asked}
            prompt = Prompt(id=str(asked.get("id", "")), dialog=dialog, **kept)
            answers = {str(model): str(text) for model, text in value["answers"].items()}
            scores = value.get("scores") or {}
        except (KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"not a sample: {error!r}", path=path, line=line) from None
        rows.append(SampleRow(prompt, answers, scores))
    return tuple(rows)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
