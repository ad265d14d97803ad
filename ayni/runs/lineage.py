"""Which stages something was made by, from the inputs.json that every stage's directory holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ayni.errors import BadInput
from ayni.files import is_path, read_object
from ayni.runs.status import STATUS, stage_directories

INPUTS = "inputs.json"


@dataclass(frozen=True)
class Made:
    """A stage's directory: its kind, and what it read, by input."""

    directory: Path
    kind: str
    inputs: Mapping[str, tuple[Path, ...]]


def made_in(directory: Path) -> Made:
    """BadInput where the directory's inputs.json is not what a stage writes."""
    path = directory / INPUTS
    value = read_object(path, most=2**26)
    try:
        given = {name: tuple(each["path"] for each in files) for name, files in value["inputs"].items()}
        if not all(is_path(path) for paths in given.values() for path in paths):
            raise TypeError
        inputs = {name: tuple(_moved(Path(p), directory.parent) for p in paths) for name, paths in given.items()}
        return Made(directory, str(value["kind"]), inputs)
    except (KeyError, TypeError, AttributeError):
        raise BadInput("is not what a stage writes", path=path, fix="run the stage again with --fresh") from None


def made_by(run: Path) -> list[Made]:
    """The stages of a run's last recipe, as far as it has come; of anything else, none."""
    if not (run / STATUS).is_file():
        return []
    return [made_in(each) for each in stage_directories(run).values() if (each / INPUTS).is_file()]


def makers(paths: Iterable[Path]) -> list[Made]:
    """The stages that left these paths, and those whose outputs they read, and so on; each once."""
    found: dict[Path, Made] = {}
    waiting = list(paths)
    while waiting:
        real = waiting.pop().resolve()
        directory = next((each for each in (real, *real.parents) if (each / INPUTS).is_file()), None)
        if directory is not None and directory not in found:
            found[directory] = made_in(directory)
            waiting += [path for given in found[directory].inputs.values() for path in given]
    return list(found.values())


def _moved(path: Path, stages: Path) -> Path:
    """Where the file lies now: runs are moved and copied, so what the same run made is looked for beside the stage."""
    for i, part in enumerate(path.parts):
        if (stages / part / INPUTS).is_file():
            return stages.joinpath(*path.parts[i:])
    return path
