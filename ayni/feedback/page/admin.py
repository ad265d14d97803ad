"""For the people who run a collection: how far each batch is, how well it goes, who helps and who no longer may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ayni.errors import BadInput
from ayni.feedback.entries import ACCOUNT_ROLES, Annotator, BatchProgress, EntryKind, Judged, PreferenceBatch
from ayni.feedback.page.forms import text
from ayni.feedback.page.judge import as_number, open_batch
from ayni.feedback.page.views import Call, Measure, address, sentence

LONGEST_NAME = 80  # characters


@dataclass(frozen=True, slots=True)
class Bar:
    number: int
    count: int
    share: float  # of all
    length: float  # of the longest bar


@dataclass(frozen=True, slots=True)
class BatchView:
    batch: PreferenceBatch
    progress: BatchProgress
    today: int
    week: int
    seconds: float | None
    bars: tuple[Bar, ...]
    judged: int
    left: float | None  # share of judgements in which the answer that stood first was chosen
    measures: Sequence[Measure]
    trouble: str | None


class Note(NamedTuple):
    """What the table of annotators needs to know of a judgement."""

    name: str
    kind: EntryKind
    seconds: float | None
    created_at: str


@dataclass(frozen=True, slots=True)
class PersonView:
    name: str
    judged: int
    skipped: int
    flagged: int
    seconds: float | None
    last: str
    measures: Mapping[str, Measure]  # by name


def overview(call: Call) -> Response:
    return _page(call)


def invite(call: Call) -> Response:
    """Shows the link once; nobody can read it from the store again."""
    name = text(call.form, "name", limit=LONGEST_NAME, about="the name")
    role = next((role for role in ACCOUNT_ROLES if role == call.form.get("role", "annotator")), None)
    if role is None:
        raise HTTPException(400, "The form did not arrive whole. Please load the page again.")
    try:
        if not name:
            raise BadInput("please give the person a name", field="name")
        token = call.context.store.invite(name, role)
    except BadInput as problem:
        return _page(call, problem=sentence(problem), name=name, status=400)
    return _page(call, link=call.origin + address("/sign-in", invitation=token), name=name)


def close(call: Call) -> Response:
    """No more judgements for this batch; those there are stay."""
    call.context.store.close_batch(open_batch(call, call.form.get("batch", "")).id)
    return call.go("/admin", notice="closed")


def retire(call: Call) -> Response:
    """Signed out everywhere, for good; what they judged stays. Who runs this page cannot lock themselves out."""
    chosen = call.form.get("annotator", "")
    if chosen not in {person.id for person in _others(call)}:
        raise HTTPException(400, "There is nobody else of that kind here. Please load the page again.")
    call.context.store.retire(chosen)
    return call.go("/admin", notice="retired")


def _others(call: Call) -> list[Annotator]:
    return [person for person in call.context.store.annotators() if person.id != call.annotator.id]


def _page(
    call: Call, *, problem: str | None = None, link: str | None = None, name: str = "", status: int = 200
) -> Response:
    store = call.context.store
    batches = sorted(store.batches(), key=lambda batch: (batch.closed_at is not None, batch.created_at))
    now = datetime.now(UTC)
    views, notes = [], list[Note]()
    for batch in batches:  # one batch's judgements at a time, and none of the answers: they may be gigabytes
        rows = store.current(batch_id=batch.id, texts=False)
        views.append(batch_view(call, batch, rows, now))
        notes += [Note(row.annotator, row.entry.kind, row.entry.seconds, row.created_at) for row in rows]
    of_people = [measure for measure in _measures(call, None)[0] if measure.person]
    return call.page(
        "admin.html.jinja",
        status,
        batches=views,
        people=annotator_views(notes, of_people),
        others=_others(call),
        columns=list(dict.fromkeys(measure.name for measure in of_people)),
        problem=problem,
        link=link,
        name=name,
    )


def batch_view(call: Call, batch: PreferenceBatch, rows: Sequence[Judged], now: datetime) -> BatchView:
    judged = [row for row in rows if row.entry.kind == "judged"]
    counts = Counter(number for row in judged if (number := as_number(row)) is not None)
    longest, total = max(counts.values(), default=0), sum(counts.values())
    measures, trouble = _measures(call, batch.id)
    return BatchView(
        batch,
        call.context.store.progress(batch.id),
        today=_since(judged, now - timedelta(hours=24)),
        week=_since(judged, now - timedelta(days=7)),
        seconds=_median(row.entry.seconds for row in judged),
        bars=tuple(
            Bar(n, counts[n], counts[n] / total if total else 0.0, counts[n] / longest if longest else 0.0)
            for n in range(1, 9)
        ),
        judged=total,
        left=sum(counts[n] for n in range(1, 5)) / total if total else None,
        measures=measures,
        trouble=trouble,
    )


def _measures(call: Call, batch_id: str | None) -> tuple[Sequence[Measure], str | None]:
    """Of one batch, or with None of everybody; and why there are none."""
    if call.context.quality is None:
        return (), None
    try:
        return call.context.quality(call.context.store, batch_id), None
    except BadInput as problem:  # too few judgements yet, for one; the rest of the page still stands
        return (), sentence(problem)


def annotator_views(notes: Iterable[Note], measures: Iterable[Measure] = ()) -> list[PersonView]:
    """Everybody with something that stands, the busiest first, and what was measured of them."""
    measured: dict[str, dict[str, Measure]] = {}
    for measure in measures:
        measured.setdefault(measure.person, {})[measure.name] = measure
    by_name: dict[str, list[Note]] = {}
    for note in notes:
        by_name.setdefault(note.name, []).append(note)
    found = []
    for name, theirs in by_name.items():
        kinds = Counter(note.kind for note in theirs)
        last = datetime.fromisoformat(max(note.created_at for note in theirs)).strftime("%d %b %H:%M")
        seconds = _median(note.seconds for note in theirs)
        counts = (kinds["judged"], kinds["skipped"], kinds["flagged"])
        found.append(PersonView(name, *counts, seconds, last, measured.get(name, {})))
    return sorted(found, key=lambda person: (-person.judged, person.name))


def _since(rows: Iterable[Judged], moment: datetime) -> int:
    return sum(datetime.fromisoformat(row.created_at) >= moment for row in rows)


def _median(seconds: Iterable[float | None]) -> float | None:
    known = [each for each in seconds if each is not None]
    return median(known) if known else None
