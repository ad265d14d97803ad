"""How far to trust an AI judge: what the order of the answers does to it, how often it agrees with itself and others.

Rows for results.json, per task; intervals go by conversation. A judge that agrees with itself need not be right: only
agreement with people tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

from ayni.evaluate.results import Result, result
from ayni.evaluate.win_rate import Outcome, position_bias
from ayni.maths.clustered import clustered_fraction, clustered_mean, clustered_share
from ayni.maths.statistics import Estimate
from ayni.records import RATINGS, Prompt, Rating, root_of
from ayni.reward.verdicts import Verdict, preference


@dataclass(frozen=True, slots=True)
class AnnotatorChoice:
    """An annotator's choice of a pair: whether the first answer is better, and how much."""

    prefers_first: bool
    rating: Rating | None = None


def outcome_of(prompt: Prompt, verdict: Verdict) -> Outcome:
    """The verdict as the win-rate report counts it: each order decides by itself, and orders that differ tie."""
    first, second = (preference(p) for p in verdict.orders)
    score = first if first == second else 0.5
    return Outcome(prompt.id, root_of(prompt.dialog), prompt.task, prompt.category, score, first, second)


def first_option_mass(prompts: Sequence[Prompt], verdicts: Sequence[Verdict], level: float = 0.95) -> Estimate:
    """Mean probability of the answer shown first, over pairs in both orders: ½ of a judge without a liking for places.

    Each answer stands first once, so what the answers are worth cancels out of every pair.
    """
    masses = [(forward + 1 - backward) / 2 for forward, backward in (v.orders for v in verdicts)]
    return clustered_mean(masses, [root_of(p.dialog) for p in prompts], level)


def flips(prompts: Sequence[Prompt], verdicts: Sequence[Verdict], level: float = 0.95) -> Estimate:
    """Share of pairs whose preferred answer is the other one in the other order."""
    flipped = [{preference(p) for p in v.orders} == {0.0, 1.0} for v in verdicts]
    return clustered_share(flipped, [root_of(p.dialog) for p in prompts], level)


def self_consistency(prompts: Sequence[Prompt], verdicts: Sequence[Verdict], level: float = 0.95) -> Estimate:
    """Of pairs asked several times: how often two askings (of both orders each) prefer the same, mean over pairs."""
    shares, clusters = [], []
    for prompt, askings in ((p, v.askings) for p, v in zip(prompts, verdicts, strict=True) if len(v.forward) > 1):
        counts = Counter(preference(p) for p in askings).values()
        shares.append(sum(n * (n - 1) for n in counts) / (len(askings) * (len(askings) - 1)))
        clusters.append(root_of(prompt.dialog))
    return clustered_fraction(shares, clusters, level)


def self_consistency_spread(prompts: Sequence[Prompt], verdicts: Sequence[Verdict], level: float = 0.95) -> Estimate:
    """Of pairs asked several times: the standard deviation of P(the first is better) from asking to asking, mean."""
    several = [(p, v) for p, v in zip(prompts, verdicts, strict=True) if len(v.forward) > 1]
    return clustered_mean([stdev(v.askings) for _, v in several], [root_of(p.dialog) for p, _ in several], level)


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
        mine = [(p, v) for p, v in pairs if p.task == task]
        bias = position_bias([outcome_of(p, v) for p, v in mine], level)
        assert bias is not None  # every verdict has two orders
        asked, given = [p for p, _ in mine], [v for _, v in mine]
        found = {
            "judge_consistency": bias.consistency,
            "first_place_rate": bias.first_place,
            "first_option_mass": first_option_mass(asked, given, level),
            "verdict_flips": flips(asked, given, level),
        }
        if any(len(v.forward) > 1 for v in given):
            found |= {
                "self_consistency": self_consistency(asked, given, level),
                "self_consistency_spread": self_consistency_spread(asked, given, level),
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
    pairs = [(p, v, s) for p, v, several in zip(prompts, verdicts, choices, strict=True) for s in several]
    for task in dict.fromkeys(p.task for p, _, _ in pairs):
        mine = [(p, v, s) for p, v, s in pairs if p.task == task]
        ratings = [rating for rating in RATINGS if any(s.rating == rating for _, _, s in mine)]
        for rating in [None, *ratings]:
            of = [(p, v, s) for p, v, s in mine if rating in (None, s.rating)]
            agreed = [abs(preference(v.probability) - (not s.prefers_first)) for _, v, s in of]
            wins, ties, losses = (agreed.count(score) for score in (1.0, 0.5, 0.0))
            decided = [(score, root_of(p.dialog)) for score, (p, _, _) in zip(agreed, of, strict=True) if score != 0.5]
            share = clustered_share([score for score, _ in decided], [c for _, c in decided], level)
            name = "judge_agreement" if rating is None else f"judge_agreement:{rating}"
            where = {"axis": task, "judge": judge, "against": "annotators", "split": split, "seed": seed}
            counts = {"n": len(of), "wins": wins, "ties": ties, "losses": losses}
            rows.append(result(name, share, **where, **counts))
    return rows
