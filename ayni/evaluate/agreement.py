"""How far judges agree on the same answers: gold, reward models, an endpoint, people (paper §3.4.1, §3.4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ayni.evaluate.people import PEOPLE, Contest
from ayni.evaluate.results import Result, result
from ayni.evaluate.win_rate import Outcome
from ayni.maths.agreement import gwet_ac
from ayni.maths.clustered import clustered_fraction, clustered_share, clustered_statistic
from ayni.maths.statistics import Estimate
from ayni.records import cluster_of

VERDICTS = (0.0, 0.5, 1.0)
Verdicts = Mapping[str, Sequence[Outcome | None]]  # of each judge, prompt by prompt; None: it has not said


def agreement_results(verdicts: Verdicts, **where: Any) -> list[Result]:
    """Of every two judges, on each axis, over the prompts that both have judged: `agreement:OTHER`, the share of equal
    verdicts (won, tied, lost); `agreement_decided:OTHER`, of those that both decide; `ac2:OTHER`, Gwet's AC2 with
    quadratic weights, which takes out what chance would give."""
    rows = []
    for (judge, ours), (other, theirs) in combinations(verdicts.items(), 2):
        both = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
        for axis in dict.fromkeys(a.axis for a, _ in both):
            pairs = [(a, b) for a, b in both if a.axis == axis]
            decided = [(a, b) for a, b in pairs if 0.5 not in (a.score, b.score)]
            named: dict[str, Any] = {"axis": axis, "judge": judge, **where}
            rows.append(result(f"agreement:{other}", _equal(pairs), **named))
            rows.append(result(f"agreement_decided:{other}", _equal(decided), **named))
            ratings = np.array([(a.score, b.score) for a, b in pairs])
            rows.append(result(f"ac2:{other}", ac2(ratings, [a.cluster for a, _ in pairs]), **named))
    return rows


def people_results(contests: Sequence[Contest], **where: Any) -> list[Result]:
    """The same of people among themselves, over the pairs of answers that two or more have judged."""
    rows = []
    for axis in dict.fromkeys(each.prompt.task for each in contests):
        several = [each for each in contests if each.prompt.task == axis and len(each.votes) > 1]
        if not several:
            continue
        clusters = [cluster_of(each.prompt) for each in several]
        equal = [np.mean([a == b for a, b in combinations(each.votes, 2)]) for each in several]
        ratings = np.full((len(several), max(len(each.votes) for each in several)), np.nan)
        for row, each in zip(ratings, several, strict=True):
            row[: len(each.votes)] = each.votes
        named: dict[str, Any] = {"axis": axis, "judge": PEOPLE, **where}
        rows.append(result(f"agreement:{PEOPLE}", clustered_fraction(equal, clusters), **named))
        rows.append(result(f"ac2:{PEOPLE}", ac2(ratings, clusters), **named))
    return rows


def ac2(ratings: NDArray[np.float64], clusters: Sequence[str]) -> Estimate:
    """Gwet's AC2 of verdicts (items, judges), NaN where one has not said; the interval is by cluster."""

    def of(items: NDArray[np.int64]) -> float | None:
        return gwet_ac(ratings[items], weights="quadratic", categories=VERDICTS).value

    return clustered_statistic(of, clusters, most=1.0, method="gwet-ac2-jackknife")


def _equal(pairs: Sequence[tuple[Outcome, Outcome]]) -> Estimate:
    return clustered_share([float(a.score == b.score) for a, b in pairs], [a.cluster for a, _ in pairs])
