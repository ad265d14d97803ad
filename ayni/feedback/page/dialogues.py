"""Prompts that annotators write: both models answer, the chosen answer continues the dialogue (paper §3.2.1).

A form that arrives twice asks no model again: a dialogue is named after its first form's token, a later turn by number.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ayni.errors import BadInput
from ayni.feedback.entries import Dialogue, Judged, PreferenceBatch
from ayni.feedback.page.forms import submission, text
from ayni.feedback.page.judge import form_for, fresh_values, open_batch
from ayni.feedback.page.views import Call, sentence
from ayni.feedback.pairs import storable
from ayni.feedback.rules import TASKS
from ayni.records import Dialog, Message, Prompt, Task, comparable

LONGEST_PROMPT = 8000  # characters


def tasks_of(batch: PreferenceBatch) -> list[Task]:
    """What prompts may be written about: the batch's tasks, or all where it names none."""
    return [task for task in TASKS if batch.task_mix.get(task, 0) > 0] or list(TASKS)


def write(call: Call) -> Response:
    """The form for the first prompt of a dialogue."""
    if call.context.talk is None:
        raise HTTPException(404, "There are no models here to talk to.")
    batch = open_batch(call, call.query.get("batch", ""))
    return _first_form(call, batch, {"submission": uuid.uuid4().hex, "prompt": "", "task": tasks_of(batch)[0]})


def begin(call: Call) -> Response:
    """A dialogue with its first turn; or the form again, with what went wrong."""
    name = submission(call.form)
    batch = open_batch(call, call.form.get("batch", ""))
    task = next((task for task in tasks_of(batch) if task == call.form.get("task")), None)
    if task is None:
        raise HTTPException(400, "The form did not arrive whole. Please load the page again.")
    store, me = call.context.store, call.annotator
    if any(each.id == name and each.turns for each in store.dialogues(me.id, batch.id)):
        return call.go("/dialogue", id=name)
    try:
        message = _message(call)
        answers = _turn_answers(call, (Message("user", message),), task)
        store.start_dialogue(batch.id, me.id, task, name)
        _add(call, name, store.next_prompt(name, message), answers)
    except BadInput as problem:
        values = {"submission": name, "prompt": call.form.get("prompt", ""), "task": task}
        return _first_form(call, batch, values, problem)
    return call.go("/dialogue", id=name)


def show(call: Call) -> Response:
    """The turn that waits to be judged; or the dialogue so far, with room for the next message."""
    dialogue = _own(call, call.query.get("id", ""))
    batch = call.context.store.batch(dialogue.batch_id)
    if dialogue.turns and batch.closed_at is None and _last_choice(call, dialogue) is None:
        return form_for(call, batch, dialogue.turns[-1], fresh_values())
    return _next_form(call, dialogue, batch, {"prompt": ""})


def go_on(call: Call) -> Response:
    """The next turn, on top of the answers chosen so far."""
    dialogue = _own(call, call.form.get("dialogue", ""))
    batch = open_batch(call, dialogue.batch_id)
    try:
        message = _message(call)
        if call.form.get("turn") != str(len(dialogue.turns) + 1):
            if any(_is_message_of(dialogue, number, message) for number in range(len(dialogue.turns))):
                return call.go("/dialogue", id=dialogue.id)
            raise BadInput("this dialogue went on in another window; load it again", field="prompt")
        prompt = call.context.store.next_prompt(dialogue.id, message)
        _add(call, dialogue.id, prompt, _turn_answers(call, prompt.dialog, dialogue.task))
    except BadInput as problem:
        return _next_form(call, dialogue, batch, {"prompt": call.form.get("prompt", "")}, problem)
    return call.go("/dialogue", id=dialogue.id)


def end(call: Call) -> Response:
    dialogue = _own(call, call.form.get("dialogue", ""))
    call.context.store.end_dialogue(dialogue.id)
    return call.go("/dialogue", id=dialogue.id, notice="ended")


def _message(call: Call) -> str:
    message = text(call.form, "prompt", limit=LONGEST_PROMPT, about="the message")
    if not message:
        raise BadInput("please write something first", field="prompt")
    return message


TurnAnswers = tuple[str, str, str, str, Mapping[str, object], Mapping[str, object]]


def _turn_answers(call: Call, dialog: Dialog, task: Task) -> TurnAnswers:
    """Both models' answers; BadInput when there are no models, from them, or where there is nothing to compare."""
    if call.context.talk is None:
        raise BadInput("there are no models here to talk to")
    answer_a, answer_b, model_a, model_b, sampling_a, sampling_b = call.context.talk(dialog, task)
    if not comparable(answer_a, answer_b):
        raise BadInput("the models had not two different answers to this; ask again, or in other words")
    return storable(answer_a), storable(answer_b), model_a, model_b, sampling_a, sampling_b


def _add(call: Call, dialogue_id: str, prompt: Prompt, answers: TurnAnswers) -> None:
    """BadInput where a choice that `prompt` builds on was taken back while the models answered."""
    answer_a, answer_b, model_a, model_b, sampling_a, sampling_b = answers
    call.context.store.add_turn(
        dialogue_id,
        prompt,
        answer_a,
        answer_b,
        model_a=model_a,
        model_b=model_b,
        sampling_a=dict(sampling_a),
        sampling_b=dict(sampling_b),
    )


def _is_message_of(dialogue: Dialogue, number: int, message: str) -> bool:
    return dialogue.turns[number].prompt.dialog[-1].content == message


def _own(call: Call, name: str) -> Dialogue:
    """HTTPException 404 for one that is not there and for somebody else's alike."""
    try:
        dialogue = call.context.store.dialogue(name)
    except BadInput:
        raise HTTPException(404, "There is no such dialogue.") from None
    if dialogue.annotator_id != call.annotator.id:
        raise HTTPException(404, "There is no such dialogue.")
    return dialogue


def _last_choice(call: Call, dialogue: Dialogue) -> Judged | None:
    """What stands for the last turn; None while it waits."""
    return call.context.store.standing(dialogue.turns[-1].id, call.annotator.id)


def _so_far(call: Call, dialogue: Dialogue) -> Dialog:
    """Everything said, the chosen answers in it."""
    if not dialogue.turns:
        return ()
    last, choice = dialogue.turns[-1], _last_choice(call, dialogue)
    if choice is None or choice.entry.preferred is None:
        return last.prompt.dialog
    chosen = last.answer_a if choice.entry.preferred == "a" else last.answer_b
    return (*last.prompt.dialog, Message("assistant", chosen))


def _first_form(
    call: Call, batch: PreferenceBatch, values: Mapping[str, str], problem: BadInput | None = None
) -> Response:
    return call.page(
        "write.html.jinja",
        200 if problem is None else 400,
        batch=batch,
        tasks=tasks_of(batch),
        values=values,
        limit=LONGEST_PROMPT,
        problem=None if problem is None else sentence(problem),
    )


def _next_form(
    call: Call, dialogue: Dialogue, batch: PreferenceBatch, values: Mapping[str, str], problem: BadInput | None = None
) -> Response:
    return call.page(
        "dialogue.html.jinja",
        200 if problem is None else 400,
        dialogue_id=dialogue.id,
        batch=batch,
        task=dialogue.task,
        turns=len(dialogue.turns),
        messages=_so_far(call, dialogue),
        ended=dialogue.ended_at is not None or batch.closed_at is not None or call.context.talk is None,
        values=values,
        limit=LONGEST_PROMPT,
        problem=None if problem is None else sentence(problem),
    )
