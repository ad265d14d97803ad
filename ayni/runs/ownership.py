"""Whose a directory is: one process holds it, its files say that it is ours, and nothing of others is emptied."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ayni.errors import BadInput
from ayni.files import make_directory, read_json
from ayni.runs.sealing import SEAL

# what a stage or a run writes before it works: where there is more, there is work to lose
_PREPARED = {
    *("inputs.json", "config.yaml", "opened.json", "tuned.json", "metrics.jsonl"),
    *("recipe.yaml", "status.json", "results.json"),
}


def refuse_foreign(directory: Path, marks: Mapping[str, set[str]], whose: str) -> None:
    """A directory with files of someone else is never written to, let alone emptied.

    It is ours where one of the `marks` is there: a JSON file of this name, an object with these keys.
    """
    if directory.exists() and not directory.is_dir():
        raise BadInput("is a file, not a directory", path=directory, fix="choose another --out")
    names = {path.name for path in directory.iterdir()} if directory.exists() else set()
    if not any(not (name.startswith(".") and name.endswith(".tmp")) for name in names):
        return
    if not any(_has_keys(directory / name, keys) for name, keys in marks.items() if name in names):
        raise BadInput(f"holds files that are no {whose}'s", path=directory, fix="choose an empty or new --out")


def _has_keys(path: Path, keys: set[str]) -> bool:
    try:
        value = read_json(path)
    except BadInput:
        return False
    return isinstance(value, dict) and value.keys() >= keys


@contextlib.contextmanager
def ours(directory: Path) -> Iterator[None]:
    """Hold the directory; if the input turns out to be bad before any work was done, all that we made is gone again."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    was_empty = bool(missing) or not any(directory.iterdir())
    with locked(directory):
        try:
            yield
        except BadInput:
            if was_empty and not _holds_work(directory):
                empty(directory)
                for path in missing:
                    path.rmdir()
            raise


def _holds_work(directory: Path) -> bool:
    """Whether checkpoints, samples or anything else lies there that took time to make."""
    return any(path.is_file() and path.name not in _PREPARED for path in directory.rglob("*"))


def empty(directory: Path) -> None:
    (directory / SEAL).unlink(missing_ok=True)  # first: a half-emptied directory must not look finished
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Make the directory ours while we write to it; BadInput if another process holds it. Leaves no file behind."""
    make_directory(directory)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if not _flock(descriptor, fcntl.LOCK_EX):
            time.sleep(0.1)  # `is_held` may be asking just now
            if not _flock(descriptor, fcntl.LOCK_EX):
                raise BadInput("another ayni is at work here", path=directory, fix="wait for it, or stop it")
        yield
    finally:
        os.close(descriptor)


def is_held(directory: Path) -> bool:
    """Whether a process works in the directory now: what a killed one wrote last does not say so."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        return not _flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
