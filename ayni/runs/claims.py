"""What a recipe claims before it is run, and whether its numbers bear it out.

    claims:
      - paper: Table 28
        says: a margin helps where the preference is clear
        number: {metric: "accuracy_gain:significantly_better", model: margin, against: no-margin}
        above: 0

A claim holds where the whole 95% interval lies on its side of the bound (PASS), is refuted where it lies on the other
(FAIL), and is UNDECIDED else. The recipe says so before anybody has seen a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ayni.config import Config, Field, model_validator
from ayni.evaluate.results import Result

Verdict = Literal["PASS", "FAIL", "UNDECIDED"]


class Number(Config):
    """Which row of results.json; what is not said may be anything."""

    metric: str
    axis: str | None = None
    judge: str | None = None
    model: str | None = None
    against: str | None = None
    split: str | None = None

    def of(self, rows: Iterable[Result]) -> list[Result]:
        wanted = self.model_dump(exclude_none=True)
        return [row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())]

    def __str__(self) -> str:
        return " ".join(str(value) for value in self.model_dump(exclude_none=True).values())


class Claim(Config):
    """`number` (less so many `times` another one, `minus`) lies `above` a bound, or `below` it."""

    says: str = Field(min_length=1)
    paper: str = Field("", description="the table, figure or section that shows it")
    number: Number
    minus: Number | None = None
    times: float | None = Field(None, gt=0, description="how often `minus` counts: 0.8 for four fifths of it")
    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Claim:
        if (self.above is None) == (self.below is None):
            raise ValueError("give either above or below")
        return self


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict and the number that it rests on; `why` says why there is none, or no interval."""

    claim: Claim
    verdict: Verdict
    value: float | None = None
    interval: tuple[float, float] | None = None
    why: str = ""

    def shown(self) -> dict[str, Any]:
        """As `ayni run --json` prints it."""
        says = {"says": self.claim.says, "paper": self.claim.paper, "verdict": self.verdict}
        bound = {"above": self.claim.above, "below": self.claim.below}
        return says | {"value": self.value, "interval": self.interval, "why": self.why} | bound

    def __str__(self) -> str:
        side, bound = ("above", self.claim.above) if self.claim.above is not None else ("below", self.claim.below)
        number = self.why if self.value is None else f"{self.value:.3g}"
        spread = f" [{self.interval[0]:.3g}, {self.interval[1]:.3g}]" if self.interval else ""
        why = f" ({self.why})" if self.why and self.value is not None else ""
        paper = f" ({self.claim.paper})" if self.claim.paper else ""
        return f"{self.verdict:9}  {self.claim.says}{paper}: {number}{spread}{why}, asked {side} {bound:g}"


_Measured = tuple[float | None, tuple[float, float] | None]


def judged(claims: Sequence[Claim], rows: Sequence[Result]) -> list[Judged]:
    """Every claim held against the rows."""
    return [_judged(claim, rows) for claim in claims]


def _judged(claim: Claim, rows: Sequence[Result]) -> Judged:
    found = list[_Measured]()
    for number, times in ((claim.number, 1.0), (claim.minus, claim.times or 1.0)):
        if number is None:
            continue
        matching = list(dict.fromkeys((row.value, row.interval) for row in number.of(rows)))
        if len(matching) != 1:
            what = "nothing measured" if not matching else f"{len(matching)} numbers are meant by"
            return Judged(claim, "UNDECIDED", why=f"{what} {number}")
        found.append(_times(times, *matching[0]))
    (value, interval), *less = found
    if value is None or any(other is None for other, _ in less):
        return Judged(claim, "UNDECIDED", why="nothing was counted")
    value -= sum(other or 0.0 for other, _ in less)
    if interval is None or any(other is None for _, other in less):
        return Judged(claim, "UNDECIDED", value, why="too few for an interval")
    interval = _difference(value, interval, *(other for _, other in less if other is not None))
    return Judged(claim, verdict(interval, claim.above, claim.below), value, interval)


def verdict(interval: tuple[float, float], above: float | None, below: float | None) -> Verdict:
    """On which side of the one bound that is given the whole interval lies."""
    low, high = interval
    holds = low > above if above is not None else below is not None and high < below
    fails = high < above if above is not None else below is not None and low > below
    return "PASS" if holds else "FAIL" if fails else "UNDECIDED"


def _times(times: float, value: float | None, interval: tuple[float, float] | None) -> _Measured:
    return None if value is None else times * value, interval and (times * interval[0], times * interval[1])


def _difference(value: float, interval: tuple[float, float], *less: tuple[float, float]) -> tuple[float, float]:
    """Of a difference, half-widths in quadrature: right for other items, too wide for the same, which vary together."""
    if not less:
        return interval
    half = sum(((high - low) / 2) ** 2 for low, high in (interval, *less)) ** 0.5
    return value - half, value + half
