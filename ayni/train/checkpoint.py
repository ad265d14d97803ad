"""Checkpoints: whole or absent, checked when read, at least two kept. Tensors in safetensors, numbers in JSON."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ayni import interruption
from ayni.errors import BadInput
from ayni.files import atomic_directory, failpoint, read_object, read_text, sha256_of, write_json, write_text
from ayni.memory import need_memory
from ayni.model.compute import METER, Compute
from ayni.parallel import Ranks
from ayni.run import Run

_TENSORS, _NUMBERS, _HASH = "state.safetensors", "numbers.json", "sha256"
COMPUTE, TAKEN = "compute", "seconds"  # among the numbers
_NAME = re.compile(r"step-\d{8,18}")
# one more than the newest, which a failing disk may have torn
KEEP = 2
# what a machine that dies may cost, however long a step takes
SECONDS = 300.0
State = tuple[dict[str, Tensor], dict[str, Any]]


class Checkpoints:
    """A run's checkpoints, written by a thread of their own while training goes on.

    `save` returns when everything is copied (memory for one more state, until it is written); what went wrong in
    writing is raised by the next `save`, or where the block ends.
    """

    def __init__(self, run: Run, every: int, ranks: Ranks = Ranks()) -> None:
        self.run, self.every, self.ranks = run, every, ranks
        self._writer, self._writing = ThreadPoolExecutor(1, "checkpoint"), Future[float]()
        self._writing.set_result(0.0)
        self._saved = time.monotonic()

    def resume(self, load: Callable[[int, dict[str, Tensor], dict[str, Any]], None]) -> int | None:
        """Gives what load_checkpoint found to `load`; its step, or None where there is nothing to go on from.

        BadInput where `load` does not find what it looks for.
        """
        saved = load_checkpoint(self.run.checkpoints)
        if saved is None:
            return None
        try:
            load(*saved)
        except torch.OutOfMemoryError:
            raise
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            what = f"the checkpoint of step {saved[0]} is not this stage's ({str(error)[:120]})"
            raise BadInput(what, path=self.run.checkpoints, fix="use --fresh to start over") from None
        if COMPUTE in saved[2]:  # what all processes had computed; one of an earlier version does not say
            spent = Compute(**saved[2][COMPUTE]) if self.ranks.leads else Compute()
            METER.set(spent, saved[2].get(TAKEN, 0.0))
        return saved[0]

    def after(self, step: int, state: Callable[[], State], *, last: bool) -> None:
        """What every process calls after every step: saves where it is time to, and stops where a signal has come.

        Time is every so many steps, every few minutes, and before we stop. Nothing is due after the last step: the
        stage saves itself what it has made.
        """
        asked = bool(self.ranks.max(interruption.asked()))  # a signal may reach one process a step before another
        spent = sum(self.ranks.gather([METER.read]), Compute())
        if self.ranks.leads and (asked or (not last and (step % self.every == 0 or self._overdue()))):
            tensors, numbers = state()
            self.save(step, tensors, {**numbers, COMPUTE: asdict(spent), TAKEN: METER.seconds})
        if asked:
            self._writing.result()
            interruption.stop()

    def save(self, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """As save_checkpoint, of the values of now."""
        self._writing.result()
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        self._writing = self._writer.submit(self._write, step, copies, numbers)
        self._saved = time.monotonic()

    def _write(self, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> float:
        began = time.monotonic()
        self.run.sync()
        save_checkpoint(self.run.checkpoints, step, tensors, numbers)
        return time.monotonic() - began

    def _overdue(self) -> bool:
        waited = time.monotonic() - self._saved
        # one that takes long to write is not written all the time
        return waited >= SECONDS and self._writing.done() and waited >= 20 * self._writing.result()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.shutdown()
        # an error of the block comes first: what was wrong with the disk will show again
        if kind is None:
            self._writing.result()
            self.ranks.barrier()  # who resumes from here next must not find less than the one who wrote it


def save_checkpoint(directory: Path, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """`directory/step-00000100/`: written beside, synced, renamed; then all but the newest two are removed."""
    failpoint("save-begin")
    with atomic_directory(directory / f"step-{step:08d}") as place:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, place / _TENSORS)
        failpoint("save-tensors")
        write_json(place / _NUMBERS, {"step": step, **numbers})
        # the rename guards against kills; the hash against disks
        write_text(place / _HASH, _hash_of(place))
    failpoint("save-renamed")
    for old in checkpoints_in(directory)[KEEP:]:
        shutil.rmtree(old)
    failpoint("save-end")


def load_checkpoint(directory: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """The newest valid checkpoint as (step, tensors, numbers), or None where there is none at all.

    A broken one (a torn disk, not a kill: saves are atomic) is passed over for the one before it, and a line on stderr
    says so. Raises BadInput when checkpoints exist and none is valid: starting over would lose work silently.
    """
    broken: list[BadInput] = []
    for place in checkpoints_in(directory):
        try:
            found = read_checkpoint(place)
        except BadInput as error:
            broken.append(error)
            continue
        for why in broken if Ranks.current().leads else []:
            print(f"{why}; going on from {place.name}", file=sys.stderr, flush=True)
        return found
    if broken:
        what = f"no checkpoint here is whole ({broken[0].what})"
        raise BadInput(what, path=directory, fix="use --fresh to start over")
    return None


def checkpoints_in(directory: Path) -> list[Path]:
    """Newest first; what else lies there is not ours."""
    found = [
        place
        for place in directory.glob("step-*")
        if _NAME.fullmatch(place.name) and place.is_dir() and not place.is_symlink()
    ]
    return sorted(found, key=_step_of, reverse=True)


def read_checkpoint(place: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
    """(step, tensors, numbers) of one checkpoint; BadInput says why it is not whole."""
    try:
        if not (place / _HASH).is_file():
            raise BadInput("has no hash: it is torn, or an older ayni's", path=place)
        need_memory((place / _TENSORS).stat().st_size, f"{place}: a checkpoint")
        if read_text(place / _HASH) != _hash_of(place):
            raise BadInput("is not what was written", path=place)
        numbers = read_object(place / _NUMBERS)
        if numbers.get("step") != _step_of(place):
            raise BadInput("is of another step than its name says", path=place)
        return _step_of(place), load_file(place / _TENSORS), numbers
    except (OSError, SafetensorError) as error:
        raise BadInput(f"is not whole ({str(error)[:120]})", path=place) from None


def _step_of(place: Path) -> int:
    return int(place.name.removeprefix("step-"))


def _hash_of(place: Path) -> str:
    return sha256_of(place, keep=lambda file: file.as_posix() in (_TENSORS, _NUMBERS))
