"""Which stages something was made by, from the inputs.json that every stage's directory holds.

A model that was exported has left its stages behind: `lineage.json` beside it says which they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict

from ayni.errors import BadInput
from ayni.files import files_below, is_path, read_object, sha256_of, write_json
from ayni.records import Count, Number, Text, from_dict
from ayni.run import name_of
from ayni.runs.sealing import content_hash, damages, read_seal
from ayni.runs.status import STATUS, stage_directories

INPUTS = "inputs.json"
LINEAGE = "lineage.json"
_KEPT = ("hash", "seed", "seconds", "finished", "source", "config")  # of a seal

_CLOSED = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Made:
    """A stage's directory: its kind, and what it read, by input, with the hash of what it was then."""

    directory: Path
    kind: str
    inputs: Mapping[str, tuple[Path, ...]]
    hashes: Mapping[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """As its recipe calls it; of a stage that stands alone, its directory's."""
        return name_of(self.directory)


@dataclass(frozen=True, slots=True)
class Read:
    """One input of a stage as it was read, the stage that left it (None: a file), and what became of it since."""

    __pydantic_config__ = _CLOSED
    input: Text
    path: Text
    sha256: Text
    stage: Text | None = None
    state: Literal["same", "changed", "gone"] = "same"


@dataclass(frozen=True, slots=True)
class Step:
    """A stage in the lineage of something. `state`: whole, unfinished, or how it differs from what was sealed; the rest
    is what its seal says."""

    __pydantic_config__ = _CLOSED
    name: Text
    kind: Text
    directory: Text
    state: Text
    read: tuple[Read, ...]
    hash: Text = ""
    seed: Count = 0
    seconds: Number = 0.0
    finished: Text = ""
    source: Text = ""
    config: dict[Text, Any] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return self.state == "whole" and all(each.state == "same" for each in self.read)


@dataclass(frozen=True, slots=True)
class _File:
    __pydantic_config__ = _CLOSED
    schema: Count
    files: dict[Text, Text]
    steps: tuple[Step, ...]


def made_in(directory: Path) -> Made:
    """BadInput where the directory's inputs.json is not what a stage writes."""
    path = directory / INPUTS
    value = read_object(path, most=2**26)
    try:
        given = {name: tuple(each["path"] for each in files) for name, files in value["inputs"].items()}
        if not all(is_path(path) for paths in given.values() for path in paths):
            raise TypeError
        inputs = {name: tuple(_moved(Path(p), directory.parent) for p in paths) for name, paths in given.items()}
        hashes = {name: tuple(str(each["sha256"]) for each in files) for name, files in value["inputs"].items()}
        return Made(directory, str(value["kind"]), inputs, hashes)
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
        directory = _stage_of(waiting.pop())
        if directory is not None and directory not in found:
            found[directory] = made_in(directory)
            waiting += [path for given in found[directory].inputs.values() for path in given]
    return list(found.values())


def lineage(path: Path) -> list[Step]:
    """Every stage that took part in making what lies at `path`, each after those it read from, held against its seal
    and its inputs against the hashes they had; none where no stage made it."""
    found: dict[Path, Step] = {}

    def add(directory: Path) -> None:
        if directory not in found:
            made = made_in(directory)
            for before in filter(None, (_stage_of(path) for paths in made.inputs.values() for path in paths)):
                add(before)
            found[directory] = _step(made)

    if (own := _stage_of(path)) is not None:
        add(own)
    return list(found.values())


def _step(made: Made) -> Step:
    seal = read_seal(made.directory)
    wrong = {} if seal is None else damages(made.directory, seal, thorough=True)
    state = "unfinished" if seal is None else "; ".join(f"{name} {what}" for name, what in wrong.items()) or "whole"
    read = tuple(
        Read(name, str(path), sha, _name_of(path), _state(path, sha))
        for name, paths in made.inputs.items()
        for path, sha in zip(paths, made.hashes[name], strict=True)
    )
    said = {key: seal[key] for key in _KEPT if key in seal} if seal else {}
    return Step(made.name, made.kind, str(made.directory), state, read, **said)


def _state(path: Path, sha: str) -> Literal["same", "changed", "gone"]:
    if not path.exists():
        return "gone"
    try:
        return "same" if content_hash(path) == sha else "changed"
    except BadInput:
        return "changed"


def _stage_of(path: Path) -> Path | None:
    """The stage's directory that the path lies in."""
    real = path.resolve()
    return next((each for each in (real, *real.parents) if (each / INPUTS).is_file()), None)


def _name_of(path: Path) -> str | None:
    directory = _stage_of(path)
    return None if directory is None else made_in(directory).name


def write_lineage(model: Path, out: Path) -> None:
    """Beside an exported model, where its stages are known: which they were, and the hash of what was exported."""
    if steps := lineage(model):
        place, held = (out / LINEAGE, out) if out.is_dir() else (out.with_name(f"{out.name}.{LINEAGE}"), out)
        files = files_below(held) if held.is_dir() else [held]
        hashes = {file.relative_to(place.parent).as_posix(): sha256_of(file) for file in files}
        write_json(place, {"schema": 1, "files": hashes, "steps": [asdict(step) for step in steps]})


def read_lineage(path: Path) -> tuple[list[Step], dict[str, str]]:
    """What `write_lineage` wrote beside a model, and which of its files differ from that and how; BadInput where
    there is none."""
    place = path / LINEAGE if path.is_dir() else path.with_name(f"{path.name}.{LINEAGE}")
    if not place.is_file():
        fix = "give a stage's model, or one that `ayni export` wrote from there"
        raise BadInput("no stage made it, and no lineage.json beside it says which", path=path, fix=fix)
    found = from_dict(_File, read_object(place, most=2**26), path=place)
    if not all(is_path(name) and ".." not in Path(name).parts and not Path(name).is_absolute() for name in found.files):
        raise BadInput("a file that is not beside it", path=place, field="files", fix="export the model again")
    wrong = {}
    for name, sha in found.files.items():
        file = place.parent / name
        if not file.is_file() or sha256_of(file) != sha:
            wrong[name] = "has changed" if file.is_file() else "is gone"
    return list(found.steps), wrong


def _moved(path: Path, stages: Path) -> Path:
    """Where the file lies now: runs are moved and copied, so what the same run made is looked for beside the stage."""
    for i, part in enumerate(path.parts):
        if (stages / part / INPUTS).is_file():
            return stages.joinpath(*path.parts[i:])
    return path
