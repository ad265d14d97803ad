"""What was measured of each prompt, and the rows of results.json made from it.

The items are kept beside the rows (items.jsonl): runs on several villages are pooled from them, and who wants to know
which prompts a number comes from finds them there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ConfigDict

from ayni.evaluate.results import Result, result
from ayni.maths.clustered import clustered_fraction, clustered_gain, clustered_mean, clustered_share
from ayni.records import Number, Text

# whose values are 1 or 0
SHARES = frozenset(("broken", "kept", "obeyed", "right_fact", "better_style", "longer_preferred", "safe_preferred"))
SHARES |= {"refusal_rate", "refusal", "false_refusal", "refusal_style"}
SHARES |= {"violation", "violation_by_vector", "violation_in_talk", "violation_in_session", "severe_violation"}
SHARES |= {"session_violated", "mc1", "truthful", "informative", "truthful_and_informative", "toxic"}
FRACTIONS = frozenset(("content", "talk_content"))  # whose values lie in between, too; of all others any may be
GAINS = frozenset(("kept_gain", *(f"{metric}_difference" for metric in SHARES)))  # whose values are 1, 0 or −1
INTERVALS = {
    metric: interval
    for metrics, interval in ((SHARES, clustered_share), (FRACTIONS, clustered_fraction), (GAINS, clustered_gain))
    for metric in metrics
}


@dataclass(frozen=True, slots=True)
class Item:
    """One value of one prompt (`id`), which stands or falls with its `cluster`.

    The rows of a metric are of all its items, and METRIC:PART of those of one `part` (a category, a turn), if they have
    one. `against` is the other model, or the one whose answers a reward model judged.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    metric: Text
    value: Number
    id: Text
    cluster: Text
    part: Text = ""
    axis: Text | None = None
    judge: Text | None = None
    model: Text | None = None
    against: Text | None = None
    split: Text | None = None


def rows_of(items: Iterable[Item], seed: int | None = None) -> list[Result]:
    """One row a metric, axis, judge, model and opponent, and one a part of it, in the order they first appear."""
    whole: dict[tuple[str | None, ...], list[Item]] = {}
    for item in items:
        key = (item.metric, item.axis, item.judge, item.model, item.against, item.split)
        whole.setdefault(key, []).append(item)
    rows = []
    for same in whole.values():
        parts = sorted({item.part for item in same} - {""})
        for part in ("", *parts):
            rows.append(_row([item for item in same if part in ("", item.part)], part, seed))
    return rows


def _row(items: list[Item], part: str, seed: int | None) -> Result:
    first, values, clusters = items[0], [i.value for i in items], [i.cluster for i in items]
    estimate = INTERVALS.get(first.metric, clustered_mean)(values, clusters)
    where = {"axis": first.axis, "judge": first.judge, "model": first.model, "against": first.against}
    name = f"{first.metric}:{part}" if part else first.metric
    return result(name, estimate, split=first.split, seed=seed, **where)
