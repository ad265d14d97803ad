"""A disk that fails on purpose, under one directory: at its n-th operation it stops us, is full, refuses, breaks, or
the machine loses its power.

Operations are what changes the disk: opening to write, fsync, rename, mkdir, unlink, rmdir. What a machine without
power keeps is known from the calls of fsync alone: a file's bytes as they were when it was synced, a directory's names
as they were when that was. Everything since may be there or not, each on its own, and in part.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ayni.files import Killed

FAULTS = ("kill", "power", "ENOSPC", "EDQUOT", "EIO", "EACCES")


class Disk:
    """`passed` counts the operations; the one numbered `at` meets `fault`. `left` is what a loss of power left."""

    def __init__(self, root: Path, at: int, fault: str, seed: int) -> None:
        self.root, self.at, self.fault, self.draw = root, at, fault, np.random.default_rng(seed)
        self.passed, self.left = 0, root
        self._bytes: dict[int, bytes] = {}  # by inode
        self._names: dict[int, dict[str, int]] = {}
        self._held: dict[int, int] = {}  # an inode that is open is not given to another file

    def operation(self, path: Path) -> None:
        """Counts, and fails where it is told to."""
        if not path.is_relative_to(self.root):
            return
        self.passed += 1
        if self.passed != self.at:
            return
        if self.fault == "power":
            self.left = self.root.with_name(f"{self.root.name}-without-power")
            self._rebuild(self._hold(self.root), self.left)
        if self.fault in ("kill", "power"):
            raise Killed(f"operation {self.at}: {path}")
        raise OSError(getattr(errno, self.fault), os.strerror(getattr(errno, self.fault)), str(path))

    def synced(self, descriptor: int) -> None:
        """What is on the disk now, whatever comes."""
        inode = self._hold(Path(f"/proc/self/fd/{descriptor}"))
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self._names[inode] = self._live_names(inode)
        else:
            self._bytes[inode] = self._live_bytes(inode)

    def _hold(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDONLY)
        inode = os.fstat(descriptor).st_ino
        if inode in self._held:
            os.close(descriptor)
        else:
            self._held[inode] = descriptor
        return inode

    def _live_names(self, inode: int) -> dict[str, int]:
        place = Path(f"/proc/self/fd/{self._held[inode]}")
        return {path.name: self._hold(path) for path in place.iterdir()}

    def _live_bytes(self, inode: int) -> bytes:
        return Path(f"/proc/self/fd/{self._held[inode]}").read_bytes()

    def _rebuild(self, inode: int, to: Path) -> None:
        if not stat.S_ISDIR(os.fstat(self._held[inode]).st_mode):
            to.write_bytes(self._found(self._bytes.get(inode, b""), self._live_bytes(inode)))
            return
        to.mkdir()
        kept, live = self._names.get(inode, {}), self._live_names(inode)
        for name in sorted(kept.keys() | live.keys()):
            found = (kept if self.draw.integers(2) else live).get(name)
            if found is not None:
                self._rebuild(found, to / name)

    def _found(self, kept: bytes, live: bytes) -> bytes:
        """Of a file that was written to since it was synced: as it was, as it is, or torn."""
        if live.startswith(kept):
            return live[: int(self.draw.integers(len(kept), len(live) + 1))]
        return kept if self.draw.integers(2) else live

    def close(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)


@contextlib.contextmanager
def faulty(root: Path, *, at: int = -1, fault: str = "kill", seed: int = 0) -> Iterator[Disk]:
    """Inside, what this process does to the directory goes through the Disk."""
    disk = Disk(root.absolute(), at, fault, seed)

    def named(call: Callable[..., Any]) -> Callable[..., Any]:
        def through(path: Any, *rest: Any, **more: Any) -> Any:
            at = more.get("dir_fd")
            place = Path(os.fspath(path)) if at is None else Path(os.readlink(f"/proc/self/fd/{at}"), path)
            disk.operation(place.absolute())
            return call(path, *rest, **more)

        return through

    def fsync(descriptor: int, call: Callable[[int], None] = os.fsync) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        disk.operation(place)
        call(descriptor)
        if place.is_relative_to(disk.root):
            disk.synced(descriptor)

    def opened(path: Any, mode: str = "r", *rest: Any, call: Callable[..., Any] = io.open, **more: Any) -> Any:
        if isinstance(path, str | os.PathLike) and set(mode) & set("wax+"):
            disk.operation(Path(path).absolute())
        return call(path, mode, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "mkdir", "unlink", "rmdir"):
            patch.setattr(os, name, named(getattr(os, name)))
        patch.setattr(os, "fsync", fsync)
        patch.setattr(io, "open", opened)
        patch.setattr("builtins.open", opened)
        try:
            yield disk
        finally:
            disk.close()


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
    """The kernel itself lets no file of this process grow past so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
