"""The sides of one comparison take turns, A B A B …, each in its own process; nothing else of ours runs meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.options import Options

Report = dict[str, Any]  # one turn of one side: seconds, items, memory and what else it says
ROOT = Path(__file__).parent.parent


def environment(options: Options, side: str) -> dict[str, str]:
    """Of every side alike: so many threads, no network, nothing that talks; how threads wait is what serves it best."""
    # llama.cpp's threads meet after every operation, some hundred times a token: asleep they would come late.
    # So long does GNU's OpenMP let them spin by itself; `prepare` would have them sleep at once
    waits = {"OMP_WAIT_POLICY": "PASSIVE"} | ({"GOMP_SPINCOUNT": "300000"} if side == "llama.cpp" else {})
    set_here = {
        "OMP_NUM_THREADS": str(options.threads),
        "MKL_NUM_THREADS": str(options.threads),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "PYTHONPATH": str(ROOT),
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MKL_", "KMP_", "MALLOC_", "LD_PRELOAD"))}
    return kept | set_here | waits


class Side:
    """A running process of one side; it is ready when this returns. Raises SystemExit with its last words."""

    def __init__(self, work: str, name: str, options: Options) -> None:
        self.label = f"{name} {options.dtype}"
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        command = [sys.executable, "-m", "benchmarks.side", work, name, json.dumps(asdict(options))]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment(options, name),
            cwd=ROOT,
        )
        self.built: float = self._answer()["memory"]  # MB above its imports, before the first turn

    def turn(self) -> Report:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: the answer that does not come says how
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Report:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            why = "killed, as when memory runs out" if code == -9 else f"exit {code}"
            raise SystemExit(f"{self.label} ended ({why}):\n{self._log.read()[-4000:]}")
        answer: Report = json.loads(line)
        return answer

    def close(self) -> None:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.communicate("", timeout=30)
        self._process.kill()
        self._process.wait()
        self._log.close()


@contextlib.contextmanager
def started(sides: Sequence[tuple[str, str, Options]]) -> Iterator[list[Side]]:
    """One after the other, so that no start disturbs another."""
    running: list[Side] = []
    try:
        for side in sides:
            running.append(Side(*side))
        yield running
    finally:
        for each in running:
            each.close()


def play(sides: Sequence[Side], pairs: int) -> tuple[dict[str, Report], list[dict[str, Report]]]:
    """The turn to warm up, and the turns that count, by label."""
    rounds = []
    for number in range(pairs + 1):
        rounds.append({side.label: side.turn() for side in sides})
        shown = ", ".join(f"{k} {r['items'] / r['seconds']:,.3g}" for k, r in rounds[-1].items())
        print(f"{'warm' if number == 0 else number}: {shown}", file=sys.stderr, flush=True)
    return rounds[0], rounds[1:]
