"""Dialogues that annotators write (paper §3.2.1): each turn is an item, and the preferred answer leads to the next."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from ayni.errors import BadInput
from ayni.feedback.accounts import active, stamp
from ayni.feedback.batches import insert_items, item, items_where, open_batch
from ayni.feedback.entries import Dialogue, Item, PreferenceBatch
from ayni.feedback.rows import dialogue_of
from ayni.feedback.rules import TASKS, check_id, check_one_of, check_text
from ayni.feedback.schema import dialogues, items, judgements, standing
from ayni.records import Dialog, Message, Prompt, Task, root_of
from ayni.seeds import rng

SOURCE = "annotator"  # the source of prompts that annotators write


def start_dialogue(
    connection: Connection, now: datetime, batch_id: str, annotator_id: str, task: Task, dialogue_id: str | None
) -> Dialogue:
    """A new dialogue, or the one of that id when it was started before in the same way (a form sent twice)."""
    check_one_of(task, TASKS, "task")
    if dialogue_id is not None:
        check_id(dialogue_id, "dialogue")
    known = select(dialogues).where(dialogues.c.id == dialogue_id)
    row = connection.execute(known).one_or_none()
    if row is not None:
        if (row.batch_id, row.annotator_id, row.task) != (batch_id, annotator_id, task):
            raise BadInput("this dialogue was started by somebody else, or for something else", field="dialogue")
        return dialogue(connection, row.id)
    active(connection, annotator_id)
    open_batch(connection, batch_id)
    new = Dialogue(dialogue_id or secrets.token_hex(8), batch_id, annotator_id, task, stamp(now))
    connection.execute(
        insert(dialogues).values(
            id=new.id, batch_id=batch_id, annotator_id=annotator_id, task=task, created_at=new.created_at
        )
    )
    return new


def next_prompt(connection: Connection, dialogue_id: str, message: str) -> Prompt:
    """The dialogue so far, along the preferred answers, and the message.

    BadInput when the dialogue has ended or its last turn has no judgement that stands.
    """
    about = _about(connection, dialogue_id)
    if about.ended_at is not None:
        raise BadInput("this dialogue has ended", field="dialogue", fix="start a new one")
    check_text(message, "message")
    if not message.strip():
        raise BadInput("the message is empty", field="message")
    history: tuple[Message, ...] = ()
    last = connection.scalars(select(func.max(items.c.turn)).where(items.c.dialogue_id == dialogue_id)).one() or 0
    if last:
        before = item(connection, _turn_id(dialogue_id, last))
        answer = {"a": before.answer_a, "b": before.answer_b, None: None}[_preferred(connection, before.id)]
        if answer is None:
            raise BadInput(f"turn {last} is not judged", field="dialogue", fix="choose one of its answers first")
        history = (*before.prompt.dialog, Message("assistant", answer))
    dialog = (*history, Message("user", message))
    return Prompt(_turn_id(dialogue_id, last + 1), dialog, about.task, source=SOURCE, cluster=dialogue_id)


def add_turn(
    connection: Connection,
    now: datetime,
    dialogue_id: str,
    prompt: Prompt,
    answer_a: str,
    answer_b: str,
    **fields: Any,
) -> Item:
    """The turn that `next_prompt` gave the prompt of, now with its answers.

    When that turn is there already with the same prompt, it stays as it is and is returned (a form sent twice).
    """
    about = _about(connection, dialogue_id)
    for there in items_where(connection, (items.c.id == prompt.id) & (items.c.dialogue_id == dialogue_id)):
        if there.prompt != prompt:
            raise BadInput("this turn said something else before", field="dialogue")
        return there
    if prompt != next_prompt(connection, dialogue_id, prompt.dialog[-1].content):
        raise BadInput("the prompt does not go on from the dialogue", field="prompt")
    batch = open_batch(connection, about.batch_id)
    end = select(func.max(items.c.position)).where(items.c.batch_id == about.batch_id)
    last = connection.scalars(end).one()
    new = Item(
        prompt.id,
        prompt,
        answer_a,
        answer_b,
        about.task,
        **fields,
        heldout=held_out(batch, prompt.dialog),
        dialogue_id=dialogue_id,
        turn=len([message for message in prompt.dialog if message.role == "user"]),
        batch_id=about.batch_id,
        position=0 if last is None else last + 1,
        created_at=stamp(now),
    )
    insert_items(connection, [new])
    return new


def held_out(batch: PreferenceBatch, dialog: Dialog) -> bool:
    """Whether a written dialogue goes to the held-out set: drawn for what it begins with, so all its turns go there,
    and those of others who began alike. `batch.settings` say the share and the seed."""
    share, seed = batch.settings.get("heldout_share", 0), batch.settings.get("seed", 0)
    return bool(rng(seed, "written", root_of(dialog)).random() < share)


def end_dialogue(connection: Connection, now: datetime, dialogue_id: str) -> None:
    """No more turns; its last one may still be judged. Again changes nothing."""
    _about(connection, dialogue_id)
    still_open = (dialogues.c.id == dialogue_id) & dialogues.c.ended_at.is_(None)
    connection.execute(update(dialogues).where(still_open).values(ended_at=stamp(now)))


def dialogue(connection: Connection, dialogue_id: str) -> Dialogue:
    about = _about(connection, dialogue_id)
    turns = items_where(connection, items.c.dialogue_id == dialogue_id)
    return dialogue_of(about, tuple(sorted(turns, key=lambda turn: turn.turn or 0)))


def dialogues_of(connection: Connection, annotator_id: str, batch_id: str | None) -> list[Dialogue]:
    """Oldest first."""
    mine = select(dialogues.c.id).where(dialogues.c.annotator_id == annotator_id)
    if batch_id is not None:
        mine = mine.where(dialogues.c.batch_id == batch_id)
    ids = connection.scalars(mine.order_by(dialogues.c.created_at, dialogues.c.id)).all()
    return [dialogue(connection, each) for each in ids]


def _about(connection: Connection, dialogue_id: str) -> Row[Any]:
    row = connection.execute(select(dialogues).where(dialogues.c.id == dialogue_id)).one_or_none()
    if row is None:
        raise BadInput(f"there is no dialogue {dialogue_id!r}", field="dialogue")
    return row


def _preferred(connection: Connection, item_id: str) -> str | None:
    chosen = select(judgements.c.preferred).join(standing, standing.c.judgement_id == judgements.c.id)
    return connection.scalars(chosen.where(standing.c.item_id == item_id)).one_or_none()


def _turn_id(dialogue_id: str, turn: int) -> str:
    return f"{dialogue_id}.{turn}"
