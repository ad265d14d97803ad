"""How far to trust an AI judge: what the order of the answers does to it, how often it agrees with itself and others.

Rows for results.json, per task. A judge that agrees with itself need not be right: only agreement with people tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

from ayni.evaluate.results import Result, result
from ayni.evaluate.win_rate import Outcome, position_bias
from ayni.maths.statistics import Estimate, mean, proportion, win_rate
from ayni.records import RATINGS, Prompt, Rating
from ayni.reward.verdicts import Verdict, preference


@dataclass(frozen=True, slots=True)
class AnnotatorChoice:
    """An annotator's choice of a pair: whether the first answer is better, and how much."""

    prefers_first: bool
    rating: Rating | None = None


def outcome_of(prompt: Prompt, verdict: Verdict) -> Outcome:
    """The verdict as the win-rate report counts it: each order decides by itself, and orders that differ tie."""
    first, second = (preference(p) for p in verdict.orders)
    return Outcome(prompt.id, prompt.task, prompt.category, first if first == second else 0.5, first, second)


def first_option_mass(verdicts: Sequence[Verdict], level: float = 0.95) -> Estimate:
    """Mean probability of the answer shown first, over pairs in both orders: ½ of a judge without a liking for places.

    Each answer stands first once, so what the answers are worth cancels out of every pair.
    """
    return mean([(forward + 1 - backward) / 2 for forward, backward in (v.orders for v in verdicts)], level)


def flips(verdicts: Sequence[Verdict], level: float = 0.95) -> Estimate:
    """Share of pairs whose preferred answer is the other one in the other order."""
    count = sum({preference(p) for p in v.orders} == {0.0, 1.0} for v in verdicts)
    return proportion(count, len(verdicts), level)


def self_consistency(verdicts: Sequence[Verdict], level: float = 0.95) -> Estimate:
    """Of pairs asked several times: how often two askings (of both orders each) prefer the same, mean over pairs."""
    shares = []
    for askings in (v.askings for v in verdicts if len(v.forward) > 1):
        counts = Counter(preference(p) for p in askings).values()
        shares.append(sum(n * (n - 1) for n in counts) / (len(askings) * (len(askings) - 1)))
    return mean(shares, level)


def self_consistency_spread(verdicts: Sequence[Verdict], level: float = 0.95) -> Estimate:
    """Of pairs asked several times: the standard deviation of P(the first is better) from asking to asking, mean."""
    return mean([stdev(v.askings) for v in verdicts if len(v.forward) > 1], level)


def consistency_results(
    prompts: Sequence[Prompt],
    verdicts: Sequence[Verdict],
    *,
    judge: str,
    split: str | None = None,
    seed: int | None = None,
    level: float = 0.95,
) -> list[Result]:
    """Per task `judge_consistency`, `first_place_rate` (win_rate.PositionBias), `first_option_mass`, `verdict_flips`;
    and `self_consistency`, `self_consistency_spread` where pairs were asked several times.

    Raises ValueError when the lists differ in length.
    """
    rows = []
    pairs = list(zip(prompts, verdicts, strict=True))
    for task in dict.fromkeys(p.task for p in prompts):
        mine = [v for p, v in pairs if p.task == task]
        bias = position_bias([outcome_of(p, v) for p, v in pairs if p.task == task], level)
        assert bias is not None  # every verdict has two orders
        found = {
            "judge_consistency": bias.consistency,
            "first_place_rate": bias.first_place,
            "first_option_mass": first_option_mass(mine, level),
            "verdict_flips": flips(mine, level),
        }
        if any(len(v.forward) > 1 for v in mine):
            found |= {
                "self_consistency": self_consistency(mine, level),
                "self_consistency_spread": self_consistency_spread(mine, level),
            }
        rows += [result(name, e, axis=task, judge=judge, split=split, seed=seed) for name, e in found.items()]
    return rows


def agreement_results(
    prompts: Sequence[Prompt],
    verdicts: Sequence[Verdict],
    choices: Sequence[Sequence[AnnotatorChoice]],
    *,
    judge: str,
    split: str | None = None,
    seed: int | None = None,
    level: float = 0.95,
) -> list[Result]:
    """Per task `judge_agreement`: how often the judge prefers what annotators did, and `judge_agreement:RATING`.

    `choices` holds what each annotator of a pair chose. Wins agree, losses disagree; pairs on which the judge does
    not decide are ties, and left out of the share.
    """
    rows = []
    pairs = [(p.task, v, s) for p, v, several in zip(prompts, verdicts, choices, strict=True) for s in several]
    for task in dict.fromkeys(task for task, _, _ in pairs):
        mine = [(v, s) for t, v, s in pairs if t == task]
        ratings = [rating for rating in RATINGS if any(s.rating == rating for _, s in mine)]
        for rating in [None, *ratings]:
            of = [(v, s) for v, s in mine if rating in (None, s.rating)]
            agreed = Counter(abs(preference(v.probability) - (not s.prefers_first)) for v, s in of)
            wins, ties, losses = agreed[1.0], agreed[0.5], agreed[0.0]
            name = "judge_agreement" if rating is None else f"judge_agreement:{rating}"
            where = {"axis": task, "judge": judge, "against": "annotators", "split": split, "seed": seed}
            counts = {"n": len(of), "wins": wins, "ties": ties, "losses": losses}
            rows.append(result(name, win_rate(wins, ties, losses, level), **where, **counts))
    return rows
