"""Files with something wrong in them, drawn from fixed seeds, and the one promise: sound, or one line of error.

`AYNI_MUTATIONS` says how many of each format (make torture: 10,000).
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ayni.errors import AyniError

MUTATIONS = int(os.environ.get("AYNI_MUTATIONS", "60"))
SECONDS, BYTES = 5.0, 10**9
Draw = np.random.Generator
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 17, 2**15, 2**31 - 1, -(2**31), 2**40, 10**18, 10**400, 0.5, -0.0),
    *(1e308, float("inf"), float("nan"), "", "16", "\0", "../..", "/etc/passwd", "\ud800", "x" * 5000),
    *([], {}, [None], [[[]]], {"": 1}, [10**9] * 9, {"a": {"b": {"c": []}}}),
]


def bytes_of(data: bytes, draw: Draw) -> bytes:
    """One to three changes: a bit, a byte, a run of bytes; cut short, cut out, doubled or moved."""
    for _ in range(draw.integers(1, 4)):
        if not data:
            return data
        at, length = int(draw.integers(len(data))), int(draw.choice([1, 2, 4, 8, 64, 1000]))
        head, run, tail = data[:at], data[at : at + length], data[at + length :]
        changes: list[Callable[[], bytes]] = [
            lambda head=head, run=run, tail=tail: head + bytes([run[0] ^ 1 << draw.integers(8)]) + run[1:] + tail,
            lambda head=head, run=run, tail=tail: head + bytes([draw.integers(256)]) + run[1:] + tail,
            lambda head=head, run=run, tail=tail: head + b"\xff" * len(run) + tail,
            lambda head=head, run=run, tail=tail: head + b"\0" * len(run) + tail,
            lambda head=head, run=run, tail=tail: head + draw.bytes(len(run)) + tail,
            lambda head=head, run=run, tail=tail: head,
            lambda head=head, run=run, tail=tail: head + tail,
            lambda head=head, run=run, tail=tail: head + run + run + tail,
            lambda head=head, run=run, tail=tail: tail + head,
        ]
        data = changes[draw.integers(len(changes))]()
    return data


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way for key, child in inside for way in [(*at, key), *places(child, (*at, key))]]


def json_of(value: Any, draw: Draw) -> str:
    """As JSON, with one to three values replaced, removed, renamed, doubled or swapped; or bytes of it changed."""
    value = copy.deepcopy(value)
    for _ in range(draw.integers(1, 4)):
        ways = places(value)
        if not ways:
            break
        *parents, key = ways[draw.integers(len(ways))]
        parent = value
        for each in parents:
            parent = parent[each]
        action = draw.integers(6)
        if action < 3:
            parent[key] = copy.deepcopy(ODD[draw.integers(len(ODD))])
        elif action == 3:
            del parent[key]
        elif action == 4 and isinstance(parent, dict):
            parent[["", "../..", "\ud800", f"{key}x"][draw.integers(4)]] = parent.pop(key)
        elif isinstance(parent, list):
            parent.insert(0, copy.deepcopy(parent[key]))
    text = json.dumps(value, ensure_ascii=bool(draw.integers(2)))
    if draw.integers(8) == 0:
        text = bytes_of(text.encode("utf-8", "surrogatepass"), draw).decode("utf-8", "surrogateescape")
    return text


def write(path: Path, content: bytes | str) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))


def outcome(call: Callable[[], object]) -> str | None:
    """The one line that it fails with, None where it does not; anything else, or more than 5 seconds, is a failure."""
    began, failure = time.monotonic(), None
    try:
        call()
    except AyniError as error:
        failure = error
    assert time.monotonic() - began < SECONDS
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
