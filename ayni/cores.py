"""The cores of one process: work that falls into parts is done side by side, each part by a thread that computes alone.

Most products of a small model are too short to be divided among threads that sleep between them; whole micro-batches
are not (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def cores(device: torch.device | str) -> int:
    """How many parts are worth making: the threads that torch may use here, and one for an accelerator."""
    return torch.get_num_threads() if torch.device(device).type == "cpu" else 1


def side_by_side(work: Callable[[T], R], parts: Sequence[T]) -> list[R]:
    """work(part) of every part, in their order; a single part is worked on here, by all cores.

    Raises what the first part that failed raised, after all have ended.
    """
    if len(parts) <= 1 or torch.get_num_threads() == 1:
        return [work(part) for part in parts]
    # a thread knows neither no_grad nor the number of threads of the one that asks
    running = [_pool(torch.get_num_threads()).submit(_alone, work, part, torch.is_grad_enabled()) for part in parts]
    failures = [failure for future in running if (failure := future.exception()) is not None]
    if failures:
        raise failures[0]
    return [future.result() for future in running]


def _alone(work: Callable[[T], R], part: T, gradient: bool) -> R:
    with torch.set_grad_enabled(gradient):
        return work(part)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    # torch keeps the number of threads a thread: the caller's own stays as it is
    return ThreadPoolExecutor(threads, "core", initializer=partial(torch.set_num_threads, 1))
