"""Instructions with their answers: Alpaca, and self-instruct's several instances of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ayni.formats.building import make_demonstration, make_prompt
from ayni.formats.fields import check_text, instruction_dialog, text_field
from ayni.formats.format import Format
from ayni.formats.rows import Row
from ayni.records import Demonstration, Dialog, Message, MessageRole, Prompt


def alpaca_demonstrations(row: Row) -> Iterator[Demonstration]:
    """Alpaca; the answer is `output` or `response`, earlier turns in `history` come first."""
    field = "output" if "output" in row.value else "response"
    answer = Message("assistant", text_field(row, field))
    yield make_demonstration(row, (*_with_history(row), answer), field)


def alpaca_prompts(row: Row) -> Iterator[Prompt]:
    yield make_prompt(row, _with_history(row), "instruction")


def _with_history(row: Row) -> Dialog:
    *system, user = instruction_dialog(row)
    before: list[Message] = []
    history = row.value.get("history") or []
    if not isinstance(history, list):
        raise row.error("expected a list of pairs", "history")
    for index, pair in enumerate(history):
        if not isinstance(pair, list) or len(pair) != 2:
            raise row.error("expected a pair of texts", f"history.{index}")
        roles: tuple[MessageRole, MessageRole] = ("user", "assistant")
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
        inner = row.saying({**instance, "instruction": row.value.get("instruction")})
        name = row.name if len(value) == 1 else f"{row.name}-{index}"
        yield name, instruction_dialog(inner), text_field(inner, "output")


def instance_demonstrations(row: Row) -> Iterator[Demonstration]:
    """self-instruct: one instruction, several instances of input and output."""
    for _, dialog, answer in _instances(row):
        yield make_demonstration(row, (*dialog, Message("assistant", answer)), "instances")


def instance_prompts(row: Row) -> Iterator[Prompt]:
    for name, dialog, _ in _instances(row):
        prompt = make_prompt(row, dialog, "instances")
        yield replace(prompt, id=name, cluster=prompt.cluster or row.name)


ALPACA = Format(
    "alpaca",
    lambda row: row.has("instruction"),
    {"demonstrations": alpaca_demonstrations, "prompts": alpaca_prompts},
)
SELF_INSTRUCT = Format(
    "self_instruct",
    lambda row: row.has("instances"),
    {"demonstrations": instance_demonstrations, "prompts": instance_prompts},
)
