"""What is known of the scale of a reward model's raw scores, as its directory's `ayni.json` and card say it.

A ranking loss fixes scores only up to a shift (paper §3.2.2). Two things can fix that: safety labels, to which σ(score)
was fitted, and the mean on answers of the policy that the model started from (departure 30).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ayni.records import Count, Number, from_dict

Head = Literal["reward", "critic"]  # whose scalar head it is, and the key in ayni.json
_CLOSED = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Anchor:
    """The labelled answers among those trained on, and the weight λ of the loss that fits σ(score) to their labels."""

    __pydantic_config__ = _CLOSED
    safety_weight: Number
    safe: Count
    unsafe: Count

    @property
    def holds(self) -> bool:
        """Whether σ = ½ divides safe from unsafe: labels of one kind alone only push all scores one way."""
        return self.safety_weight > 0 and self.safe > 0 and self.unsafe > 0

    def __str__(self) -> str:
        counts = f"{self.safe} safe and {self.unsafe} unsafe labelled answers, λ {self.safety_weight:g}"
        return counts if self.holds else f"none ({counts}): σ of a score means nothing by itself"


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and standard deviation of the raw scores of so many answers that the start policy drew."""

    __pydantic_config__ = _CLOSED
    mean: Number
    deviation: Number
    answers: Count

    def __post_init__(self) -> None:
        if not 0 < self.deviation < float("inf"):
            raise ValueError(f"deviation: {self.deviation} is not a number > 0")
        if not abs(self.mean) < float("inf"):
            raise ValueError(f"mean: {self.mean} is not a finite number")

    @classmethod
    def of(cls, scores: Tensor) -> Normalisation | None:
        """Of raw scores (N,); None where they have no spread."""
        scores = scores.double()
        deviation = float(scores.std()) if len(scores) > 1 else 0.0
        return cls(float(scores.mean()), deviation, len(scores)) if deviation > 0 else None

    def __call__(self, scores: Tensor) -> Tensor:
        """(x − mean)/deviation."""
        return (scores - self.mean) / self.deviation

    def __str__(self) -> str:
        return f"mean {self.mean:.4g}, deviation {self.deviation:.4g} on {self.answers} answers of the start policy"


@dataclass(frozen=True, slots=True)
class ScoreScale:
    """None: nobody has said, as in the directories of others."""

    __pydantic_config__ = _CLOSED
    anchor: Anchor | None = None
    normalisation: Normalisation | None = None

    @classmethod
    def of(cls, extra: Mapping[str, Any], path: Path | None = None, head: Head = "reward") -> ScoreScale:
        """From what `ayni.json` (at `path`) holds; BadInput where that is no such thing."""
        return from_dict(cls, extra.get(head, {}), path=path)

    @property
    def anchored(self) -> bool:
        return self.anchor is not None and self.anchor.holds

    def noted(self, head: Head = "reward") -> dict[str, Any]:
        """For `ayni.json`; {} where there is nothing to say."""
        said = {key: value for key, value in asdict(self).items() if value is not None}
        return {head: said} if said else {}

    def card(self) -> dict[str, str]:
        """Lines of the model card."""
        lines = {"safety anchor": self.anchor, "raw scores": self.normalisation}
        return {key: str(value) for key, value in lines.items() if value is not None}
