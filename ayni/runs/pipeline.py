"""From a recipe to finished stages: what is done is reused, what changed reruns, what was killed continues.

`run_recipe` executes each stage (see ayni.runs.execution) in `runs/NAME/stages/NN-name-identity/`, keeps status.json
true at every moment and gathers all results in results.json.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ayni.errors import BadInput
from ayni.evaluate.results import Result
from ayni.files import read_json, write_json, write_text
from ayni.model.compute import Compute
from ayni.records import from_dict
from ayni.runs.claims import Claim, Judged, judged
from ayni.runs.execution import (
    Job,
    dump_yaml,
    execute,
    execute_job,
    job_of,
    reusable,
    warn_of_other_source,
)
from ayni.runs.outlook import Outlook
from ayni.runs.ownership import ours, refuse_foreign
from ayni.runs.recipe import Recipe, RecipeStage, read_recipe
from ayni.runs.sealing import read_seal
from ayni.stage import COMPUTE

__all__ = ["StageProgress", "execute", "run_recipe"]


@dataclass
class StageProgress:
    """One stage as status.json shows it; `inputs` names stages or paths."""

    name: str
    kind: str
    directory: str | None = None
    hash: str | None = None
    state: str = "pending"  # pending | running | ran | reused | failed | interrupted
    seconds: float | None = None
    inputs: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class _Board:
    """The run's status.json and results.json, rewritten whole after every change."""

    directory: Path
    name: str
    stages: list[StageProgress]
    watch: Callable[[dict[str, Any]], None]
    leads: bool = True  # under torchrun only the first process writes
    status: str = "running"
    results: list[dict[str, Any]] = field(default_factory=list)
    claims: tuple[Claim, ...] = ()

    def write(self) -> None:
        if not self.leads:
            return
        stages = [asdict(stage) for stage in self.stages]
        write_json(self.directory / "status.json", {"run": self.name, "status": self.status, "stages": stages})
        self.watch(self.summary())

    def gather(self) -> None:
        """All stages' result rows, in the order of the stages."""
        if not self.leads:
            return
        self.results = []
        for stage in self.stages:
            path = self.directory / (stage.directory or "") / "results.json"
            if stage.state in ("ran", "reused") and path.is_file():
                self.results += read_json(path)["results"]
        self.results += map(asdict, self.compute())
        write_json(self.directory / "results.json", {"schema": 1, "results": self.results})

    def compute(self) -> list[Result]:
        """What every finished stage has computed: `compute`, in floating-point operations, of so many tokens."""
        rows = []
        for stage in self.stages:
            path = self.directory / (stage.directory or "") / COMPUTE
            if stage.state in ("ran", "reused") and path.is_file():
                spent = from_dict(Compute, read_json(path), path=path)
                if spent.flops:
                    rows.append(Result("compute", model=stage.name, n=spent.forward, value=float(spent.flops)))
        return rows

    def summary(self) -> dict[str, Any]:
        """What `ayni run --json` prints; directories are absolute."""
        keys = ("name", "kind", "directory", "hash", "state", "seconds")
        stages = [{key: getattr(stage, key) for key in keys} for stage in self.stages]
        for stage in stages:
            if stage["directory"] is not None:
                stage["directory"] = str((self.directory / stage["directory"]).absolute())
        return {
            "run": str(self.directory),
            "status": self.status,
            "stages": stages,
            "results": self.results,
            "claims": [each.shown() for each in self.judged()],
        }

    def judged(self) -> list[Judged]:
        """What the recipe claims, once there is nothing left to measure."""
        if self.status != "done" or not self.claims:
            return []
        return judged(self.claims, [from_dict(Result, row) for row in self.results])


def run_recipe(
    path: Path,
    out: Path | None = None,
    sets: Sequence[str] = (),
    *,
    only: Collection[str] = (),
    dry_run: bool = False,
    fresh: bool = False,
    quiet: bool = False,
    watch: Callable[[dict[str, Any]], None] = lambda summary: None,
) -> dict[str, Any]:
    """Run a recipe into `out` (default runs/NAME); returns {run, status, stages, results, claims}.

    `only` names the last stages wanted, in place of the recipe's own: they and what they need run, and `fresh` then
    starts over only those.
    `dry_run` writes nothing; a stage whose inputs are not made yet has no hash. When a stage fails, its error is
    raised with status.json telling which, and everything finished stays (bad input to a first run's first stage leaves
    nothing). `watch` hears the summary at every change.
    Under torchrun every process calls this; the first one writes.
    """
    recipe = read_recipe(path, sets)
    from ayni.parallel import Ranks  # not before the recipe's environment is set: it imports torch

    entries = wanted(recipe, only or recipe.only)
    directory = out or Path("runs") / recipe.name
    stages = [StageProgress(entry.name, entry.stage.kind, inputs=_shown(entry)) for entry in entries]
    leads = Ranks.current().rank == 0
    quiet = quiet or not leads
    board = _Board(directory, recipe.name, stages, watch, leads, claims=recipe.claims)
    directories: dict[str, Path] = {}  # where the finished stages lie
    anew = {entry.name for entry in entries if fresh and (not only or entry.name in only)}
    for line in recipe.reaches() if leads else ():
        print(line, file=sys.stderr, flush=True)
    refuse_foreign(directory, {"status.json": {"run", "status", "stages"}}, "run")
    if dry_run:
        board.status = "planned"
        _plan(recipe, entries, board, anew)
        return board.summary()
    with ours(directory) if leads else contextlib.nullcontext():
        board.write()  # first: by this file the directory is known as ours
        if leads:
            write_text(directory / "recipe.yaml", dump_yaml(recipe.resolved()))
        outlook = Outlook(recipe.seconds, [entry.name for entry in entries])
        if not quiet and recipe.seconds:
            print(f"{recipe.name}: {len(entries)} stages{outlook.told()}", file=sys.stderr, flush=True)
        for index, (entry, stage) in enumerate(zip(entries, board.stages, strict=True)):
            number = recipe.stages.index(entry) + 1
            with _reported(board, stage):
                directories[entry.name] = _run_stage(
                    entry,
                    stage,
                    directories,
                    board,
                    number,
                    outlook,
                    fresh=entry.name in anew,
                    quiet=quiet,
                    recipe=path,
                )
            outlook.finished(entry.name, stage.seconds if stage.state == "ran" else None)
            board.gather()
            board.write()
            if not quiet:
                took = f" in {stage.seconds:.0f} s" if stage.state == "ran" else ""
                print(
                    f"[{index + 1}/{len(entries)}] {entry.name}: {stage.state}{took}{outlook.told()}",
                    file=sys.stderr,
                    flush=True,
                )
        board.status = "done"
        board.write()
        if not quiet:
            warn_of_other_source([directories[stage.name] for stage in board.stages if stage.state == "reused"])
    return board.summary()


def _run_stage(
    entry: RecipeStage,
    stage: StageProgress,
    directories: Mapping[str, Path],
    board: _Board,
    number: int,
    outlook: Outlook,
    *,
    fresh: bool,
    quiet: bool,
    recipe: Path,
) -> Path:
    job = _job(entry, directories)
    directory = _directory_of(board.directory, entry.name, job.identity, number)
    stage.directory, stage.hash, stage.state = str(directory.relative_to(board.directory)), job.identity, "running"
    board.write()
    foresee = partial(outlook.while_running, entry.name)
    stage.state = execute_job(job, directory, name=entry.name, fresh=fresh, quiet=quiet, recipe=recipe, foresee=foresee)
    stage.seconds = (read_seal(directory) or {}).get("seconds")
    return directory


@contextlib.contextmanager
def _reported(board: _Board, stage: StageProgress) -> Iterator[None]:
    """What happens to a stage that does not finish is in status.json before anyone hears of it."""
    try:
        yield
    except BaseException as error:
        failed = isinstance(error, Exception)
        stage.state = board.status = "failed" if failed else "interrupted"
        board.write()
        raise


def _job(entry: RecipeStage, directories: Mapping[str, Path]) -> Job:
    inputs: dict[str, Path | list[Path]] = {}
    for name, references in entry.inputs.items():
        paths = [r.path if r.stage is None else directories[r.stage] / r.path for r in references]
        inputs[name] = paths if entry.stage.inputs[name].many else paths[0]
    return job_of(entry.stage, entry.config, inputs, entry.seed)


def _directory_of(directory: Path, name: str, identity: str, number: int) -> Path:
    """The stage's directory: an earlier one of the same name and identity, whatever its number, else a new one."""
    stages = directory / "stages"
    pattern = re.compile(rf"\d+-{name}-{identity[:8]}")
    held = [path for path in stages.glob("*") if pattern.fullmatch(path.name)]
    return min(held, default=stages / f"{number:02d}-{name}-{identity[:8]}")


def _shown(entry: RecipeStage) -> dict[str, list[str]]:
    return {name: [r.stage or r.text for r in references] for name, references in entry.inputs.items()}


def wanted(recipe: Recipe, only: Collection[str]) -> list[RecipeStage]:
    """The entries named in `only` and all they need, in the recipe's order; all of them when it is empty."""
    by_name = {entry.name: entry for entry in recipe.stages}
    for name in only:
        if name not in by_name:
            raise BadInput(f"there is no stage {name!r}", path=recipe.path, fix=f"stages: {', '.join(by_name)}")
    wanted, waiting = set[str](), list(only or by_name)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += by_name[name].needs()
    return [entry for entry in recipe.stages if entry.name in wanted]


def _plan(recipe: Recipe, entries: Sequence[RecipeStage], board: _Board, anew: Collection[str]) -> None:
    """Fill in what is known before anything runs: a stage after one that has to run has no identity yet."""
    directories: dict[str, Path] = {}
    for entry, stage in zip(entries, board.stages, strict=True):
        if entry.needs() <= directories.keys():
            job = _job(entry, directories)
            directory = _directory_of(board.directory, entry.name, job.identity, recipe.stages.index(entry) + 1)
            stage.directory, stage.hash = str(directory.relative_to(board.directory)), job.identity
            if entry.name not in anew and reusable(job, directory):
                stage.state, directories[entry.name] = "reused", directory
