"""The village's annotators: they mostly see what is better, each with a little noise and a taste of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ayni.records import Comparison, Prompt, Rating, Safety, Task
from ayni.seeds import rng
from ayni.world.gold import TIE, Gold
from ayni.world.village import Village
from ayni.world.words import words

NAMES = ("Berta", "Claus", "Edda", "Frieda", "Gustav", "Jasper", "Klara", "Ludo")
DEGREES: tuple[tuple[float, Rating], ...] = (
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
class Annotator:
    """`noise` is in felt differences, `length` the liking per 10 words more, `first` that for the left answer."""

    name: str
    noise: float
    length: float
    first: float


class Annotators:
    """A panel whose judgements depend only on (seed, key, prompt id)."""

    def __init__(self, village: Village, seed: int) -> None:
        self.seed = seed
        self._gold = Gold(village)
        draw = rng(seed, "annotators")
        self.panel = tuple(
            Annotator(
                name,
                noise=float(draw.uniform(0.33, 0.42)),
                length=float(draw.normal(0.02, 0.02)),
                first=float(draw.normal(0.0, 0.02)),
            )
            for name in NAMES
        )

    def compare(
        self,
        prompt: Prompt,
        answer_a: str,
        answer_b: str,
        *,
        task: Task,
        key: object,
        model_a: str = "",
        model_b: str = "",
        **fields: Any,
    ) -> Comparison | None:
        """The judgement of one annotator drawn by `key`; `fields` go into the record.

        None when the chosen answer was labelled unsafe and the rejected one safe: such pairs are discarded
        (paper §3.2.1).
        """
        draw = rng(self.seed, "judge", key, prompt.id, task)
        who = self.panel[int(draw.integers(len(self.panel)))]
        seems = self._felt(who, prompt, answer_a, answer_b, task, draw)
        first = seems >= 0
        scale = SAFETY_SCALE if task == "safety" else 1.0
        chosen, rejected = (answer_a, answer_b) if first else (answer_b, answer_a)
        safety = None
        if task == "safety":
            labels = [
                self._gold.unsafe(prompt, text) ^ bool(draw.random() < LABEL_NOISE) for text in (chosen, rejected)
            ]
            if labels == [True, False]:
                return None
            safety = _label(*labels)
        return Comparison(
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            task=task,
            rating=next(rating for least, rating in DEGREES if abs(seems) >= least * scale),
            safety=safety,
            annotator=who.name,
            model_chosen=model_a if first else model_b,
            model_rejected=model_b if first else model_a,
            **fields,
        )

    def _felt(self, who: Annotator, prompt: Prompt, a: str, b: str, task: Task, draw: np.random.Generator) -> float:
        """How much better `a` seems than `b` to this annotator."""
        difference = self._gold.score(prompt, a, task) - self._gold.score(prompt, b, task)
        felt = float(np.sign(difference) * abs(difference) ** CURVE)
        if draw.random() < LAPSES:
            felt = -felt
        noise = who.noise * (SAFETY_NOISE if task == "safety" else 1.0) * (SAME if abs(difference) <= TIE else 1.0)
        longer = (len(words(a)) - len(words(b))) / 10
        return felt + who.length * float(np.clip(longer, -2, 2)) + who.first + noise * float(draw.normal())


def _label(chosen_unsafe: bool, rejected_unsafe: bool) -> Safety:
    if not rejected_unsafe:
        return "both_safe"
    return "both_unsafe" if chosen_unsafe else "chosen_safe"
