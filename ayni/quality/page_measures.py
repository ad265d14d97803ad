"""The quality report's main numbers as the annotation page's admin view shows them."""

from __future__ import annotations

from collections.abc import Sequence

from ayni.feedback.page import Measure
from ayni.feedback.store import Store
from ayni.maths.agreement import Agreement
from ayni.maths.statistics import Estimate
from ayni.quality.agreement import agreements, by_item, votes_of
from ayni.quality.report import AnnotatorQuality, abstentions_in, annotator_qualities, checks_met


def quality_of(store: Store, batch_id: str | None) -> Sequence[Measure]:
    """Of one batch: agreement and gold checks. With None of everybody, over all batches: their agreement with the
    others, gold checks and screening. No texts are read, so the page may ask at every look."""
    rows = store.current(batch_id, texts=False)
    votes = votes_of(rows)
    if batch_id is None:
        return [measure for each in annotator_qualities(votes, abstentions_in(rows)) for measure in _of_annotator(each)]
    found = agreements(by_item(votes))
    return [
        _agreement("Agreement on the degree (AC2)", found.degree),
        _agreement("Agreement on the better answer (AC1)", found.preference),
        _agreement("Krippendorff’s alpha, ordinal", found.alpha),
        _share("Gold checks right", checks_met(votes)),
    ]


def _of_annotator(each: AnnotatorQuality) -> list[Measure]:
    screening = each.screening
    return [
        _agreement("Agreement (AC2)", each.agreement.degree, each.name),
        _share("Gold checks right", each.checks, each.name),
        Measure("Screening", None, person=each.name, remark=": ".join((screening.verdict, *screening.reasons[:1]))),
    ]


def _agreement(name: str, found: Agreement, person: str = "") -> Measure:
    return Measure(name, found.value, found.interval, found.n, person=person)


def _share(name: str, found: Estimate, person: str = "") -> Measure:
    return Measure(name, found.value, found.interval, found.n, percent=True, person=person)
