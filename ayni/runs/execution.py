"""One stage, run so that it can be killed anywhere: finished work is found again, interrupted work continues.

A stage's identity is the hash of its kind, VERSION, settings with every default, seed and the hashes of its inputs.
Its directory says first what it will be (inputs.json, config.yaml) and last that it is finished (DONE.json, see
ayni.runs.sealing); a directory of another identity, or of someone else, is never written to. Under torchrun the first
process leads: it alone decides and writes there; the others run the stage's body beside it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from ayni.config import Config
from ayni.errors import AyniError, BadInput, NoRoom
from ayni.files import failpoint, read_json, room, write_json, write_text
from ayni.memory import forget_peak, peak_memory
from ayni.model.compute import METER, Compute
from ayni.run import Foresight, Run
from ayni.runs.evaluations import check_prompts, check_seal, record_opening
from ayni.runs.faces import Stage, load_stage
from ayni.runs.kinds import mismatch
from ayni.runs.ownership import empty, ours, refuse_foreign
from ayni.runs.sealing import (
    CHECKPOINTS,
    SEAL,
    SEAL_KEYS,
    content_hash,
    damages,
    read_seal,
    remove_checkpoints,
    seal_directory,
    source_hash,
)
from ayni.stage import COMPUTE

if TYPE_CHECKING:
    from ayni.parallel import Ranks

Inputs = Mapping[str, Path | list[Path]]
STAGE_MARKS = {"inputs.json": {"hash", "kind", "version", "seed", "inputs"}, SEAL: set(SEAL_KEYS)}
NEEDED_BYTES = 200 * 2**20  # a stage that starts with less free disk than this would only die later


class _Dumper(yaml.SafeDumper):
    """Quotes text that our reader would take for a number (`1e-5`), which YAML 1.1 would not."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, '"' if text[:1] in "+-.0123456789" else None)


_Dumper.add_representer(str, _text_node)


def dump_yaml(value: Any) -> str:
    """YAML that `config.read_yaml` reads back as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class Job:
    """One stage with everything its result depends on; `hashes` are those of its inputs and what it hashes beside."""

    stage: Stage
    config: Config
    inputs: Inputs
    seed: int
    hashes: Mapping[str, list[str]]

    @property
    def identity(self) -> str:
        depends = {
            "kind": self.stage.kind,
            "version": self.stage.version,
            "config": self.config.model_dump(mode="json"),
            "seed": self.seed,
            "inputs": self.hashes,
        }
        text = json.dumps(depends, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def job_of(stage: Stage, config: Config, inputs: Inputs, seed: int) -> Job:
    """Checks the inputs against the stage's face and hashes them; BadInput for a missing or unknown one."""
    for name in inputs:
        if name not in stage.inputs:
            raise BadInput(f"{stage.kind} has no input {name!r}", fix=f"its inputs: {', '.join(stage.inputs)}")
    for name, spec in stage.inputs.items():
        if not spec.optional and not inputs.get(name):
            raise BadInput(f"the input {name!r} is missing", field=stage.kind)
    for name, given in inputs.items():
        for path in given if isinstance(given, list) else [given]:
            if (found := mismatch(stage.inputs[name], path)) is not None:
                raise BadInput(found.what, path=path, fix=found.fix)
            check_seal(path, config)
    hashes = {
        name: [content_hash(path) for path in (given if isinstance(given, list) else [given])]
        for name, given in inputs.items()
    }
    if others := stage.also_hashed(config, inputs):
        hashes["also_hashed"] = [content_hash(path) for path in others]
    return Job(stage, config, inputs, seed, hashes)


def execute(
    kind: str,
    config: Config,
    inputs: Inputs,
    directory: Path,
    *,
    name: str,
    seed: int,
    fresh: bool = False,
    quiet: bool = False,
) -> Literal["ran", "reused"]:
    """Run one stage into `directory`, or find it finished there, or continue it if it was interrupted.

    BadInput when the directory holds something else (nothing of it is touched); `fresh` starts over instead.
    """
    job = job_of(load_stage(kind), config, inputs, seed)
    return execute_job(job, directory, name=name, fresh=fresh, quiet=quiet)


def execute_job(
    job: Job,
    directory: Path,
    *,
    name: str,
    fresh: bool = False,
    quiet: bool = False,
    recipe: Path | None = None,
    foresee: Foresight = lambda left, share: None,
) -> Literal["ran", "reused"]:
    """As `execute`, for inputs that are already hashed; `recipe`: whose stage it is, for the record, of which
    `foresee` tells the time left."""
    from ayni.parallel import Ranks

    ranks = Ranks.current()
    if ranks.rank > 0:
        return _follow(job, directory, ranks, name)
    with _notifying(ranks) as notify:
        refuse_foreign(directory, STAGE_MARKS, "stage")
        _refuse_to_write_over(job, directory)
        if not fresh:
            if reusable(job, directory):
                remove_checkpoints(directory)  # a kill just after the seal left them
                notify("reused")
                return "reused"
            if (directory / "inputs.json").is_file() and read_json(directory / "inputs.json")["hash"] != job.identity:
                _refuse_other(directory)
        check_prompts(job.stage, job.config, job.inputs, quiet=quiet)
        with ours(directory):
            if fresh:
                empty(directory)
            _need_room(directory)
            write_json(directory / "inputs.json", _inputs_record(job))
            write_text(directory / "config.yaml", dump_yaml(job.config.model_dump(mode="json")))
            record_opening(directory, job.config, name, job.seed, recipe, job.hashes)
            failpoint("stage-started")
            notify("ran")
            ranks.barrier()  # until the others have read what an interrupted run left
            with room(directory):
                _run_and_seal(job, directory, Run(directory, name=name, seed=job.seed, quiet=quiet, foresee=foresee))
            ranks.barrier()
    return "ran"


def _run_and_seal(job: Job, directory: Path, run: Run) -> None:
    forget_peak()
    spent = _metered(job, run)
    peak = peak_memory()
    if not (directory / COMPUTE).exists():  # killed after this: the seal had begun to forget what drawing cost
        write_json(directory / COMPUTE, asdict(spent))
    _give_memory_back()
    failpoint("stage-finished")
    seal_directory(
        directory,
        seconds=METER.seconds,
        peak_memory=peak,
        hash=job.identity,
        kind=job.stage.kind,
        version=job.stage.version,
        config=job.config.model_dump(mode="json"),
        seed=job.seed,
    )
    failpoint("stage-sealed")


def _metered(job: Job, run: Run) -> Compute:
    """Runs the stage's body; what all processes have computed for it."""
    from ayni.parallel import Ranks

    METER.set(Compute())
    job.stage.run(job.config, dict(job.inputs), run)
    return sum(Ranks.current().gather([METER.read]), Compute())


def _give_memory_back() -> None:
    """What a stage held goes back to the system; glibc would keep it, in pieces the next stage does not fit into."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)


@contextlib.contextmanager
def _notifying(ranks: Ranks) -> Iterator[Callable[[str], None]]:
    """Yields what tells the other processes how the leader goes on; an error before that is told too."""
    notices = []

    def notify(word: str) -> None:
        notices.append(word)
        ranks.gather([word])

    try:
        yield notify
    except AyniError:
        if not notices:
            notify("stopped")
        raise


def _follow(job: Job, directory: Path, ranks: Ranks, name: str) -> Literal["ran", "reused"]:
    """What every process but the leader does of a stage: its body, in a directory that is thrown away.

    It holds what the body resumes from: the leader's checkpoints, and a copy of its small files.
    """
    state = ranks.gather([""])[0]
    if state == "reused":
        return "reused"
    if state != "ran":
        raise BadInput("")  # the leader has said why
    with tempfile.TemporaryDirectory(prefix="ayni-") as folder:
        own = Path(folder)
        for file in directory.iterdir():
            if file.is_file():
                shutil.copy(file, own)
        (own / CHECKPOINTS).symlink_to((directory / CHECKPOINTS).absolute())
        ranks.barrier()
        _metered(job, Run(own, name=name, seed=job.seed, quiet=True, leads=False))
        _give_memory_back()
        ranks.barrier()
    return "ran"


def reusable(job: Job, directory: Path) -> bool:
    """Whether `directory` holds this job finished and whole; BadInput if it is damaged or another job's."""
    seal = read_seal(directory)
    if seal is None:
        return False
    if seal["hash"] != job.identity:
        _refuse_other(directory)
    if damaged := damages(directory, seal):
        file, what = next(iter(damaged.items()))
        raise BadInput(f"{what} since the stage finished", path=directory / file, fix="--fresh makes it again")
    return True


def warn_of_other_source(directories: Collection[Path]) -> None:
    """Of reused stages: a difference in ayni's own code is no reason to run them again, but worth a word."""
    other = [directory for directory in directories if (read_seal(directory) or {}).get("source") != source_hash()]
    if other:
        names = f"{len(other)} reused stages were" if len(other) > 1 else f"{other[0].name} was"
        print(f"{names} made by another version of ayni's code; --fresh starts over", file=sys.stderr)


def _inputs_record(job: Job) -> dict[str, Any]:
    def both(given: Path | list[Path], hashes: list[str]) -> list[dict[str, str]]:
        paths = given if isinstance(given, list) else [given]
        return [{"path": str(path), "sha256": sha} for path, sha in zip(paths, hashes, strict=True)]

    return {
        "hash": job.identity,
        "kind": job.stage.kind,
        "version": job.stage.version,
        "seed": job.seed,
        "inputs": {name: both(given, job.hashes[name]) for name, given in job.inputs.items()},
    }


def _refuse_other(directory: Path) -> None:
    raise BadInput(
        "holds the same stage with other settings, inputs or seed",
        path=directory,
        fix="choose another --out, or start it over with --fresh",
    )


def _refuse_to_write_over(job: Job, directory: Path) -> None:
    """Somebody who starts a stage over may have put what it reads where it writes."""
    for given in job.inputs.values():
        for path in given if isinstance(given, list) else [given]:
            if path.resolve().is_relative_to(directory.resolve()):
                raise BadInput("is read by the stage that would write there", path=path, fix="choose another --out")


def _need_room(directory: Path) -> None:
    free = shutil.disk_usage(directory).free
    if free < NEEDED_BYTES:
        raise NoRoom(
            f"{directory}: only {free / 2**20:.0f} MB of disk are free, a stage needs {NEEDED_BYTES / 2**20:.0f};"
            " free some and run the same command again"
        )
