"""The cores of one process: work that falls into parts is done side by side, each part by a thread that computes alone.

Most products of a small model are too short to be divided among threads that sleep between them; whole micro-batches
and whole answers are not (docs/performance.md).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def cores(device: torch.device | str) -> int:
    """How many parts are worth making: the threads that torch may use here, and one for an accelerator."""
    return torch.get_num_threads() if torch.device(device).type == "cpu" else 1


def side_by_side(work: Callable[[T], R], parts: Sequence[T], *, alone: bool = False) -> list[R]:
    """work(part) of every part, in their order; a single part is worked on by all cores, unless `alone`.

    Raises what the first part that failed raised, after all have ended.
    """
    threads = torch.get_num_threads()
    if threads == 1 or not parts or (len(parts) == 1 and not alone):
        return [work(part) for part in parts]
    pool = _pool(threads)
    # a thread knows neither no_grad nor the number of threads of the one that asks
    running = [pool.submit(_work, work, part, torch.is_grad_enabled()) for part in parts]
    try:
        wait(running)
    except BaseException:  # a signal: those at work hear of it too, at their next line of Python
        _pool.cache_clear()
        for future in running:
            future.cancel()
        for thread in pool._threads:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Stopped))
        raise
    return [future.result() for future in running]


class _Stopped(BaseException):
    """The one who asked has gone."""


def _work(work: Callable[[T], R], part: T, gradient: bool) -> R:
    with torch.set_grad_enabled(gradient):
        return work(part)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    # torch keeps the number of threads a thread: the caller's own stays as it is
    return ThreadPoolExecutor(threads, "core", initializer=partial(torch.set_num_threads, 1))
