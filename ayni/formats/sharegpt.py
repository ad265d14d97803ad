"""ShareGPT: conversations, and two answers to one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from ayni.formats.building import make_comparison, make_demonstration, make_prompt
from ayni.formats.fields import ROLES, messages
from ayni.formats.format import Format, with_prompts
from ayni.formats.rows import Row
from ayni.records import Comparison, Demonstration, Dialog, MessageRole, Prompt

_ROLES: dict[str, MessageRole] = {
    **ROLES,
    **cast(dict[str, MessageRole], {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant"}),
}


def _sharegpt(row: Row) -> Dialog:
    value = row.value.get("conversations")
    return messages(row, value, "conversations", keys=("from", "value"), roles=_ROLES)


def sharegpt_demonstrations(row: Row) -> Iterator[Demonstration]:
    yield make_demonstration(row, _sharegpt(row), "conversations")


def sharegpt_prompts(row: Row) -> Iterator[Prompt]:
    yield make_prompt(row, _sharegpt(row), "conversations")


def sharegpt_pairs(row: Row) -> Iterator[Comparison]:
    """ShareGPT conversations that end with the human, and two answers as message objects."""
    value = row.value.get("conversations")
    dialog = messages(row, value, "conversations", keys=("from", "value"), roles=_ROLES)
    answers: list[str] = []
    for field in ("chosen", "rejected"):
        only = [row.value.get(field)]
        (message,) = messages(row, only, field, keys=("from", "value"), roles=_ROLES)
        if message.role != "assistant":
            raise row.error("the answer is not the assistant's", f"{field}.from")
        answers.append(message.content)
    yield make_comparison(row, dialog, answers[0], answers[1], "conversations")


SHAREGPT = Format(
    "sharegpt",
    lambda row: row.has("conversations"),
    {"demonstrations": sharegpt_demonstrations, "prompts": sharegpt_prompts},
)
SHAREGPT_PAIRS = Format(
    "sharegpt_pairs",
    lambda row: row.has("conversations") and row.has_any("chosen", "rejected"),
    with_prompts("comparisons", sharegpt_pairs),
)
