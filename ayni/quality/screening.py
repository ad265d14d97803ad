"""Whose judgements to trust: what an annotator is screened by, and why each threshold is where it is.

The paper screens once, before anybody works: among other tests, 42 questions of which 80% must agree with the known
answers (appendix, Annotator Selection). We mix gold checks into the work instead and decide again with every judgement,
so an annotator fails only when the 95% interval lies beyond the threshold as a whole, and never by a handful of cases:
who has answered three checks is neither in nor out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ayni.maths.statistics import Estimate

GOLD_ACCURACY = 0.80  # the paper's share of questions that must agree with the known answers
# Fewer checks or judgements decide nothing. Who tosses a coin gets 80% of 15 checks right less than 2 times in 100 (of
# 10: 5 times); and who reads is not screened out because the first eight answers happened to stand first.
LEAST = 15
# The order is a coin's, so who reads chooses the first place in ½ of judgements, whatever the answers are worth.
# 65% is as if three in ten were decided by the place alone.
FIRST_SHARE = 0.65
# Silent reading is 238 words a minute (Brysbaert 2019), and the quick read twice as fast. Four times as fast as others
# were with the same text is not reading; nor is anything in two seconds, which a glance and two keys take.
HASTY_SHARE = 0.25
HASTY_SECONDS = 2.0
HASTY_PART = 0.5  # of the judgements: beyond half, haste is the habit and not the easy cases

ScreeningDecision = Literal["passed", "screened out", "undecided"]


@dataclass(frozen=True, slots=True)
class Screening:
    """`reasons` say why somebody is screened out, or what is missing for a decision."""

    verdict: ScreeningDecision
    reasons: tuple[str, ...] = ()


def screen(checks: Estimate, first: Estimate, hasty: Estimate) -> Screening:
    """From the shares of gold checks met, of first places chosen and of judgements made in haste, with intervals."""
    against = []
    if checks.n >= LEAST and checks.high < GOLD_ACCURACY:
        against.append(f"{_percent(checks)} of {checks.n} gold checks right")
    if first.n >= LEAST and first.low > FIRST_SHARE:
        against.append(f"chose the first place in {_percent(first)}")
    if first.n >= LEAST and first.high < 1 - FIRST_SHARE:
        against.append(f"chose the first place in only {_percent(first)}")
    if hasty.n >= LEAST and hasty.low > HASTY_PART:
        against.append(f"{_percent(hasty)} faster than anybody reads")
    if against:
        return Screening("screened out", tuple(against))
    if checks.n < LEAST:
        return Screening("undecided", (f"{checks.n} of {LEAST} gold checks answered",))
    if checks.value is not None and checks.value < GOLD_ACCURACY:
        return Screening("undecided", (f"{_percent(checks)} of {checks.n} gold checks right, not surely too few",))
    return Screening("passed")


def is_hasty(seconds: float, others: list[float]) -> bool:
    """Whether a judgement came faster than anybody reads, by how long the others took for the same item.

    Of the others the lower median counts: somebody went for a cup of tea.
    """
    usual = sorted(others)[(len(others) - 1) // 2] if others else 0.0
    return seconds < max(HASTY_SECONDS, HASTY_SHARE * usual)


def _percent(share: Estimate) -> str:
    return "–" if share.value is None else f"{share.value:.0%}"
