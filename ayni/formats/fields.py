"""Reading the fields of a row: text, messages, prompts and answers, checked, with the field's name in every error."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection
from typing import Any, Literal

from ayni.errors import BadInput
from ayni.formats.rows import Row
from ayni.records import Dialog, Message, MessageRole
from ayni.text.chat import check_dialog

ROLES: dict[str, MessageRole] = {role: role for role in ("system", "user", "assistant")}


def check_text(row: Row, text: Any, field: str, *, blank: bool = False) -> str:
    """`text` if it is Unicode text, and not blank unless allowed."""
    if not isinstance(text, str):
        kind = "null" if text is None else type(text).__name__
        raise row.error(f"expected text, found {kind}", field)
    if not blank and not text.strip():
        raise row.error("the text is empty", field)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise row.error("half a surrogate pair: not Unicode text", field) from None
    return text


def text_field(row: Row, field: str, *, blank: bool = False) -> str:
    if field not in row.value:
        raise row.error("the field is missing", field)
    return check_text(row, row.value[field], field, blank=blank)


def optional_text(row: Row, field: str) -> str:
    """The text of a field that may be missing, null or blank."""
    return "" if row.value.get(field) is None else check_text(row, row.value[field], field, blank=True)


def finite(row: Row, value: float, field: str) -> float:
    """The number, if a float can hold it."""
    if not abs(value) <= sys.float_info.max:
        raise row.error(f"{value} is not a finite number", field)
    return float(value)


def check_keys(row: Row, known: Collection[str]) -> None:
    """Other people's files carry keys of their own; one that looks like a misspelling of ours is an error."""
    for key in row.value:
        if key not in known:
            near = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.8)
            if near and near[0] not in row.value:
                raise row.error("unknown key", key, fix=f"did you mean {near[0]}?")


def messages(
    row: Row,
    value: Any,
    field: str,
    *,
    keys: tuple[str, str] = ("role", "content"),
    roles: dict[str, MessageRole] = ROLES,
) -> Dialog:
    """A list of messages; roles, types and blank texts are checked, their order is not."""
    if not isinstance(value, list) or not value:
        found = "an empty list" if value == [] else type(value).__name__
        raise row.error(f"expected a list of messages, found {found}", field)
    dialog = []
    for index, message in enumerate(value):
        here = f"{field}.{index}"
        if not isinstance(message, dict):
            raise row.error(f"expected an object, found {type(message).__name__}", here)
        if roles is ROLES and (extra := set(message) - set(keys)):
            raise row.error("unknown key", f"{here}.{min(extra)}")
        for key in keys:
            if key not in message:
                raise row.error("the field is missing", f"{here}.{key}")
        role = message[keys[0]]
        if not isinstance(role, str) or role not in roles:
            raise row.error(f"{role!r} is not one of {', '.join(roles)}", f"{here}.{keys[0]}")
        dialog.append(Message(roles[role], check_text(row, message[keys[1]], f"{here}.{keys[1]}")))
    return tuple(dialog)


def checked(
    row: Row, dialog: Dialog, field: str, last: Literal["user", "assistant"] | None = None
) -> Dialog:  # fmt: skip
    """The dialogue if the chat format can hold it; else BadInput under `field` instead of `messages`."""
    try:
        check_dialog(dialog, last=last)
    except BadInput as error:
        inner = (error.field or "messages").removeprefix("messages")
        raise row.error(error.what, field + inner) from None
    return dialog


def check_answer(row: Row, dialog: Dialog, answer: str, field: str) -> str:
    """The answer, if it may follow the dialogue, which is checked and ends with the user."""
    try:
        check_dialog((*dialog[-1:], Message("assistant", answer)))
    except BadInput as error:
        raise row.error(error.what, field) from None
    return answer


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


def instruction_dialog(row: Row) -> Dialog:
    """Instruction, a blank line, input (if any): one user message, and `system` before it if there is one."""
    text, given = text_field(row, "instruction"), optional_text(row, "input")
    system = optional_text(row, "system")
    user = Message("user", f"{text}\n\n{given}" if given.strip() else text)
    return (Message("system", system), user) if system.strip() else (user,)
