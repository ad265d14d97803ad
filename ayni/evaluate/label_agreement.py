"""How often comparisons choose what the village's gold scores prefer: an AI judge beside the simulated annotators."""

from __future__ import annotations

from collections.abc import Sequence

from ayni.evaluate.judges import GoldScorer
from ayni.evaluate.results import Result, result
from ayni.maths.clustered import clustered_share
from ayni.records import Comparison, cluster_of


def gold_agreement(comparisons: Sequence[Comparison], split: str, seed: int) -> list[Result]:
    """Row `gold_agreement` by task and annotator (`model`; the village's simulated ones together are `annotators`).

    Wins agree, losses disagree; pairs whose gold scores are equal are ties, and left out of the share. Raises BadInput
    for comparisons of another world than one village.
    """
    scorer = GoldScorer([c.prompt for c in comparisons])
    rows = []
    for task, who in dict.fromkeys((c.task, _who(c)) for c in comparisons):
        mine = [c for c in comparisons if (c.task, _who(c)) == (task, who)]
        leads = [
            scorer.gold.score(c.prompt, c.chosen, task) - scorer.gold.score(c.prompt, c.rejected, task) for c in mine
        ]
        decided = [
            (lead > 0, cluster_of(c.prompt)) for lead, c in zip(leads, mine, strict=True) if abs(lead) > scorer.tie
        ]
        share = clustered_share([won for won, _ in decided], [cluster for _, cluster in decided])
        wins = sum(won for won, _ in decided)
        counts = {"n": len(mine), "wins": wins, "ties": len(mine) - len(decided), "losses": len(decided) - wins}
        rows.append(
            result("gold_agreement", share, axis=task, judge="gold", model=who, split=split, seed=seed, **counts)
        )
    return rows


def _who(comparison: Comparison) -> str:
    return comparison.annotator if comparison.annotator.startswith("ai:") else "annotators"
