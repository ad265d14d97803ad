"""How far to trust a store's judgements: agreement, gold checks, screening, speed, order, degrees and texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from ayni.evaluate.results import Result, result
from ayni.feedback.entries import EntryKind, Judged
from ayni.feedback.store import Store
from ayni.maths.clustered import clustered_share
from ayni.maths.statistics import Estimate, proportion
from ayni.quality.agreement import (
    Agreements,
    Vote,
    agreements,
    agreements_with_others,
    by_item,
    votes_of,
)
from ayni.quality.batch_statistics import Repeats, TextStatistics, TokenCounter, repeated_prompts, text_statistics
from ayni.quality.screening import Screening, is_hasty, screen
from ayni.records import RATINGS


class Abstention(NamedTuple):
    """An item that an annotator skipped or flagged."""

    annotator: str
    kind: EntryKind
    reason: str


@dataclass(frozen=True, slots=True)
class AnnotatorQuality:
    """One annotator, over all batches; `agreement` is with the others. `seconds`: the median, None when not measured.

    Shares: `checks` of gold checks met, `first` of judgements that chose what stood first, `hasty` of those too fast.
    """

    name: str
    judged: int
    skipped: int
    flagged: int
    agreement: Agreements
    checks: Estimate
    first: Estimate
    hasty: Estimate
    seconds: float | None
    screening: Screening


@dataclass(frozen=True, slots=True)
class BatchQuality:
    """One batch. `skipped` and `flagged`: reason → how often. `degrees`: rating → how often, "" for none."""

    batch: str
    judged: int
    skipped: dict[str, int]
    flagged: dict[str, int]
    degrees: dict[str, int]
    agreement: Agreements
    checks: Estimate
    first: Estimate
    seconds: float | None
    repeats: Repeats
    texts: TextStatistics


@dataclass(frozen=True, slots=True)
class StoreQuality:
    """A whole store. `trusted`: the agreement of those who are not screened out.

    `annotators` come with those first who agree most with the others (AC2 on degrees).
    """

    judged: int
    agreement: Agreements
    trusted: Agreements
    tasks: dict[str, Agreements]
    batches: tuple[BatchQuality, ...]
    annotators: tuple[AnnotatorQuality, ...]

    def results(self) -> list[Result]:
        """Rows for results.json: `agreement_preference`, `agreement_degree`, `agreement_alpha` overall, by task (axis),
        by batch (split), by annotator (judge, against "annotators") and of who is not screened out (judge "trusted
        annotators"); `gold_checks`, `first_place_rate`, `hasty`."""
        rows = _agreement_rows(self.agreement) + _agreement_rows(self.trusted, judge="trusted annotators")
        for task, found in self.tasks.items():
            rows += _agreement_rows(found, axis=task)
        for batch in self.batches:
            rows += _agreement_rows(batch.agreement, split=batch.batch)
            shares = {"gold_checks": batch.checks, "first_place_rate": batch.first}
            rows += [result(name, share, judge="annotators", split=batch.batch) for name, share in shares.items()]
        for each in self.annotators:
            rows += _agreement_rows(each.agreement, judge=each.name, against="annotators")
            shares = {"gold_checks": each.checks, "first_place_rate": each.first, "hasty": each.hasty}
            rows += [result(name, share, judge=each.name) for name, share in shares.items()]
        return rows


def quality_report(store: Store, count: TokenCounter | None = None) -> StoreQuality:
    """Of everything that stands in the store; `count` gives the tokens of a text, without it words are counted."""
    votes: list[Vote] = []
    abstentions: list[Abstention] = []
    batches = []
    for batch in store.batches():  # one batch's texts at a time
        rows = store.current(batch.id)
        mine = votes_of(rows)
        of_batch = abstentions_in(rows)
        repeats = repeated_prompts(store.items(batch.id))
        batches.append(_batch_quality(batch.id, mine, of_batch, repeats, text_statistics(rows, count)))
        votes += mine
        abstentions += of_batch
    items = by_item(votes)
    tasks: dict[str, Agreements] = {
        task: agreements(of for of in items if of[0].task == task) for task in dict.fromkeys(v.task for v in votes)
    }
    annotators = annotator_qualities(votes, abstentions)
    out = {each.name for each in annotators if each.screening.verdict == "screened out"}
    trusted = agreements(by_item(v for v in votes if v.annotator not in out))
    return StoreQuality(len(votes), agreements(items), trusted, tasks, tuple(batches), annotators)


def abstentions_in(rows: Iterable[Judged]) -> list[Abstention]:
    return [
        Abstention(row.annotator, row.entry.kind, row.entry.reason or "") for row in rows if row.entry.kind != "judged"
    ]


def annotator_qualities(votes: Sequence[Vote], abstentions: Iterable[Abstention] = ()) -> tuple[AnnotatorQuality, ...]:
    """Everybody who judged, skipped or flagged; those first who agree most with the others, unknown ones last."""
    counts = Counter((each.annotator, each.kind) for each in abstentions)
    hasty = _hasty(votes)
    names = dict.fromkeys([*(v.annotator for v in votes), *(name for name, _ in counts)])
    own: dict[str, list[Vote]] = {name: [] for name in names}
    shared: dict[str, list[list[Vote]]] = {name: [] for name in own}
    for v in votes:
        own[v.annotator].append(v)
    for of in by_item(votes):
        for v in of:
            shared[v.annotator].append(of)
    found = []
    for name, mine in own.items():
        checks, first = checks_met(mine), first_chosen(mine)
        rushed = proportion(sum(hasty.get(name, ())), len(hasty.get(name, ())))
        found.append(
            AnnotatorQuality(
                name=name,
                judged=len(mine),
                skipped=counts[name, "skipped"],
                flagged=counts[name, "flagged"],
                agreement=agreements_with_others(shared[name], name),
                checks=checks,
                first=first,
                hasty=rushed,
                seconds=_median(mine),
                screening=screen(checks, first, rushed),
            )
        )
    return tuple(sorted(found, key=_most_agreeing))


def _most_agreeing(each: AnnotatorQuality) -> tuple[bool, float, str]:
    value = each.agreement.degree.value
    return value is None, -(value or 0.0), each.name


def checks_met(votes: Iterable[Vote]) -> Estimate:
    """Of the gold checks among these, the share whose known answer was chosen; one that many answered is one check."""
    checks = [(v.right, v.item) for v in votes if v.right is not None]
    return clustered_share([right for right, _ in checks], [item for _, item in checks])


def first_chosen(votes: Sequence[Vote]) -> Estimate:
    """The share in which the answer that stood first was chosen: about ½ of who looks at the answers."""
    return clustered_share([v.first for v in votes], [v.item for v in votes])


def _batch_quality(
    batch: str, votes: Sequence[Vote], abstentions: Sequence[Abstention], repeats: Repeats, texts: TextStatistics
) -> BatchQuality:
    degrees: Counter[str] = Counter(v.rating or "" for v in votes)
    return BatchQuality(
        batch=batch,
        judged=len(votes),
        skipped=_reasons(abstentions, "skipped"),
        flagged=_reasons(abstentions, "flagged"),
        degrees={rating: degrees[rating] for rating in (*RATINGS, "") if rating or degrees[rating]},
        agreement=agreements(by_item(votes)),
        checks=checks_met(votes),
        first=first_chosen(votes),
        seconds=_median(votes),
        repeats=repeats,
        texts=texts,
    )


def _median(votes: Iterable[Vote]) -> float | None:
    known = [v.seconds for v in votes if v.seconds is not None]
    return median(known) if known else None


def _hasty(votes: Iterable[Vote]) -> dict[str, list[bool]]:
    """Annotator → of each judgement whose time was measured, whether it came too fast to have been read."""
    times: dict[str, list[tuple[str, float]]] = {}
    for v in votes:
        if v.seconds is not None:
            times.setdefault(v.item, []).append((v.annotator, v.seconds))
    found: dict[str, list[bool]] = {}
    for of in times.values():
        for name, seconds in of:
            others = [other for annotator, other in of if annotator != name]
            found.setdefault(name, []).append(is_hasty(seconds, others))
    return found


def _reasons(abstentions: Iterable[Abstention], kind: EntryKind) -> dict[str, int]:
    """The commonest first; case and spaces do not count."""
    reasons = Counter(" ".join(each.reason.split()).casefold() for each in abstentions if each.kind == kind)
    return dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0])))


def _agreement_rows(found: Agreements, **where: Any) -> list[Result]:
    where = {"judge": "annotators"} | where
    named = (("preference", found.preference), ("degree", found.degree), ("alpha", found.alpha))
    return [
        Result(
            metric=f"agreement_{name}",
            n=each.n,
            value=each.value,
            interval=each.interval,
            level=None if each.interval is None else each.level,
            method=each.method,
            **where,
        )
        for name, each in named
    ]
