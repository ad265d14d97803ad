"""Records as rows and back: JSON text where a value has parts."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row

from ayni.errors import BadInput
from ayni.feedback.damage import intact, sound
from ayni.feedback.entries import Annotator, Dialogue, Entry, GoldCheck, Item, PreferenceBatch
from ayni.feedback.rules import check_text
from ayni.feedback.schema import annotators, batches, dialogues, items, judgements
from ayni.records import Prompt, from_json, to_dict

TEXTS = ("prompt", "answer_a", "answer_b")  # the columns of `items` that may be megabytes


def batch_row(batch: PreferenceBatch) -> dict[str, Any]:
    return asdict(batch) | {
        "task_mix": to_text(batch.task_mix, "task_mix"),
        "settings": to_text(batch.settings, "settings"),
    }


def batch_from_row(row: Row[Any]) -> PreferenceBatch:
    values = dict(row._mapping)
    with intact(f"batch {row.id}"):
        sound(batches, values)
        mix, settings = _object(row.task_mix), _object(row.settings)
        return PreferenceBatch(**values | {"task_mix": mix, "settings": settings})


def annotator_from_row(row: Row[Any]) -> Annotator:
    with intact(f"annotator {row.id}"):
        sound(annotators, dict(row._mapping))
        return Annotator(**row._mapping)


def item_row(item: Item) -> dict[str, Any]:
    values = {name: getattr(item, name) for name in Item.__slots__}
    return values | {
        "prompt": to_text(to_dict(item.prompt), "prompt"),
        "sampling_a": to_text(item.sampling_a, "sampling_a"),
        "sampling_b": to_text(item.sampling_b, "sampling_b"),
        "gold": None if item.gold is None else to_text(asdict(item.gold), "gold"),
    }


def item_of(row: Row[Any]) -> Item:
    """Of a row of `items`; where it was read without TEXTS they are empty, and the prompt has no id."""
    values = dict(row._mapping)
    with intact(f"item {row.id}"):
        sound(items, values)
        parts = {
            "prompt": from_json(Prompt, row.prompt) if "prompt" in values else Prompt("", (), row.task),
            "sampling_a": _object(row.sampling_a),
            "sampling_b": _object(row.sampling_b),
            "gold": None if row.gold is None else GoldCheck(**_object(row.gold)),
        }
        return Item(**dict.fromkeys(TEXTS, "") | values | parts)


def entry_of(row: Row[Any]) -> Entry:
    """Of a row of the log, which may have more columns."""
    with intact(f"judgement {row.id}"):
        sound(judgements, dict(row._mapping))
        return Entry(**{name: row._mapping[name] for name in Entry.__slots__})


def dialogue_of(row: Row[Any], turns: tuple[Item, ...]) -> Dialogue:
    with intact(f"dialogue {row.id}"):
        sound(dialogues, dict(row._mapping))
        return Dialogue(**row._mapping, turns=turns)


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"{text[:40]!r} is no JSON object")
    return found


def to_text(value: Any, field: str) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise BadInput(f"cannot be kept as JSON ({error})", field=field) from None
    check_text(text, field)
    return text
