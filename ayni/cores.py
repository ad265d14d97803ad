"""The cores of one process: work that falls into parts is done side by side, each part by a thread of its own.

Most products of a small model are too short to be divided among threads that sleep between them; whole micro-batches
and whole answers are not (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from queue import Empty, SimpleQueue
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")
SLICE = 0.2  # seconds


def cores(device: torch.device | str) -> int:
    """How many parts are worth making: the threads that torch may use here, and one for an accelerator."""
    return torch.get_num_threads() if torch.device(device).type == "cpu" else 1


def side_by_side(work: Callable[[T], R], parts: Sequence[T], *, alone: bool = False) -> list[R]:
    """work(part) of every part, in their order. The cores are divided among the parts, unless each is to be `alone`:
    so few parts get several each, and a single one all.

    Raises what the first part that failed raised, after all have ended.
    """
    threads = torch.get_num_threads()
    if threads == 1 or not parts or (len(parts) == 1 and not alone):
        return [work(part) for part in parts]
    # a thread knows neither no_grad nor the number of threads of the one that asks
    gradient, busy, gone = torch.is_grad_enabled(), set[int](), threading.Event()
    each = 1 if alone else max(1, threads // len(parts))

    results: dict[int, R] = {}
    failures: dict[int, BaseException] = {}
    # not the futures' own wait: a signal inside it may leave their locks held, and the parts could never end
    ended: SimpleQueue[int] = SimpleQueue()

    def one(place: int, part: T) -> None:
        busy.add(threading.get_ident())
        try:
            if gone.is_set():
                raise _Stopped
            torch.set_num_threads(each)  # of this thread; the caller's own stays as it is
            with torch.set_grad_enabled(gradient):
                results[place] = work(part)
        except BaseException as error:
            failures[place] = error
        finally:
            busy.discard(threading.get_ident())
            ended.put(place)

    try:
        for place, part in enumerate(parts):
            _pool(threads).submit(one, place, part)
        for _ in parts:
            _wait(ended)
    except BaseException:  # a signal, at any line: those at work hear of it too, at their next line of Python
        _pool.cache_clear()
        gone.set()  # and who begins now, before that
        for thread in list(busy):  # they leave it as they end
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_Stopped))
        raise
    if failures:
        raise failures[min(failures)]
    return [results[place] for place in range(len(parts))]


def _wait(ended: SimpleQueue[int]) -> None:
    """Until one has ended. In slices: a signal between Python's last look and the wait itself wakes nobody."""
    while True:
        try:
            ended.get(timeout=SLICE)
        except Empty:
            continue
        return


class _Stopped(BaseException):
    """The one who asked has gone."""


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "core")
