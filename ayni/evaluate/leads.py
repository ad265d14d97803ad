"""By how much a reward model, and what knows less than it, put the chosen answer of each pair held out first.

Kept beside the rows (leads.jsonl): models of several folds, each of which holds out other pairs, are taken together
from them (ayni.stages.crossvalidate).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic import ConfigDict

from ayni.evaluate.results import Result, result
from ayni.evaluate.reward_accuracy import correctness_difference
from ayni.evaluate.reward_baselines import WordRegression, longer
from ayni.files import read_jsonl
from ayni.maths.clustered import clustered_gain, clustered_share
from ayni.maths.statistics import Estimate
from ayni.records import Comparison, Number, Text, from_dict, root_of
from ayni.seeds import seed_of

LEADS = "leads.jsonl"
LONGER, WORDS = "longer answer", "bag of words"


@dataclass(frozen=True, slots=True)
class Lead:
    """Of one pair: score of the chosen answer less that of the rejected one, by the `model`, by the `words`, and in
    characters (`longer`). Pairs of one `conversation` stand or fall together."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    pair: Text
    conversation: Text
    axis: Text
    model: Number
    words: Number
    longer: Number


def leads_of(scores: ArrayLike, train: Sequence[Comparison], heldout: Sequence[Comparison]) -> list[Lead]:
    """`scores` (P,) are the model's differences; the words learn from `train`, the pairs that the model learnt from."""
    words = WordRegression.fit(train).leads(heldout)
    of = zip(heldout, np.asarray(scores, np.float64).tolist(), words.tolist(), longer(heldout).tolist(), strict=True)
    return [
        Lead(
            f"{seed_of(c.prompt.dialog, c.chosen, c.rejected):016x}",
            f"{seed_of(root_of(c.prompt.dialog)):016x}",
            c.task,
            *known,
        )
        for c, *known in of
    ]


def read_leads(path: Path) -> list[Lead]:
    """BadInput with the line and the field at fault."""
    return [from_dict(Lead, row, path=path, line=line) for line, row in read_jsonl(path)]


def together(files: Iterable[Sequence[Lead]]) -> list[Lead]:
    """Every pair once, with the sum of what the models say that held it out, each in units of its own root mean square
    over the pairs it held out (which answer was chosen does not enter it)."""
    found: dict[str, Lead] = {}
    for leads in files:
        model, words = (_scale([getattr(lead, name) for lead in leads]) for name in ("model", "words"))
        for lead in {each.pair: each for each in leads}.values():
            more = replace(lead, model=lead.model / model, words=lead.words / words)
            if (before := found.get(lead.pair)) is not None:
                more = replace(more, model=before.model + more.model, words=before.words + more.words)
            found[lead.pair] = more
    return list(found.values())


def _scale(leads: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(leads)))) if any(leads) else 1.0


def baseline_results(leads: Sequence[Lead], **where: Any) -> list[Result]:
    """Rows `baseline_accuracy` of each baseline, and `accuracy_over_baseline` of the model `against` it."""
    rows: list[Result] = []
    for name, lead in ((LONGER, [each.longer for each in leads]), (WORDS, [each.words for each in leads])):
        rows.append(result("baseline_accuracy", accuracy(lead, leads), **where | {"model": name, "seed": None}))
        gain = accuracy_gain([each.model for each in leads], lead, leads)
        rows.append(result("accuracy_over_baseline", gain, against=name, **where))
    return rows


def added(leads: Sequence[Lead], **where: Any) -> Result:
    """Row `accuracy_added`: how much more often model and words together are right than the words alone."""
    both = [lead.model + lead.words for lead in leads]
    return result("accuracy_added", accuracy_gain(both, [lead.words for lead in leads], leads), against=WORDS, **where)


def accuracy(differences: Sequence[float], leads: Sequence[Lead]) -> Estimate:
    """How often these differences (P,) put the chosen answer first; equal ones are wrong."""
    return clustered_share(np.asarray(differences) > 0, [lead.conversation for lead in leads])


def accuracy_gain(now: Sequence[float], before: Sequence[float], leads: Sequence[Lead]) -> Estimate:
    """How much more often the one is right of these pairs than the other."""
    return clustered_gain(correctness_difference(now, before), [lead.conversation for lead in leads])
