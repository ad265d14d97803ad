"""A recipe: named stages and what each one reads, checked as a whole before anything runs.

A stage module `ayni/stages/KIND.py` is found by its name. An input of a stage is a reference: the name of another
stage (its usual output for this input), `stage/path/inside`, or a path (absolute, or beside the recipe; `$NAME`
expands) to a file, a finished stage or, for short, RUN/STAGE; `a | b` is the first of them that is a stage of the
recipe, else the last. It must be of a kind that the input accepts (see ayni.stage). Stages run in the order they need
each other, and in the file's order where that is free.

A recipe may `extends` another: that one's stages come first, and a stage given again changes the keys it names (with
another kind, it stands alone). Paths stay relative to the file they are written in; those of `--set` and of variables
are relative to where you are. Stages that run once a round stand under `rounds` (ayni.runs.rounds), those of methods
that are compared under `methods` (ayni.runs.methods). `only` names the last stages wanted: of what a recipe took over,
it runs those that they need.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat

from ayni.config import Config
from ayni.errors import BadInput
from ayni.runs.claims import Claim
from ayni.runs.evaluations import sealed_from
from ayni.runs.faces import Stage, load_stage, suggestion
from ayni.runs.kinds import mismatch, mismatch_of_stage
from ayni.runs.methods import with_methods
from ayni.runs.rounds import with_rounds
from ayni.runs.settings import Key, Settings, read_extended
from ayni.runs.status import output_of
from ayni.stage import Face

OWN = ("name", "description", "only", "claims")  # what a recipe does not take over from the one it extends
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
# What a recipe may set for the whole process. Of most others (CC, LD_PRELOAD, a cache) the next library makes code.
KNOBS = (
    "AYNI_NATIVE",
    "AYNI_RECOMPUTE",
    "CUDA_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
)
MOST_PROCESSES = 256  # on one machine


@dataclass(frozen=True)
class Reference:
    """One input: `path` inside the directory of `stage`, or a path of its own when `stage` is None."""

    text: str
    stage: str | None
    path: Path


@dataclass(frozen=True)
class RecipeStage:
    """One stage of a recipe, checked."""

    name: str
    stage: Stage
    config: Config
    inputs: Mapping[str, tuple[Reference, ...]]
    seed: int

    def needs(self) -> set[str]:
        return {r.stage for references in self.inputs.values() for r in references if r.stage is not None}


@dataclass(frozen=True)
class Recipe:
    """`stages` stand in the order they run, and where there is an `only` those it names are the last of them that do;
    `environment` holds variables for paths (`$NAME`), and some for the process (KNOBS), where they are not set already.

    `processes`: how many share the work on a machine without GPUs, unless the command line says. `seconds`: how long
    stages took where the recipe was written, from which the time left is reckoned.
    """

    path: Path
    name: str
    seed: int
    description: str
    environment: Mapping[str, str]
    processes: int
    seconds: Mapping[str, float]
    only: tuple[str, ...]
    claims: tuple[Claim, ...]
    stages: tuple[RecipeStage, ...]

    def reaches(self) -> Iterator[str]:
        """What whoever runs it trusts, a line each: code of its own, and servers that hear of what is read and said."""
        for entry in self.stages:
            files = [str(r.path) for each in entry.inputs.values() for r in each if r.path.suffix == ".py"]
            texts = [text for text in entry.config.model_dump().values() if isinstance(text, str)]
            for code in [*files, *(text for text in texts if text.startswith("python:"))]:
                yield f"{entry.name}: runs {json.dumps(code)}, which may do whatever you may"
            for address in (text for text in texts if "://" in text):
                # without what stands before the host: a password, maybe
                host = address.partition("://")[2].partition("/")[0].rpartition("@")[2]
                yield f"{entry.name}: sends what it reads and samples to {json.dumps(host)}"

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default written out, runnable from anywhere: same stages, same identities."""
        stages = {}
        for entry in self.stages:
            body: dict[str, Any] = {"kind": entry.stage.kind, "seed": entry.seed}
            for name, references in entry.inputs.items():
                texts = [_anchored(reference) for reference in references]
                body[name] = texts if entry.stage.inputs[name].many else texts[0]
            stages[entry.name] = body | entry.config.model_dump(mode="json")
        head: dict[str, Any] = {"name": self.name, "seed": self.seed}
        if self.description:
            head["description"] = self.description
        if self.environment:
            head["environment"] = dict(self.environment)
        if self.processes > 1:
            head["processes"] = self.processes
        if self.seconds:
            head["seconds"] = dict(self.seconds)
        if self.only:
            head["only"] = list(self.only)
        if self.claims:
            head["claims"] = [claim.model_dump(mode="json", exclude_none=True) for claim in self.claims]
        return head | {"stages": stages}


def _anchored(reference: Reference) -> str:
    """What the reference means from anywhere: a variable that holds an absolute path stays a variable."""
    fixed = reference.text.startswith("$") and reference.path.is_absolute()
    return reference.text if reference.stage is not None or fixed else str(reference.path.resolve())


class _Top(Config):
    name: str = ""
    seed: int = 0
    description: str = ""
    environment: dict[str, str] = Field(default_factory=dict)
    processes: int = Field(1, ge=1, le=MOST_PROCESSES)
    seconds: dict[str, PositiveFloat] = Field(default_factory=dict)
    only: list[str] = Field(default_factory=list)
    claims: list[Claim] = Field(default_factory=list)
    stages: dict[str, dict[str, Any]]


class _Reader:
    """One recipe while it is read: says `path:line: stages.NAME.KEY: …` when something is wrong."""

    def __init__(self, settings: Settings, names: Iterable[str], environment: Mapping[str, str]) -> None:
        self.settings, self.wrong, self.names = settings, settings.wrong, list(names)
        self.environment, self.named = environment, set[str]()  # the variables that paths name

    def reference(self, at: Key, text: object, default: str) -> Reference:
        if not isinstance(text, str) or not text:
            raise self.wrong(at, f"expected a stage or a path, found {text!r}")
        *preferred, text = text.split(" | ")
        text = next((each for each in preferred if each.partition("/")[0] in self.names), text)
        first, _, inside = text.partition("/")
        if first in self.names:
            if ".." in inside.split("/"):
                raise self.wrong(at, f"{text}: .. leads out of the stage {first}")
            return Reference(text, first, Path(inside or default))

        def value_of(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            self.named.add(name)
            if not (value := os.environ.get(name) or self.environment.get(name)):
                fix = f"set it: export {name}=/where/it/is"
                raise self.wrong(at, f"{text}: the environment variable {name} is not set", fix)
            return value

        folder = Path() if text.startswith("$") else self.settings.origin(at).folder
        path = folder / os.path.expanduser(_VARIABLE.sub(value_of, text))
        try:
            path = output_of(path, default)
        except BadInput as error:
            raise self.wrong(at, f"{text} {error.what}", error.fix) from None
        if not os.path.exists(path):  # (which is False of a name that no file can have)
            # not what a variable holds: a secret, maybe
            raise self.wrong(at, f"{text} is neither a stage nor a file", f"stages: {', '.join(self.names)}")
        return Reference(text, None, path)

    def entry(self, name: str, body: dict[str, Any], seed: int) -> RecipeStage:
        at: Key = ("stages", name)
        kind = body.get("kind", name)
        if not isinstance(kind, str):
            raise self.wrong((*at, "kind"), f"expected the name of a stage kind, found {kind!r}")
        origin = self.settings.origin((*at, "kind"))
        stage = load_stage(kind, path=origin.source, line=origin.line)
        known = ["kind", "seed", *stage.inputs, *stage.config.model_fields]
        for key in body:
            if key not in known:
                raise self.wrong((*at, key), f"{kind} has no such key", suggestion(key, known))
        if not isinstance(body.get("seed", seed), int) or isinstance(body.get("seed"), bool):
            raise self.wrong((*at, "seed"), f"expected a whole number, found {body['seed']!r}")

        inputs: dict[str, tuple[Reference, ...]] = {}
        for spec in stage.inputs.values():
            given = body.get(spec.name)
            here = (*at, spec.name)
            if given is None or given == []:
                if not spec.optional:
                    raise self.wrong(at, f"the input {spec.name!r} is missing", f"add `{spec.name}: STAGE or PATH`")
            elif isinstance(given, list) and not spec.many:
                raise self.wrong(here, "takes one stage or path, not a list")
            elif isinstance(given, list):
                inputs[spec.name] = tuple(
                    self.reference((*here, i), text, spec.default) for i, text in enumerate(given)
                )
            else:
                inputs[spec.name] = (self.reference(here, given, spec.default),)
        settings = {key: value for key, value in body.items() if key in stage.config.model_fields}
        config = self.settings.config(stage.config, settings, at)
        return RecipeStage(name, stage, config, inputs, body.get("seed", seed))

    def check_kinds(self, entry: RecipeStage, body: dict[str, Any], faces: Mapping[str, Face]) -> None:
        """BadInput for an input that is given what it cannot be, as far as that can be told before anything runs."""
        others = {name: face for name, face in faces.items() if name != entry.name}
        for name, references in entry.inputs.items():
            spec = entry.stage.inputs[name]
            for i, reference in enumerate(references):
                if reference.stage is None:
                    found = mismatch(spec, reference.path)
                else:
                    face = faces[reference.stage]
                    found = mismatch_of_stage(spec, reference.stage, reference.path, face, others)
                    found = found or sealed_from(reference.stage, reference.path, face, entry.config)
                if found is not None:
                    here = ("stages", entry.name, name)
                    what = found.what if reference.stage is not None else f"{reference.text}: {found.what}"
                    raise self.wrong((*here, i) if isinstance(body[name], list) else here, what, found.fix)

    def check_shared(self, stages: Sequence[RecipeStage]) -> None:
        """BadInput where two stages of a kind differ in a setting that is one for the whole run."""
        first = dict[str, RecipeStage]()
        for entry in stages:
            other = first.setdefault(entry.stage.kind, entry)
            for key in entry.stage.face.shared:
                here, there = (getattr(each.config, key) for each in (entry, other))
                if here != there:
                    what = f"{here}, and {there} in {other.name}: a run has one"
                    raise self.wrong(("stages", entry.name, key), what, f"--set {entry.name}.{key}={there}")

    def ordered(self, stages: Sequence[RecipeStage]) -> tuple[RecipeStage, ...]:
        """Each entry after those it needs, otherwise in the file's order; a circle is BadInput."""
        waiting, done = list(stages), list[RecipeStage]()
        while waiting:
            names = {entry.name for entry in waiting}
            ready = next((entry for entry in waiting if not entry.needs() & names), None)
            if ready is None:
                by_name = {entry.name: entry for entry in waiting}
                circle = [waiting[0].name]
                while circle[-1] not in circle[:-1]:
                    circle.append(min(by_name[circle[-1]].needs() & names))
                circle = circle[circle.index(circle[-1]) :]
                raise self.wrong(("stages", circle[0]), f"the stages wait for each other: {' → '.join(circle)}")
            waiting.remove(ready)
            done.append(ready)
        return tuple(done)


def read_recipe(path: Path, sets: Sequence[str] = ()) -> Recipe:
    """The recipe, `--set` applied (`sft.epochs=2` is short for `stages.sft.epochs=2`); BadInput names the line.

    What its `environment` says of KNOBS is set here, before a stage module can import torch.
    """
    settings, top = _read(path, sets)
    name = top.name or path.stem
    if not NAME.fullmatch(name):
        raise settings.wrong(("name",), f"{name!r} cannot name a directory")
    for variable in KNOBS:
        if variable in top.environment:
            os.environ.setdefault(variable, top.environment[variable])
    if not top.stages:
        raise settings.wrong(("stages",), "there are no stages")
    for stage in top.stages:
        if not NAME.fullmatch(stage):
            raise settings.wrong(("stages", stage), "a stage's name is made of letters, digits, - and _")
    for stage in top.seconds.keys() - top.stages.keys():
        raise settings.wrong(("seconds", stage), f"there is no stage {stage!r}", suggestion(stage, top.stages))
    for i, stage in enumerate(top.only):
        if stage not in top.stages:
            raise settings.wrong(("only", i), f"there is no stage {stage!r}", suggestion(stage, top.stages))
    reader = _Reader(settings, top.stages, top.environment)
    stages = reader.ordered([reader.entry(stage, body, top.seed) for stage, body in top.stages.items()])
    reader.check_shared(stages)
    for variable in top.environment.keys() - reader.named - {*KNOBS}:
        fix = f"set it yourself, or use one of {', '.join(KNOBS)}"
        raise settings.wrong(("environment", variable), "no path names this variable, and a recipe may not set it", fix)
    faces = {entry.name: entry.stage.face.under(vars(entry.config)) for entry in stages}
    for entry in stages:
        reader.check_kinds(entry, top.stages[entry.name], faces)
    return Recipe(
        path,
        name,
        top.seed,
        top.description,
        top.environment,
        top.processes,
        top.seconds,
        tuple(top.only),
        tuple(top.claims),
        stages,
    )


def processes_of(path: Path, sets: Sequence[str] = ()) -> int:
    """How many processes the recipe wants, read without its stages."""
    return _read(path, sets)[1].processes


def _read(path: Path, sets: Sequence[str]) -> tuple[Settings, _Top]:
    settings = read_extended(path, OWN, _merges)
    # before there are stages to change
    of_templates = [item for item in sets if item.startswith(("rounds.", "methods."))]
    settings = with_methods(with_rounds(settings.with_sets(of_templates), _merges), _merges)
    stages = settings.value.get("stages")
    names = list(stages) if isinstance(stages, dict) else []
    full = []
    for item in sets:
        if item in of_templates:
            continue
        first = item.partition("=")[0].partition(".")[0]
        if first and first not in _Top.model_fields:
            if first not in names:
                known = [*(name for name in _Top.model_fields if name != "stages"), *names]
                raise BadInput(f"--set {item}: no stage {first!r}", fix=suggestion(first, known))
            item = f"stages.{item}"
        full.append(item)
    settings = settings.with_sets(full)
    return settings, settings.config(_Top, settings.value)


def _merges(at: Key, under: dict[str, Any], over: dict[str, Any]) -> bool:
    """A stage of another kind than the one of its name in the extended recipe shares nothing with it."""
    of_method = at[:2] == ("methods", "of") and len(at) == 4
    if at[:-1] not in (("stages",), ("rounds", "each"), ("methods", "each")) and not of_method:
        return True
    kind = under.get("kind", at[-1])
    return bool(over.get("kind", kind) == kind)
