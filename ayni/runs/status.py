"""status.json read back: a run's stages, and where they lie, which is inside the run and nowhere else; and what a path
to a run, to a stage or into one stands for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ayni.errors import BadInput
from ayni.files import is_path, read_object

STATUS = "status.json"


def read_status(run: Path) -> dict[str, Any]:
    """status.json, with a name, and a place or None, for every stage. BadInput where it is not what a run writes."""
    path = run / STATUS
    if not path.is_file():
        raise BadInput("not a run: status.json is missing", path=run, fix="make one with `ayni run RECIPE`")
    status = read_object(path)
    stages = status.get("stages")
    if not isinstance(stages, list):
        raise BadInput("expected an object with a list of stages", path=path, field="stages")
    for index, entry in enumerate(stages):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise BadInput("a stage needs a name", path=path, field=f"stages.{index}.name")
        written = entry.get("directory")
        if written is not None and not is_path(written):
            raise BadInput("expected a path inside the run", path=path, field=f"stages.{index}.directory")
    return status


def stage_directories(run: Path) -> dict[str, Path]:
    """Where the stages of a run lie, by name, as far as it has come."""
    stages = read_status(run)["stages"]
    return {each["name"]: stage_directory(run, each["directory"]) for each in stages if each.get("directory")}


def stage_directory(run: Path, written: str) -> Path:
    """Where a stage lies now: runs are moved and copied, so what an older place ends with is looked for too.

    BadInput for a place outside the run: what somebody else's run points at is not read.
    """
    beside = run / "stages" / Path(written).name
    for place in (run / written, beside) if written else ():
        if place.is_dir() and place.resolve().is_relative_to(run.resolve()):
            return place
    if not (run / written).resolve().is_relative_to(run.resolve()):
        raise BadInput(f"{written} lies outside the run", path=run / STATUS, field="directory")
    return beside


def output_of(path: Path, default: str) -> Path:
    """What a finished stage's directory leaves at `default`, or the path itself."""
    from ayni.runs.sealing import SEAL  # slow to import, and most commands need none of it

    path = located(path)
    if is_run(path):
        fit = [
            str(path / name) for name, directory in stage_directories(path).items() if (directory / default).exists()
        ]
        raise BadInput("is a whole run", path=path, fix=f"name one of its stages: {', '.join(fit)}")
    return path / default if os.path.isfile(path / SEAL) and (path / default).exists() else path


def located(path: Path) -> Path:
    """`RUN/STAGE` and `RUN/STAGE/inside` are short for the directory in which the run keeps that stage."""
    for run in [] if os.path.exists(path) else path.parents:  # (which is False of a name that no file can have)
        if is_run(run):
            name, *inside = path.relative_to(run).parts
            directory = stage_directories(run).get(name)
            return path if directory is None else directory.joinpath(*inside)
    return path


def is_run(path: Path) -> bool:
    return os.path.isfile(path / STATUS)
