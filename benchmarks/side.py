"""One side of a comparison, in a process of its own that stays alive and works when it is told to.

    python -m benchmarks.side WORK SIDE OPTIONS    (benchmarks.turns starts it)

One line `go` in, one JSON object out: the seconds of a turn and what was done in it. Both sides run under ayni's
allocator and thread settings, which are made before torch is loaded.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ayni.cli.environment import prepare

MB = 2**20


class Turns:
    """What a side takes its turns from: `imported`, then `begin` and `end` for ever; the clock runs in between."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever a library prints is no answer of ours
        self._memory = 0.0
        self._ready = False
        self._began = 0.0

    def imported(self) -> None:
        """All modules are loaded and no model is: memory is counted from here."""
        importlib.import_module("torch._dynamo")  # which torch puts off to the first optimiser of a process
        gc.collect()
        with contextlib.suppress(OSError):  # forgets the peak of the imports
            Path("/proc/self/clear_refs").write_text("5")
        self._memory = _resident("VmRSS")

    def begin(self) -> None:
        """Waits for the next turn; the first time it says that everything is built."""
        if not self._ready:
            self._ready = True
            self._send(memory=self._peak())
        if not sys.stdin.readline():
            sys.exit(0)
        self._settle()
        self._began = time.perf_counter()

    def end(self, items: float, seconds: float | None = None, **more: Any) -> None:
        """`items` were done, in these seconds or since `begin`; `more`: losses, flops, bytes, split, …"""
        self._settle()
        took = time.perf_counter() - self._began if seconds is None else seconds
        self._send(seconds=took, items=items, memory=self._peak(), **more)

    def __iter__(self) -> Iterator[int]:
        """The numbers of the turns, each begun."""
        turn = 0
        while True:
            self.begin()
            yield turn
            turn += 1

    def _settle(self) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def _peak(self) -> float:
        """MB above the imports: of the GPU where it computes there."""
        if self.device == "cuda":
            import torch

            return torch.cuda.max_memory_allocated() / MB
        return _resident("VmHWM") - self._memory

    def _send(self, **answer: Any) -> None:
        self._out.write(json.dumps(answer) + "\n")
        self._out.flush()


def _resident(field: str) -> float:
    """MB of this process: VmRSS now, VmHWM at most."""
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(field))


def main() -> None:
    work, name, given = sys.argv[1:]
    prepare()
    from benchmarks.options import Options

    options = Options(**json.loads(given))
    import torch

    torch.set_num_threads(options.threads)
    module = importlib.import_module(f"benchmarks.{work}")
    module.SIDES[name](options, Turns(options.device))


if __name__ == "__main__":
    main()
