"""Comparisons as most programs write them: prompt, chosen and rejected, as text or as messages (TRL)."""

from __future__ import annotations

from collections.abc import Iterator

from ayni.formats.building import OUR_FIELDS, PROMPT_KEYS, make_comparison
from ayni.formats.fields import check_keys, checked, messages, one_answer, prompt_dialog
from ayni.formats.format import Format, with_prompts
from ayni.formats.rows import Row
from ayni.records import Comparison


def plain_pairs(row: Row) -> Iterator[Comparison]:
    """prompt/chosen/rejected as text or messages (TRL), with our rating, safety, margin and task.

    Without a prompt, chosen and rejected are whole dialogues that differ in the last message.
    """
    check_keys(row, ("prompt", "chosen", "rejected", *OUR_FIELDS, *PROMPT_KEYS))
    for field in ("chosen", "rejected"):
        if field not in row.value:
            raise row.error("the field is missing", field)
    chosen, rejected = row.value["chosen"], row.value["rejected"]
    if "prompt" in row.value:
        answers = one_answer(row, chosen, "chosen"), one_answer(row, rejected, "rejected")
        yield make_comparison(row, prompt_dialog(row), *answers, "prompt")
        return
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise row.error("the field is missing", "prompt", fix="give it, or chosen and rejected as messages")
    *before, left = checked(row, messages(row, chosen, "chosen"), "chosen", last="assistant")
    *other, right = checked(row, messages(row, rejected, "rejected"), "rejected", last="assistant")
    if before != other:
        raise row.error("differs from chosen before the last message", "rejected")
    yield make_comparison(row, tuple(before), left.content, right.content, "chosen")


PAIRS = Format("pairs", lambda row: row.has_any("chosen", "rejected"), with_prompts("comparisons", plain_pairs))
