"""How long a whole run still takes, from its first stage on.

A recipe may say how many `seconds` each of its stages took where it was written. This machine's pace is measured
against them: by the stages that ran here, and by the one that is running.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ayni.run import clock


@dataclass
class Outlook:
    """`expected` seconds by stage; `waiting` are the stages that have not finished."""

    expected: Mapping[str, float]
    waiting: list[str]
    taken: float = field(default=0, init=False)  # seconds of the stages that ran here …
    foreseen: float = field(default=0, init=False)  # … and what the recipe says of them

    def __post_init__(self) -> None:
        if any(name not in self.expected for name in self.waiting):
            self.expected = {}  # of a part of the stages nothing follows for the whole

    def finished(self, stage: str, seconds: float | None) -> None:
        """The stage took so long; None: it was there already."""
        self.waiting.remove(stage)
        if seconds is not None and self.expected:
            self.taken += seconds
            self.foreseen += self.expected[stage]

    def left(self) -> float | None:
        """Seconds the waiting stages take at this machine's pace; None where nobody knows."""
        if not self.expected:
            return None
        pace = self.taken / self.foreseen if self.foreseen else 1.0
        return pace * sum(self.expected[name] for name in self.waiting)

    def while_running(self, stage: str, left: float, share: float) -> float | None:
        """The same while `stage` runs, of which a `share` is left that takes `left` seconds."""
        if not self.expected:
            return None
        foreseen = self.foreseen + share * self.expected[stage]
        pace = (self.taken + left) / foreseen if foreseen else 1.0
        return left + pace * sum(self.expected[name] for name in self.waiting if name != stage)

    def told(self) -> str:
        """`, 12m07s left`; empty where nobody knows or nothing waits."""
        left = self.left()
        return f", {clock(left)} left" if left and self.waiting else ""
