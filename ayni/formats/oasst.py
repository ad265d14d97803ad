"""Open-Assistant message trees: ranked replies become comparisons, the best path a demonstration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ayni.formats.building import MOST_RANKED, SAME, make_comparison, make_demonstration, make_prompt
from ayni.formats.fields import check_text, checked
from ayni.formats.format import Format
from ayni.formats.rows import Row, Skip
from ayni.records import Comparison, Demonstration, Dialog, Message, MessageRole, Prompt


def _walk(row: Row, node: Any, field: str, before: Dialog) -> Iterator[tuple[Dialog, list[dict[str, Any]], str]]:
    """(dialogue up to here, kept replies, field) of every message of an Open-Assistant tree, parents first."""
    if not isinstance(node, dict):
        raise row.error("expected an object", field)
    role = node.get("role")
    if role not in ("prompter", "assistant"):
        raise row.error(f"{role!r} is not one of prompter, assistant", f"{field}.role")
    text = check_text(row, node.get("text"), f"{field}.text")
    dialog = (*before, Message("user" if role == "prompter" else "assistant", text))
    checked(row, dialog, field)
    replies = node.get("replies", [])
    if not isinstance(replies, list):
        raise row.error("expected a list", f"{field}.replies")
    kept = [
        reply
        for reply in replies
        if isinstance(reply, dict) and not reply.get("deleted") and reply.get("review_result") is not False
    ]
    yield dialog, kept, field
    for index, reply in enumerate(kept):
        yield from _walk(row, reply, f"{field}.replies.{index}", dialog)


def _tree(row: Row) -> Iterator[tuple[Dialog, list[dict[str, Any]], str]]:
    return _walk(row, row.value.get("prompt"), "prompt", ())


def _ranked(replies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted((reply for reply in replies if type(reply.get("rank")) is int), key=lambda reply: reply["rank"])


def oasst_pairs(row: Row) -> Iterator[Comparison | Skip]:
    """Open-Assistant trees: every two ranked answers to one message, the better rank chosen; no degree is invented.

    Replies deleted or failed in review are left out, as the project's own export does.
    """
    found = 0
    for number, (dialog, replies, field) in enumerate(_tree(row)):
        ranked = _ranked(replies) if dialog[-1].role == "user" else []
        if len(ranked) > MOST_RANKED:
            raise row.error(f"more than {MOST_RANKED} ranked answers to one message", f"{field}.replies")
        for better in range(len(ranked)):
            for worse in range(better + 1, len(ranked)):
                texts = [check_text(row, ranked[n].get("text"), f"{field}.replies") for n in (better, worse)]
                if ranked[better]["rank"] == ranked[worse]["rank"]:
                    continue
                if texts[0].strip() == texts[1].strip():
                    yield Skip(SAME)  # of this pair alone
                    continue
                found += 1
                pair = make_comparison(row, dialog, texts[0], texts[1], field)
                prompt = _of_tree(pair.prompt, row, number)
                yield Comparison(prompt, pair.chosen, pair.rejected, pair.task, source=pair.source)
    if not found:
        raise Skip("no message with two ranked answers")


def _of_tree(prompt: Prompt, row: Row, number: int) -> Prompt:
    """With the name of its message; the messages of a tree stand or fall together."""
    return replace(prompt, id=f"{row.name}-{number}", cluster=prompt.cluster or row.name)


def oasst_demonstrations(row: Row) -> Iterator[Demonstration]:
    """The best-ranked path of the tree, down to its last answer."""
    best: Dialog = ()
    node = row.value.get("prompt")
    dialogs = {dialog: replies for dialog, replies, _ in _tree(row)}
    dialog: Dialog = (Message("user", node["text"]),) if isinstance(node, dict) else ()
    while dialog in dialogs:
        if dialog[-1].role == "assistant":
            best = dialog
        replies = dialogs[dialog]
        if not replies:
            break
        following = (_ranked(replies) or replies)[0]
        role: MessageRole = "assistant" if following["role"] == "assistant" else "user"
        dialog = (*dialog, Message(role, following["text"]))
    if not best:
        raise Skip("no answer in the tree")
    yield make_demonstration(row, best, "prompt")


def oasst_prompts(row: Row) -> Iterator[Prompt]:
    """Every dialogue of the tree that ends with the prompter."""
    for number, (dialog, _, field) in enumerate(_tree(row)):
        if dialog[-1].role == "user":
            yield _of_tree(make_prompt(row, dialog, field), row, number)


OASST = Format(
    "oasst",
    lambda row: row.has("message_tree_id"),
    {"comparisons": oasst_pairs, "demonstrations": oasst_demonstrations, "prompts": oasst_prompts},
)
