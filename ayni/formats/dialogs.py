"""Demonstrations and prompts: chat messages, prompt/completion, Alpaca, self-instruct, ShareGPT, xstest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from ayni.formats.fields import (
    SHAREGPT_ROLES,
    check_keys,
    check_text,
    checked,
    messages,
    optional_text,
    text_field,
)
from ayni.formats.rows import Row
from ayni.records import Demonstration, Dialog, Message, Prompt, Role, Task

PROMPT_KEYS = ("id", "task", "category", "source")


def task_of(row: Row) -> Task:
    task = row.value.get("task") or "helpfulness"
    if task not in ("helpfulness", "safety"):
        raise row.error(f"{task!r} is not one of helpfulness, safety", "task")
    return cast(Task, task)


def make_prompt(row: Row, dialog: Dialog, field: str) -> Prompt:
    """The dialogue as a prompt of this row, without its last answer if it ends in one."""
    checked(row, dialog, field)
    open_dialog = dialog[:-1] if dialog[-1].role == "assistant" else dialog
    source = row.path.name.partition(".")[0]
    return Prompt(
        row.name, open_dialog, task_of(row), optional_text(row, "category"), optional_text(row, "source") or source
    )


def demonstration(row: Row, dialog: Dialog, field: str) -> Demonstration:
    checked(row, dialog, field, last="assistant")
    train = row.value.get("train", "all")
    if train not in ("all", "last"):
        raise row.error(f"{train!r} is not one of all, last", "train")
    return Demonstration(dialog, train, row.path.name.partition(".")[0])


def _chat(row: Row) -> Dialog:
    check_keys(row, ("messages", "train", *PROMPT_KEYS))
    return messages(row, row.value.get("messages"), "messages")


def chat_demonstrations(row: Row) -> Iterator[Demonstration]:
    yield demonstration(row, _chat(row), "messages")


def chat_prompts(row: Row) -> Iterator[Prompt]:
    yield make_prompt(row, _chat(row), "messages")


def _sharegpt(row: Row) -> Dialog:
    value = row.value.get("conversations")
    return messages(row, value, "conversations", keys=("from", "value"), roles=SHAREGPT_ROLES)


def sharegpt_demonstrations(row: Row) -> Iterator[Demonstration]:
    yield demonstration(row, _sharegpt(row), "conversations")


def sharegpt_prompts(row: Row) -> Iterator[Prompt]:
    yield make_prompt(row, _sharegpt(row), "conversations")


def prompt_dialog(row: Row, field: str = "prompt") -> Dialog:
    """`prompt` as text (a user's message) or as a list of messages; it ends with the user's."""
    value = row.value.get(field)
    if isinstance(value, list):
        return checked(row, messages(row, value, field), field, last="user")
    return checked(row, (Message("user", text_field(row, field)),), field)


def one_answer(row: Row, value: Any, field: str) -> str:
    """An answer as text, or as a list of one assistant message."""
    if not isinstance(value, list):
        return check_text(row, value, field)
    dialog = messages(row, value, field)
    if len(dialog) != 1 or dialog[0].role != "assistant":
        raise row.error("expected one message, the assistant's", field)
    return dialog[0].content


def completion_demonstrations(row: Row) -> Iterator[Demonstration]:
    check_keys(row, ("prompt", "completion", "train", *PROMPT_KEYS))
    answer = one_answer(row, row.value.get("completion"), "completion")
    yield demonstration(row, (*prompt_dialog(row), Message("assistant", answer)), "completion")


def plain_prompts(row: Row) -> Iterator[Prompt]:
    """`prompt`, whatever else the row holds."""
    yield make_prompt(row, prompt_dialog(row), "prompt")


def instruction_dialog(row: Row) -> Dialog:
    """Instruction, a blank line, input (if any): one user message, and `system` before it if there is one."""
    text, given = text_field(row, "instruction"), optional_text(row, "input")
    system = optional_text(row, "system")
    user = Message("user", f"{text}\n\n{given}" if given.strip() else text)
    return (Message("system", system), user) if system.strip() else (user,)


def alpaca_demonstrations(row: Row) -> Iterator[Demonstration]:
    """Alpaca; the answer is `output` or `response`, earlier turns in `history` come first."""
    field = "output" if "output" in row.value else "response"
    answer = Message("assistant", text_field(row, field))
    yield demonstration(row, (*_with_history(row), answer), field)


def alpaca_prompts(row: Row) -> Iterator[Prompt]:
    yield make_prompt(row, _with_history(row), "instruction")


def _with_history(row: Row) -> Dialog:
    *system, user = instruction_dialog(row)
    before: list[Message] = []
    for index, pair in enumerate(row.value.get("history") or []):
        if not isinstance(pair, list) or len(pair) != 2:
            raise row.error("expected a pair of texts", f"history.{index}")
        roles: tuple[Role, Role] = ("user", "assistant")
        before += [
            Message(role, check_text(row, text, f"history.{index}")) for role, text in zip(roles, pair, strict=True)
        ]
    return (*system, *before, user)


def _instances(row: Row) -> Iterator[tuple[str, Dialog, str]]:
    value = row.value.get("instances")
    if not isinstance(value, list) or not value:
        raise row.error("expected a list of instances", "instances")
    for index, instance in enumerate(value):
        if not isinstance(instance, dict):
            raise row.error("expected an object", f"instances.{index}")
        inner = Row(row.path, row.line, row.index, "", {**instance, "instruction": row.value.get("instruction")})
        name = row.name if len(value) == 1 else f"{row.name}-{index}"
        yield name, instruction_dialog(inner), text_field(inner, "output")


def instance_demonstrations(row: Row) -> Iterator[Demonstration]:
    """self-instruct: one instruction, several instances of input and output."""
    for _, dialog, answer in _instances(row):
        yield demonstration(row, (*dialog, Message("assistant", answer)), "instances")


def instance_prompts(row: Row) -> Iterator[Prompt]:
    for name, dialog, _ in _instances(row):
        prompt = make_prompt(row, dialog, "instances")
        yield Prompt(name, prompt.dialog, prompt.task, prompt.category, prompt.source)


def xstest_prompts(row: Row) -> Iterator[Prompt]:
    """xstest's CSV: `label` unsafe is a safety prompt, safe a helpfulness one; the category is label and type."""
    label = text_field(row, "label")
    if label not in ("safe", "unsafe"):
        raise row.error(f"{label!r} is not one of safe, unsafe", "label")
    dialog = checked(row, (Message("user", text_field(row, "prompt")),), "prompt")
    task: Task = "safety" if label == "unsafe" else "helpfulness"
    category = f"{label}:{optional_text(row, 'type')}"
    yield Prompt(row.name, dialog, task, category, row.path.name.partition(".")[0])
