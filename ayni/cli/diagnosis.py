"""`ayni doctor PATH`: whether a run, a stage, a model, a checkpoint or a preference store is sound, and how to go on.

Everything that can be checked is: files against seals, checkpoints against their hashes, stores of samples line by
line, every tensor of a model; and of a run, what it is evaluated on against what it trained on. Nothing is written.
What the metrics of a stage that learns online warn of is said too: no damage, and no exit code.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ayni.cli import VerbFailure, plain, program
from ayni.errors import BadInput
from ayni.online.alarms import Alarm, alarms
from ayni.run import CHECKPOINTS
from ayni.runs.faces import face_of
from ayni.runs.leaks import gone, leaks_of
from ayni.runs.lineage import INPUTS, made_by, made_in
from ayni.runs.reading import read_metrics
from ayni.runs.sealing import damages, read_seal, sealed_hash, source_hash
from ayni.runs.status import STATUS, located, read_status

_STEP = re.compile(r"step-\d+")
_MODELS = ("config.json", "adapter_config.json", "params.json")


def diagnose(address: str, as_json: bool) -> dict[str, Any] | VerbFailure:
    """{run, stages, leaks, gone} of a run or a stage; of anything else what the functions below say."""
    from ayni.feedback.address import is_store

    if is_store(address):
        from ayni.cli.inspect_store import inspect_store

        return inspect_store(address, None, None, as_json)
    path = located(Path(address))
    if (path / "stages").is_dir() or (path / STATUS).is_file() or (path / INPUTS).is_file():
        return _of_run(path, as_json)
    if path.is_dir() and (path.name == CHECKPOINTS or _STEP.fullmatch(path.name)):
        return _of_checkpoints(path, as_json)
    if path.suffix == ".bin" or any((path / name).is_file() for name in _MODELS):
        return _of_model(path, as_json)
    what = "neither a run nor a stage, a model, a checkpoint or a preference store"
    raise BadInput(what, path=path, fix="ayni inspect says what is in a file of records")


def _of_model(path: Path, as_json: bool) -> dict[str, Any]:
    """{model, kind, shape, parameters, dtype, tokens, base, sealed}: read whole, as `ayni import` reads it."""
    from ayni.conversion import read_model

    kind, model, tokenizer = read_model(path)
    value = {
        "model": str(path),
        "kind": kind,
        "shape": asdict(model.shape),
        "parameters": model.shape.parameters,
        "dtype": str(model.tok_embeddings.weight.dtype).removeprefix("torch."),
        "tokens": tokenizer.vocab_size,
        "base": str(model.base.path) if kind == "peft" and model.base is not None else None,
        "sealed": sealed_hash(path) is not None,
    }
    if not as_json:
        for key, found in value.items():
            print(plain(f"{key:14} {'-' if found is None else found}"))
        print("whole: every number is there and finite, and the tokenizer fits")
    return value


def _of_checkpoints(path: Path, as_json: bool) -> dict[str, Any] | VerbFailure:
    """{checkpoints: [{directory, state}], go_on} of a stage's checkpoints, or of one of them."""
    value: dict[str, Any] = _checkpoints(path)
    if not as_json:
        _print_checkpoints(value)
    if value["checkpoints"] and value["go_on"] is None:
        return VerbFailure(value, BadInput("no checkpoint here is whole", path=path, fix="--fresh starts over"))
    return value


def _checkpoints(path: Path) -> dict[str, Any]:
    """Newest first; `go_on`: the one that the same command goes on from."""
    from ayni.train.checkpoint import checkpoints_in, read_checkpoint

    found: list[dict[str, str]] = []
    for place in [path] if _STEP.fullmatch(path.name) else checkpoints_in(path):
        try:
            read_checkpoint(place)
            found.append({"directory": place.name, "state": "whole"})
        except BadInput as error:
            found.append({"directory": place.name, "state": error.what})
    return {"checkpoints": found, "go_on": next((c["directory"] for c in found if c["state"] == "whole"), None)}


def _print_checkpoints(found: dict[str, Any]) -> None:
    for each in found["checkpoints"]:
        print(plain(f"           {each['directory']}: {each['state']}"))
    if found["go_on"] is not None:
        print(plain(f"           the same command goes on from {found['go_on']}"))


def _of_run(directory: Path, as_json: bool) -> dict[str, Any] | VerbFailure:
    """Every stage's files against the sha256 it was sealed with, and what is trained on against what is evaluated on;
    any difference and any leak is exit 2."""
    is_run = not (directory / INPUTS).is_file()
    if (directory / STATUS).is_file():
        _check_summary(directory)
    paths = sorted(path for path in directory.glob("stages/*") if path.is_dir()) if is_run else [directory]
    stages = [_stage(path) for path in paths]
    if not as_json:
        for stage in stages:
            _print_stage(stage)
    count = sum(len(stage["wrong"]) for stage in stages)
    made = [] if count else made_by(directory)  # what is damaged is not read
    leaks, unknown = leaks_of(made), [str(path) for path in gone(made)]
    if not as_json:
        for leak in leaks:
            print(plain(f"{'leak':10} {leak}"))
        for file in unknown:
            print(plain(f"{'gone':10} {file}: nobody knows whether it holds what is evaluated on"))
    value = {"run": str(directory), "stages": stages, "leaks": [asdict(leak) for leak in leaks], "gone": unknown}
    again = _again(directory) if is_run else "--fresh makes it again"
    if count:
        what = "a file is not what its stage left" if count == 1 else f"{count} files are not what their stages left"
        return VerbFailure(value, BadInput(what, path=directory, fix=f"see above; {again}"))
    if leaks:
        what = f"{len(leaks)} × a file to train on holds what is evaluated on"
        return VerbFailure(value, BadInput(what, path=directory, fix="see above; hold it out, or evaluate on others"))
    if not as_json and any(stage["state"] == "unfinished" for stage in stages):
        print(plain(f"to go on: {again if is_run else 'the same command again'}"))
    return value


def _again(run: Path) -> str:
    recipe, out = shlex.quote(str(run / "recipe.yaml")), shlex.quote(str(run))
    return f"{program()} run {recipe} --out {out}, with --only STAGE --fresh for what is damaged"


def _check_summary(run: Path) -> None:
    """BadInput where what the run says of itself is not what a run writes."""
    from ayni.evaluate.results import read_results

    read_status(run)
    if (run / "results.json").is_file():
        read_results(run / "results.json")


def _stage(path: Path) -> dict[str, Any]:
    """{directory, state, wrong, older_source, alarms, checkpoints, go_on} of a stage's directory."""
    seal = read_seal(path)
    wrong = {} if seal is None else damages(path, seal, thorough=True)
    resume: dict[str, Any] = {"checkpoints": [], "go_on": None}
    if seal is None:
        resume = _checkpoints(path / CHECKPOINTS)
        if resume["checkpoints"] and resume["go_on"] is None:
            wrong[CHECKPOINTS] = "holds none that is whole"
        wrong |= _unsealed(path)
    state = "damaged" if wrong else "unfinished" if seal is None else "whole"
    other = seal is not None and seal["source"] != source_hash()
    rung = [] if wrong else [asdict(alarm) for alarm in _alarms(path)]
    return {"directory": str(path), "state": state, "wrong": wrong, "older_source": other, "alarms": rung, **resume}


def _alarms(path: Path) -> list[Alarm]:
    """Of a stage that learns online, from its metrics so far."""
    face = face_of(made_in(path).kind) if (path / INPUTS).is_file() else None
    return [] if face is None or face.family != "online" else alarms(read_metrics(path / "metrics.jsonl"))


def _unsealed(path: Path) -> dict[str, str]:
    """What is wrong with what an unfinished stage goes on from, by file."""
    from ayni.rollout.store import whole_chunks

    if not (path / INPUTS).is_file():
        return {}
    name, wrong = INPUTS, {}
    try:
        face = face_of(made_in(path).kind)
        for name in [left for left, kind in face.leaves.items() if kind == "samples"] if face else []:
            if (path / name).exists():
                whole_chunks(path / name)
    except BadInput as error:
        wrong[name] = error.what
    return wrong


def _print_stage(stage: dict[str, Any]) -> None:
    older = "  (made by other source code)" if stage["older_source"] else ""
    print(plain(f"{stage['state']:10} {Path(stage['directory']).name}{older}"))
    for file, what in stage["wrong"].items():
        print(plain(f"           {file} {what}"))
    for alarm in stage["alarms"]:
        print(plain(f"alarm      {alarm['name']}, step {alarm['step']}: {alarm['seen']}"))
        print(plain(f"           why: {alarm['cause']}"))
        print(plain(f"           do:  {alarm['fix']}"))
    _print_checkpoints(stage)
