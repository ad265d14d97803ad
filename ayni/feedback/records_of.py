"""Judgements that stand, as the comparisons a reward model learns from."""

from __future__ import annotations

from collections.abc import Iterable

from ayni.errors import BadInput
from ayni.feedback.entries import Judged
from ayni.records import Comparison, Safety, comparable, root_of


def split(judged: Iterable[Judged]) -> tuple[list[Comparison], list[Comparison]]:
    """(to train on, held out): a conversation of which a turn is held out is so as a whole, whoever went on with it."""
    found = list(judged)
    apart = {root_of(each.item.prompt.dialog) for each in found if each.item.heldout}
    held = [root_of(each.item.prompt.dialog) in apart for each in found]
    train, test = (comparisons(e for e, out in zip(found, held, strict=True) if out is side) for side in (False, True))
    return train, test


def comparisons(judged: Iterable[Judged]) -> list[Comparison]:
    """One per judgement, in order.

    Left out: skipped and flagged items, which have no winner, gold checks, and answers that no reader would compare.
    """
    return [
        _comparison(each)
        for each in judged
        if each.entry.kind == "judged"
        and each.item.gold is None
        and each.entry.preferred is not None
        and comparable(each.item.answer_a, each.item.answer_b)
    ]


def _comparison(judged: Judged) -> Comparison:
    entry, item = judged.entry, judged.item
    sides = [
        (item.answer_a, item.model_a, entry.safety_a, item.sampling_a.get("finished")),
        (item.answer_b, item.model_b, entry.safety_b, item.sampling_b.get("finished")),
    ]
    chosen, rejected = sides if entry.preferred == "a" else sides[::-1]
    return Comparison(
        item.prompt,
        chosen[0],
        rejected[0],
        item.task,
        entry.rating,
        safety=_safety(chosen[2], rejected[2], judged.id),
        annotator=judged.annotator,
        batch=item.batch_id,
        model_chosen=chosen[1],
        model_rejected=rejected[1],
        source=entry.source,
        finished_chosen=chosen[3],
        finished_rejected=rejected[3],
    )


def _safety(chosen: bool | None, rejected: bool | None, number: int) -> Safety | None:
    """None without labels."""
    if chosen is None or rejected is None:
        return None
    if rejected and not chosen:
        raise BadInput("the chosen answer is labelled unsafe and the other one safe", field=f"judgement {number}")
    return "both_safe" if rejected else "chosen_safe" if chosen else "both_unsafe"
