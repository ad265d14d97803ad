"""Checkpoints: whole or absent, checked when read, at least two kept. Tensors in safetensors, numbers in JSON."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ayni import interruption
from ayni.errors import BadInput
from ayni.files import atomic_directory, failpoint, sha256_of, write_json
from ayni.parallel import Ranks
from ayni.run import Run

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

    def load(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """As load_checkpoint."""
        return load_checkpoint(self.run.checkpoints)

    def after(self, step: int, state: Callable[[], State], *, last: bool) -> None:
        """What every process calls after every step: saves where it is time to, and stops where a signal has come.

        Time is every so many steps, every few minutes, and before we stop. Nothing is due after the last step: the
        stage saves itself what it has made.
        """
        asked = bool(self.ranks.max(interruption.asked()))  # a signal may reach one process a step before another
        if self.ranks.leads and (asked or (not last and (step % self.every == 0 or self._overdue()))):
            self.save(step, *state())
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


def save_checkpoint(directory: Path, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """`directory/step-00000100/`: written beside, synced, renamed; then all but the newest two are removed."""
    failpoint("save-begin")
    with atomic_directory(directory / f"step-{step:08d}") as place:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, place / "state.safetensors"
        )
        failpoint("save-tensors")
        # the rename guards against kills; the hash against disks
        whole = sha256_of(place / "state.safetensors")
        write_json(place / "numbers.json", {"step": step, "sha256": whole, **numbers})
    failpoint("save-renamed")
    # eight digits in the name, so names sort by step
    for old in sorted(directory.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old)
    failpoint("save-end")


def load_checkpoint(directory: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """The newest valid checkpoint as (step, tensors, numbers), or None where there is none at all.

    A broken one (a torn disk, not a kill: saves are atomic) is passed over for the one before it. Raises BadInput when
    checkpoints exist and none is valid: starting over would lose work silently.
    """
    found = sorted(directory.glob("step-*"), reverse=True)
    for place in found:
        try:
            numbers = json.loads((place / "numbers.json").read_text(encoding="utf-8"))
            if sha256_of(place / "state.safetensors") != numbers.pop("sha256"):
                continue
            return numbers["step"], load_file(place / "state.safetensors"), numbers
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            continue
    if found:
        raise BadInput("no checkpoint here is whole", path=directory, fix="use --fresh to start over")
    return None
