"""Chat messages, prompt and completion, and prompts alone."""

from __future__ import annotations

from collections.abc import Iterator

from ayni.formats.building import PROMPT_KEYS, make_demonstration, make_prompt
from ayni.formats.fields import check_keys, messages, one_answer, prompt_dialog
from ayni.formats.format import Format
from ayni.formats.rows import Row
from ayni.records import Demonstration, Dialog, Message, Prompt


def _chat(row: Row) -> Dialog:
    check_keys(row, ("messages", "train", *PROMPT_KEYS))
    return messages(row, row.value.get("messages"), "messages")


def chat_demonstrations(row: Row) -> Iterator[Demonstration]:
    yield make_demonstration(row, _chat(row), "messages")


def chat_prompts(row: Row) -> Iterator[Prompt]:
    yield make_prompt(row, _chat(row), "messages")


def completion_demonstrations(row: Row) -> Iterator[Demonstration]:
    check_keys(row, ("prompt", "completion", "train", *PROMPT_KEYS))
    answer = one_answer(row, row.value.get("completion"), "completion")
    yield make_demonstration(row, (*prompt_dialog(row), Message("assistant", answer)), "completion")


def plain_prompts(row: Row) -> Iterator[Prompt]:
    """`prompt`, whatever else the row holds."""
    yield make_prompt(row, prompt_dialog(row), "prompt")


MESSAGES = Format(
    "messages",
    lambda row: row.has("messages"),
    {"demonstrations": chat_demonstrations, "prompts": chat_prompts},
)
PROMPT_COMPLETION = Format(
    "prompt_completion",
    lambda row: row.has("prompt", "completion") and not row.has("chosen", "rejected"),
    {"demonstrations": completion_demonstrations, "prompts": plain_prompts},
)
PLAIN_PROMPTS = Format("plain_prompts", lambda row: row.has("prompt"), {"prompts": plain_prompts})
