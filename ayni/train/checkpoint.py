"""Checkpoints: whole or absent, checked when read, at least two kept. Tensors in safetensors, numbers in JSON."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ayni.errors import BadInput
from ayni.files import atomic_directory, failpoint, sha256_of, write_json

# one more than the newest, which a failing disk may have torn
KEEP = 2


class Checkpoints:
    """A run's checkpoints, written by a thread of their own while training goes on.

    `save` returns when everything is copied (memory for one more state, until it is written); what went wrong in
    writing is raised by the next `save`, or where the block ends.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._writer, self._writing = ThreadPoolExecutor(1, "checkpoint"), Future[None]()
        self._writing.set_result(None)

    def load(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """As load_checkpoint."""
        return load_checkpoint(self.directory)

    def save(self, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """As save_checkpoint, of the values of now."""
        self._writing.result()
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        self._writing = self._writer.submit(save_checkpoint, self.directory, step, copies, numbers)

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
