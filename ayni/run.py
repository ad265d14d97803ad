"""One stage's directory while it runs: its seed, metrics, progress, checkpoints' home, and what it leaves behind."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from ayni.errors import BadNumbers
from ayni.files import json_line, write_json


class Run:
    """A directory in which one stage works.

    `log` appends a line to metrics.jsonl; `rewind` drops the lines past a step, so that a resumed run's metrics
    read as if it had never stopped. `tuned` remembers what is chosen at start (dtype, token budget, slots).
    Of several processes one `leads`; what the others leave in their own directories is thrown away, so they need
    not save.
    """

    def __init__(self, directory: Path, *, name: str, seed: int = 0, quiet: bool = False, leads: bool = True) -> None:
        self.directory, self.name, self.seed, self.quiet, self.leads = Path(directory), name, seed, quiet, leads
        self.directory.mkdir(parents=True, exist_ok=True)
        self.metrics_path = self.directory / "metrics.jsonl"
        self._started = self._printed = time.monotonic()
        self._began_at = 0

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

    def rewind(self, step: int) -> None:
        """Forget the metrics logged after `step`."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        self.metrics_path.write_text("".join(json_line(line) for line in kept), encoding="utf-8")

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
            print(f"{self.name}: {text}", file=sys.stderr, flush=True)

    def progress(self, done: int, total: int, unit: str = "step", **shown: float) -> None:
        """A live line with the time left on a terminal, a plain line every few seconds elsewhere."""
        now = time.monotonic()
        if done <= self._began_at or now < self._started:
            self._started, self._began_at = now, done
        terminal = sys.stderr.isatty()
        last = done >= total
        if self.quiet or (now - self._printed < (0.1 if terminal else 5) and not last):
            return
        self._printed = now
        speed = (done - self._began_at) / max(now - self._started, 1e-9)
        left = f"{(total - done) / speed:.0f}s left" if speed > 0 else "…"
        values = "  ".join(f"{key} {value:.4g}" for key, value in shown.items())
        text = f"{self.name}: {unit} {done}/{total}  {values}  {left}"
        if terminal:
            print(f"\r\x1b[K{text}", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)
        if last:
            self._began_at = 0
