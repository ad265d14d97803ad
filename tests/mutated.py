"""Directories with something wrong in one of their files, and the one promise: sound, or one line of error."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mutations import Draw, broken_bytes, broken_value

from ayni.errors import AyniError

SECONDS, BYTES = 5.0, 10**9


def json_of(value: Any, draw: Draw) -> str:
    """As JSON, with some of its parts broken; now and then bytes of the text, too."""
    text = json.dumps(broken_value(value, draw), ensure_ascii=draw.random() < 0.5)
    if draw.randrange(8) == 0:
        text = broken_bytes(text.encode("utf-8", "surrogatepass"), draw).decode("utf-8", "surrogateescape")
    return text


def write(path: Path, content: bytes | str) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))


def outcome(call: Callable[[], object]) -> str | None:
    """The one line that it fails with, None where it does not; anything else, or more than 5 seconds, is a failure."""
    began, failure = time.process_time(), None  # its own time: the machine may be busy
    try:
        call()
    except AyniError as error:
        failure = error
    assert time.process_time() - began < SECONDS
    if failure is None:
        return None
    line = str(failure)
    assert failure.exit_code in (2, 3, 4)
    assert "\n" not in line
    assert len(line) < 2000, line[:200]
    return line


def listing(directory: Path) -> dict[str, tuple[int, int]]:
    found = [path for path in directory.rglob("*") if not path.is_symlink()]
    return {str(path.relative_to(directory)): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@contextmanager
def bounded(directory: Path) -> Iterator[None]:
    """Nothing is written into the directory and not a gigabyte of memory taken inside the block."""
    before = listing(directory)
    with little_memory():
        yield
    assert listing(directory) == before


@contextmanager
def little_memory() -> Iterator[None]:
    clear = Path("/proc/self/clear_refs")
    if not os.access(clear, os.W_OK):
        pytest.skip("the peak of memory cannot be reset here")
    clear.write_text("5")
    start = _peak()
    yield
    assert _peak() - start < BYTES


def _peak() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
