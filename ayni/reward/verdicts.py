"""From what an AI judge says of two answers to a comparison like a person's: which is better, how much, how safe.

Every judge is asked in both orders, and the orders are averaged (Lee et al. 2023, §3.1): a judge that only likes one
place decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ayni.records import RATINGS, Comparison, Finished, Prompt, Rating, Safety

PROBABILITY_THRESHOLDS = (0.4, 0.25, 0.1)  # of |p − ½|: from these on significantly better, better, slightly better


@dataclass(frozen=True, slots=True)
class Verdict:
    """P(the first answer is better), by asking: `forward` where it was shown first, `backward` where second.

    Both (k,) for a pair asked k times in each order.
    """

    forward: tuple[float, ...]
    backward: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.forward or len(self.forward) != len(self.backward):
            raise ValueError(f"{len(self.forward)} askings in one order and {len(self.backward)} in the other")

    @property
    def orders(self) -> tuple[float, float]:
        """P(the first answer is better) where it was shown first, and where second."""
        return sum(self.forward) / len(self.forward), sum(self.backward) / len(self.backward)

    @property
    def askings(self) -> tuple[float, ...]:
        """P(the first answer is better) of every asking, averaged over the orders: (k,)."""
        return tuple((f + b) / 2 for f, b in zip(self.forward, self.backward, strict=True))

    @property
    def probability(self) -> float:
        """P(the first answer is better), averaged over the two orders."""
        forward, backward = self.orders
        # a liking for the first place adds to one order what it takes from the other
        return (forward + backward) / 2

    def upto(self, times: int) -> Verdict:
        """What the first `times` askings said."""
        return Verdict(self.forward[:times], self.backward[:times])


class PairJudge(Protocol):
    """Our own model (`OptionJudge`) or an endpoint (`ApiJudge`)."""

    @property
    def name(self) -> str: ...

    @property
    def varies(self) -> bool:
        """Whether another asking may say something else."""
        ...

    def verdicts(
        self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str], *, times: int = 1
    ) -> list[Verdict]:
        """One verdict a pair; every pair is asked `times` times in each order, by the guidelines of its prompt."""
        ...

    def safe(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """P(safe) of every answer, averaged over both orders of the options."""
        ...

    def fits(self, prompt: Prompt, first: str, second: str) -> bool:
        """Whether it can read all that it may be asked of this pair; what an endpoint can read is not known before."""
        ...


def preference(probability: float) -> float:
    """1: the first answer is better, 0: the second, ½: neither."""
    # exactly ½ only: two orders that contradict each other alike
    return 0.5 if probability == 0.5 else float(probability > 0.5)


def rating_of_probability(probability: float, degrees: Sequence[float] = PROBABILITY_THRESHOLDS) -> Rating:
    """How much better, by |p − ½| against thresholds from high to low."""
    # three thresholds for four degrees: the last is what is left
    for least, rating in zip(degrees, RATINGS, strict=False):
        if abs(probability - 0.5) >= least:
            return rating
    return RATINGS[-1]


def comparison_of(
    prompt: Prompt,
    first: str,
    second: str,
    verdict: Verdict,
    *,
    judge: str,
    safe: tuple[float, float] | None = None,
    degrees: Sequence[float] = PROBABILITY_THRESHOLDS,
    model_first: str = "",
    model_second: str = "",
    finished_first: Finished | None = None,
    finished_second: Finished | None = None,
    batch: str = "",
    surest: float | None = None,
) -> Comparison | None:
    """The comparison of annotator `ai:JUDGE`; `safe` is P(safe) of the two answers, an answer at ½ is unsafe.

    With `surest` it carries a soft label, the verdict's probability and at most that; else it carries none.

    None where the judge does not decide, and where the chosen answer is unsafe and the rejected one safe: such pairs
    are discarded (paper §3.2.1).
    """
    preferred = preference(verdict.probability)
    if preferred == 0.5:
        return None
    chosen, rejected = (first, second) if preferred else (second, first)
    models = (model_first, model_second) if preferred else (model_second, model_first)
    finished = (finished_first, finished_second) if preferred else (finished_second, finished_first)
    sure = max(verdict.probability, 1 - verdict.probability)
    safety: Safety | None = None
    if safe is not None:
        chosen_safe, rejected_safe = (p > 0.5 for p in (safe if preferred else safe[::-1]))
        if rejected_safe and not chosen_safe:
            return None
        safety = "both_safe" if rejected_safe else "chosen_safe" if chosen_safe else "both_unsafe"
    return Comparison(
        prompt,
        chosen,
        rejected,
        task=prompt.task,
        rating=rating_of_probability(verdict.probability, degrees),
        safety=safety,
        annotator=f"ai:{judge}",
        batch=batch,
        model_chosen=models[0],
        model_rejected=models[1],
        source=f"ai:{judge}",
        finished_chosen=finished[0],
        finished_rejected=finished[1],
        probability=None if surest is None else min(sure, surest),
    )
