"""Which format a row is of: by its keys, and by its values where two formats share the keys."""

from __future__ import annotations

from typing import Any

from ayni.formats.argilla import argilla_format, is_argilla
from ayni.formats.judgements import EDITED_FROM, WORTH
from ayni.formats.rows import Row, suffix_of


def format_of_row(row: Row) -> str:
    """The format's name; BadInput when none fits."""
    value, keys = row.value, row.value.keys()
    found = _tools(value) or _records(row) or _ratings(value)
    if found is not None:
        return found
    if "messages" in keys:
        return "messages"
    if {"response1", "response2"} <= keys:
        return "pandalm"
    if "instances" in keys:
        return "self_instruct"
    if "instruction" in keys:
        return "alpaca"
    if {"chosen", "rejected"} <= keys:
        return "hh_rlhf" if _looks_like_hh(value) else "pairs"
    if {"prompt", "completion"} <= keys:
        return "prompt_completion"
    if {"prompt", "label"} <= keys and suffix_of(row.path) == ".csv":
        return "xstest"
    if {"chosen", "rejected"} & keys:
        return "pairs"
    if "prompt" in keys:
        return "plain_prompts"
    if "text" in keys:
        return "text_rows"
    raise row.error(
        f"no known format has the keys {', '.join(sorted(keys)) or '(none)'}",
        fix="known: messages, prompt/completion, instruction/output, conversations, prompt/chosen/rejected, text",
    )


def _tools(value: dict[str, Any]) -> str | None:
    """What other programs export with keys of their own."""
    keys = value.keys()
    if "message_tree_id" in keys:
        return "oasst"
    if {"annotation_id", "annotator"} <= keys:
        return "label_studio_min"
    if isinstance(value.get("data"), dict) and {"annotations", "completions"} & keys:
        return "label_studio"
    if is_argilla(value):
        return argilla_format(value)
    if "conversations" in keys:
        return "sharegpt_pairs" if "chosen" in keys or "rejected" in keys else "sharegpt"
    return None


def _records(row: Row) -> str | None:
    """What our own stages write."""
    value, keys = row.value, row.value.keys()
    if isinstance(value.get("prompt"), dict):
        return "judgement" if "response" in keys and not {"chosen", "rejected"} & keys else "comparison"
    if "dialog" in keys:
        if {"chosen", "rejected"} & keys:
            return "comparison"
        return "prompt" if {"id", "task", "category"} & keys else "demonstration"
    return None


def _ratings(value: dict[str, Any]) -> str | None:
    """One answer and what somebody made of it."""
    keys = value.keys()
    if "prompt" not in keys or {"chosen", "rejected"} & keys:
        return None
    if "edited" in keys and set(EDITED_FROM) & keys:
        return "edits"
    if "response" in keys and set(WORTH) & keys:
        return "ratings"
    if "completion" in keys and isinstance(value.get("label"), bool):
        return "ratings"  # unpaired preferences: as demonstrations they would teach what people disliked
    return None


def _looks_like_hh(value: dict[str, Any]) -> bool:
    texts = [value["chosen"], value["rejected"]]
    return "prompt" not in value and all(isinstance(text, str) for text in texts)
