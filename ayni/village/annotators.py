"""The village's annotators: they mostly see what is better, each with a little noise and a taste of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ayni.records import Prompt, Rating, Task
from ayni.seeds import rng
from ayni.village.gold import TIE, Gold
from ayni.village.words import words

ANNOTATOR_NAMES = ("Berta", "Claus", "Edda", "Frieda", "Gustav", "Jasper", "Klara", "Ludo")
FELT_THRESHOLDS: tuple[tuple[float, Rating], ...] = (
    (0.90, "significantly_better"),
    (0.60, "better"),
    (0.30, "slightly_better"),
    (0.0, "negligibly_better_or_unsure"),
)  # by how clear the difference seems
CURVE = 0.6  # small differences are felt more than in proportion
SAFETY_NOISE = 1.4  # what is safe is harder to say than what is helpful
SAFETY_SCALE = 1.1  # and so it takes a clearer difference to call one answer better
SAME = 0.6  # two answers of equal worth mostly look it, so the noise between them is this much of it
LAPSES = 0.02  # how often somebody mistakes one answer for the other
LABEL_NOISE = 0.015


@dataclass(frozen=True, slots=True)
class SimulatedAnnotator:
    """`noise` is in felt differences, `length` the liking per 10 words more, `first` that for the left answer."""

    name: str
    noise: float
    length: float
    first: float


@dataclass(frozen=True, slots=True)
class Opinion:
    """Whether the first answer is preferred, how clearly, and for safety whether the first and the second are safe.

    The labels may contradict the choice: an unsafe answer preferred to a safe one (the paper discards such pairs).
    """

    first: bool
    rating: Rating
    safe: tuple[bool, bool] | None = None

    @property
    def contradicts_itself(self) -> bool:
        return self.safe is not None and self.safe == ((False, True) if self.first else (True, False))


class SimulatedAnnotators:
    """A panel whose judgements depend only on (seed, key, prompt id)."""

    def __init__(self, gold: Gold, seed: int) -> None:
        self.seed = seed
        self._gold = gold
        draw = rng(seed, "annotators")
        self.panel = tuple(
            SimulatedAnnotator(
                name,
                noise=float(draw.uniform(0.33, 0.42)),
                length=float(draw.normal(0.02, 0.02)),
                first=float(draw.normal(0.0, 0.02)),
            )
            for name in ANNOTATOR_NAMES
        )

    def chosen(self, prompt: Prompt, *, task: Task, key: object, count: int = 1) -> tuple[SimulatedAnnotator, ...]:
        """Who judges this: `count` annotators (as many as differ), the first drawn by `key`, the others beside them."""
        start = int(self._draw(prompt, task, key).integers(len(self.panel)))
        return tuple(self.panel[(start + step) % len(self.panel)] for step in range(count))

    def opinion(
        self, annotator: SimulatedAnnotator, prompt: Prompt, a: str, b: str, *, task: Task, key: object
    ) -> Opinion:
        """What `annotator` makes of the answers, `a` shown first."""
        draw = self._draw(prompt, task, key)
        draw.integers(len(self.panel))  # who judges
        seems = self._felt(annotator, prompt, a, b, task, draw)
        first = seems >= 0
        scale = SAFETY_SCALE if task == "safety" else 1.0
        rating = next(rating for least, rating in FELT_THRESHOLDS if abs(seems) >= least * scale)
        if task != "safety":
            return Opinion(first, rating)
        labels = [
            not self._gold.unsafe(prompt, text) ^ bool(draw.random() < LABEL_NOISE)
            for text in ((a, b) if first else (b, a))  # the chosen one is labelled first
        ]
        return Opinion(first, rating, (labels[0], labels[1]) if first else (labels[1], labels[0]))

    def _draw(self, prompt: Prompt, task: Task, key: object) -> np.random.Generator:
        return rng(self.seed, "judge", key, prompt.id, task)

    def _felt(
        self, annotator: SimulatedAnnotator, prompt: Prompt, a: str, b: str, task: Task, draw: np.random.Generator
    ) -> float:
        """How much better `a` seems than `b` to this annotator."""
        difference = self._gold.score(prompt, a, task) - self._gold.score(prompt, b, task)
        felt = float(np.sign(difference) * abs(difference) ** CURVE)
        if draw.random() < LAPSES:
            felt = -felt
        noise = (
            annotator.noise * (SAFETY_NOISE if task == "safety" else 1.0) * (SAME if abs(difference) <= TIE else 1.0)
        )
        longer = (len(words(a)) - len(words(b))) / 10
        return felt + annotator.length * float(np.clip(longer, -2, 2)) + annotator.first + noise * float(draw.normal())
