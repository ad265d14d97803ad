"""Comparisons: prompt/chosen/rejected, ShareGPT pairs, hh-rlhf transcripts, PandaLM votes.

What the published files themselves do (empty answers, transcripts that part too early, ties) is left out and
counted (`Skip`); what no published file does is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ayni.formats.dialogs import (
    PROMPT_KEYS,
    instruction_dialog,
    make_prompt,
    one_answer,
    prompt_dialog,
    task_of,
)
from ayni.formats.fields import SHAREGPT_ROLES, check_answer, check_keys, check_text, checked, messages, optional_text
from ayni.formats.rows import Row, Skip
from ayni.records import Comparison, Dialog, Message, Rating, comparable, from_json, message_dicts

_OUR_FIELDS = ("rating", "margin", "safety", "annotator", "batch", "model_chosen", "model_rejected", "source")


def check_margin(row: Row) -> None:
    """A margin, where given as a number, is finite and not negative; its type is the record's to check."""
    margin = row.value.get("margin")
    if isinstance(margin, int | float) and not 0 <= margin < float("inf"):
        raise row.error(f"{margin} is not a number ≥ 0", "margin")


def check_comparison(row: Row, comparison: Comparison, field: str = "prompt") -> Comparison:
    """The comparison, if both answers may follow its prompt and differ."""
    dialog = checked(row, comparison.prompt.dialog, field, last="user")
    for name in ("chosen", "rejected"):
        answer = check_text(row, getattr(comparison, name), name)
        check_answer(row, dialog, answer, name)
    if not comparable(comparison.chosen, comparison.rejected):
        raise row.error("chosen and rejected are the same text", "rejected")
    return comparison


def make_comparison(row: Row, dialog: Dialog, chosen: str, rejected: str, field: str) -> Comparison:
    """A comparison with whatever of our own fields the row has."""
    prompt = make_prompt(row, checked(row, dialog, field, last="user"), field)
    check_margin(row)
    ours = {key: row.value[key] for key in _OUR_FIELDS if row.value.get(key) is not None}
    if ours.get("safety") in ("rejected_safe", "chosen_unsafe"):
        raise row.error(
            "the chosen answer is unsafe and the rejected one safe", "safety", fix="leave such pairs out (RECIPE §4)"
        )
    value: dict[str, Any] = {
        "source": prompt.source,
        **ours,
        "prompt": {"id": prompt.id, "dialog": message_dicts(prompt.dialog), "task": prompt.task}
        | {"category": prompt.category, "source": prompt.source},
        "chosen": chosen,
        "rejected": rejected,
        "task": task_of(row),
    }
    record = from_json(Comparison, json.dumps(value), path=row.path, line=row.line)
    return check_comparison(row, record, field)


def pairs(row: Row) -> Iterator[Comparison]:
    """prompt/chosen/rejected as text or messages (TRL), with our rating, safety, margin and task.

    Without a prompt, chosen and rejected are whole dialogues that differ in the last message.
    """
    check_keys(row, ("prompt", "chosen", "rejected", *_OUR_FIELDS, *PROMPT_KEYS))
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


def sharegpt_pairs(row: Row) -> Iterator[Comparison]:
    """ShareGPT conversations that end with the human, and two answers as message objects."""
    value = row.value.get("conversations")
    dialog = messages(row, value, "conversations", keys=("from", "value"), roles=SHAREGPT_ROLES)
    answers: list[str] = []
    for field in ("chosen", "rejected"):
        only = [row.value.get(field)]
        (message,) = messages(row, only, field, keys=("from", "value"), roles=SHAREGPT_ROLES)
        if message.role != "assistant":
            raise row.error("the answer is not the assistant's", f"{field}.from")
        answers.append(message.content)
    yield make_comparison(row, dialog, answers[0], answers[1], "conversations")


_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


def _transcript(row: Row, field: str) -> list[tuple[str, str]]:
    text = check_text(row, row.value.get(field), field)
    head, *parts = _SPEAKER.split(text)
    if head.strip() or not parts or parts[0] != "Human":
        raise row.error("a transcript starts with a blank line and `Human:`", field)
    if parts[-2] != "Assistant":
        raise row.error("a transcript ends with an `Assistant:` turn", field)
    return [(who, said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True)]


def hh_pairs(row: Row) -> Iterator[Comparison]:
    """hh-rlhf: two transcripts of one dialogue up to the last answer.

    Left out and counted, because the published files hold them: speakers that do not alternate, empty turns,
    transcripts that part before the last answer.
    """
    chosen, rejected = _transcript(row, "chosen"), _transcript(row, "rejected")
    for turns in (chosen, rejected):
        if any(who != ("Human", "Assistant")[index % 2] for index, (who, _) in enumerate(turns)):
            raise Skip("speakers do not alternate")
        if not all(said for _, said in turns):
            raise Skip("a turn is empty")
    if chosen[:-1] != rejected[:-1]:
        raise Skip("the transcripts differ before the last answer")
    if chosen == rejected:
        raise Skip("the answers are the same")
    dialog = tuple(Message("user" if who == "Human" else "assistant", said) for who, said in chosen[:-1])
    yield make_comparison(row, dialog, chosen[-1][1], rejected[-1][1], "chosen")


# (votes for the winner, votes for the loser) of three annotators; the rest are ties.
_AGREEMENT: dict[tuple[int, int], Rating] = {
    (3, 0): "significantly_better",
    (2, 0): "better",
    (2, 1): "slightly_better",
    (1, 0): "negligibly_better_or_unsure",
}


def pandalm_pairs(row: Row) -> Iterator[Comparison]:
    """PandaLM: three votes (1, 2, or 0 for a tie) become a degree by agreement: 3–0 significantly better,
    2–0 better, 2–1 slightly better, 1–0 negligibly better. Ties are left out and counted, and so are empty answers
    and instructions, and answers that are not text.
    """
    votes = [row.value.get(f"annotator{n}") for n in (1, 2, 3)]
    for n, vote in enumerate(votes, 1):
        if type(vote) is not int or vote not in (0, 1, 2):
            raise row.error(f"{vote!r} is not one of 0, 1, 2", f"annotator{n}")
    first, second = votes.count(1), votes.count(2)
    if first == second:
        raise Skip("a tie")
    answers = [row.value.get(f"response{n}") for n in (1, 2)]
    texts = [answer for answer in answers if isinstance(answer, str)]
    if len(texts) < 2:
        raise Skip("an answer is not text")
    if not all(text.strip() for text in texts):
        raise Skip("an answer is empty")
    if texts[0].strip() == texts[1].strip():
        raise Skip("the answers are the same")
    if not str(row.value.get("instruction", "")).strip():
        raise Skip("the instruction is empty")
    names = optional_text(row, "cmp_key").split("_")
    models = names if len(names) == 2 else ["", ""]
    if second > first:
        texts, models = texts[::-1], models[::-1]
    rating = _AGREEMENT[max(first, second), min(first, second)]
    value = {**row.value, "rating": rating, "model_chosen": models[0], "model_rejected": models[1]}
    judged = Row(row.path, row.line, row.index, row.text, value)
    yield make_comparison(judged, instruction_dialog(row), texts[0], texts[1], "instruction")
