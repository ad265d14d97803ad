"""Records as rows and back: JSON text where a value has parts."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row

from ayni.errors import BadInput
from ayni.feedback.entries import Dialogue, Entry, GoldCheck, Item, PreferenceBatch
from ayni.feedback.rules import check_text
from ayni.records import Prompt, from_json, to_dict

TEXTS = ("prompt", "answer_a", "answer_b")  # the columns of `items` that may be megabytes


def batch_row(batch: PreferenceBatch) -> dict[str, Any]:
    return asdict(batch) | {
        "task_mix": to_text(batch.task_mix, "task_mix"),
        "settings": to_text(batch.settings, "settings"),
    }


def batch_from_row(row: Row[Any]) -> PreferenceBatch:
    values = dict(row._mapping)
    return PreferenceBatch(**values | {"task_mix": json.loads(row.task_mix), "settings": json.loads(row.settings)})


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
    values = dict.fromkeys(TEXTS, "") | dict(row._mapping)
    return Item(
        **values
        | {
            "prompt": from_json(Prompt, values["prompt"]) if values["prompt"] else Prompt("", (), row.task),
            "sampling_a": json.loads(row.sampling_a),
            "sampling_b": json.loads(row.sampling_b),
            "gold": None if row.gold is None else GoldCheck(**json.loads(row.gold)),
        }
    )


def entry_of(row: Row[Any]) -> Entry:
    """Of a row of the log that has at least the entry's columns."""
    return Entry(**{name: row._mapping[name] for name in Entry.__slots__})


def dialogue_of(row: Row[Any], turns: tuple[Item, ...]) -> Dialogue:
    return Dialogue(**row._mapping, turns=turns)


def to_text(value: Any, field: str) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise BadInput(f"cannot be kept as JSON ({error})", field=field) from None
    check_text(text, field)
    return text
