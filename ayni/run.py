"""One stage's directory while it runs: its seed, metrics, progress, checkpoints' home, and what it leaves behind."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from ayni.errors import BadNumbers
from ayni.files import fsync, json_line, make_directory, write_json, write_text

BAR = 20  # characters
CHECKPOINTS = "checkpoints"  # what a stage needs to go on after a kill; removed when it has finished


def name_of(path: Path) -> str:
    """What to call a stage's directory or the model in it: as in its recipe (`03-sft-1f3a9c2e`: sft), else its own."""
    folder = Path(path).resolve()
    folder = folder.parent if folder.name == "model" else folder
    parts = folder.name.split("-")
    staged = len(parts) > 2 and parts[0].isdigit() and len(parts[-1]) == 8
    return "-".join(parts[1:-1]) if staged else folder.name


class Foresight(Protocol):
    def __call__(self, left: float, share: float) -> float | None:
        """Seconds left of all there is to do, when a `share` of this stage is left that takes `left` seconds."""


class Run:
    """A directory in which one stage works.

    `log` appends a line to metrics.jsonl; `rewind` drops the lines past a step, so that a resumed run's metrics
    read as if it had never stopped. `tuned` remembers what is chosen at start (dtype, token budget, slots).
    Of several processes one `leads`; what the others leave in their own directories is thrown away, so they need
    not save.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        seed: int = 0,
        quiet: bool = False,
        leads: bool = True,
        foresee: Foresight = lambda left, share: None,
    ) -> None:
        self.directory, self.name, self.seed, self.quiet, self.leads = Path(directory), name, seed, quiet, leads
        self._foresee = foresee  # a stage of a longer run says with its own time left that of the run
        make_directory(self.directory)
        self.checkpoints, self.metrics_path = self.directory / CHECKPOINTS, self.directory / "metrics.jsonl"
        self._printed = time.monotonic()
        self._first: tuple[int, float] | None = None  # what was done when we first looked, and when that was
        self._live = False  # a line stands on the terminal that the next one replaces

    def log(self, step: int, **metrics: Any) -> None:
        """One line of metrics; a number that is not finite is an error (exit 4), never a silent NaN."""
        for key, value in metrics.items():
            if isinstance(value, float) and value - value != 0:
                raise BadNumbers(f"{self.directory}: {key} is {value} at step {step}; lower the learning rate")
        with open(self.metrics_path, "a", encoding="utf-8") as file:
            file.write(json_line({"step": step, **metrics}))

    def metrics(self) -> list[dict[str, Any]]:
        if not self.metrics_path.exists():
            return []
        lines = self.metrics_path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]  # the last is empty, or torn by a kill

    def sync(self) -> None:
        """What is logged so far survives a loss of power: before a checkpoint that counts on it."""
        if self.metrics_path.exists():
            fsync(self.metrics_path)
            fsync(self.directory)

    def rewind(self, step: int) -> None:
        """Forget the metrics logged after `step`."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        write_text(self.metrics_path, "".join(json_line(line) for line in kept))

    def begin_anew(self) -> None:
        """Forget all metrics: a stage that was killed, and cannot go on where it was, logs everything again."""
        self.metrics_path.unlink(missing_ok=True)

    def tuned(self, **choices: Any) -> dict[str, Any]:
        """What this run settled on at its start: written once, read back on resume."""
        path = self.directory / "tuned.json"
        settled = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if choices.keys() - settled.keys():
            settled = choices | settled
            write_json(path, settled)
        return dict(settled)

    def say(self, text: str) -> None:
        if not self.quiet:
            print(f"{self._fresh_line()}{self.name}: {text}", file=sys.stderr, flush=True)

    def progress(self, done: int, total: int | None, unit: str = "step", **shown: float) -> None:
        """A live line with a bar and the time left on a terminal, a plain line every few seconds elsewhere.

        Where nobody knows the `total`, what is done is shown alone.
        """
        now = time.monotonic()
        if self._first is None or done <= self._first[0]:
            self._first = (done, now)  # what was done before, by a run that was interrupted, says nothing of our speed
        terminal, last = sys.stderr.isatty(), total is not None and done >= total
        if self.quiet or (now - self._printed < (0.1 if terminal else 5) and not last):
            return
        self._printed = now
        before, began = self._first
        speed = (done - before) / (now - began) if now > began else 0.0
        left, bar, counted = [], "", f"{unit} {done:,}"
        if total is not None:
            counted += f"/{total:,}"
            bar = "━" * (BAR * done // total) + "─" * (BAR - BAR * done // total) + " "
            left = [] if last else [self._left((total - done) / speed, 1 - done / total) if speed else "…"]
        values = [f"{key.replace('_per_', '/')} {_short(value)}" for key, value in shown.items()]
        if terminal:
            text = "  ".join([f"{self.name} {bar}{counted}", *values, *left])
            width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be taken back
            print(self._fresh_line() + text[:width], end="\n" if last else "", file=sys.stderr, flush=True)
            self._live = not last
        else:
            print("  ".join([f"{self.name}: {counted}", *values, *left]), file=sys.stderr, flush=True)
        if last:
            self._first = None

    def _left(self, seconds: float, share: float) -> str:
        whole = self._foresee(seconds, share)
        return f"{clock(seconds)} left" + (f" ({clock(whole)} of the run)" if whole is not None else "")

    def _fresh_line(self) -> str:
        """What takes a live line back."""
        live, self._live = self._live, False
        return "\r\x1b[K" if live else ""


def clock(seconds: float) -> str:
    """`42s`, `3m07s`, `2h05m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
