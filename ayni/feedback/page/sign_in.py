"""Signing in by an invitation, signing out, and the page to start from."""

from __future__ import annotations

import textwrap

from starlette.responses import Response

from ayni.errors import BadInput
from ayni.feedback.entries import Dialogue
from ayni.feedback.page.dialogues import tasks_of
from ayni.feedback.page.judge import how_far, waiting
from ayni.feedback.page.views import Call, address, sentence

LONGEST = 200  # characters of an invitation that are looked at
COOKIE_DAYS = 30  # the store ends a session earlier if it likes


def invitation(call: Call) -> Response:
    """The invitation is used by the button and not by opening the link: mail programs open links on their own."""
    if call.person is not None and not call.query.get("invitation"):
        return call.go("/")
    return call.page("sign_in.html.jinja", invitation=call.query.get("invitation", "")[:LONGEST], error=None)


def sign_in(call: Call) -> Response:
    token = call.form.get("invitation", "").strip()
    if "invitation=" in token:  # the whole link was pasted
        token = token.rpartition("invitation=")[2]
    try:
        session = call.context.store.accept(token[:LONGEST])
    except BadInput as problem:
        return call.page("sign_in.html.jinja", 400, invitation="", error=sentence(problem))
    answer = call.go("/", notice="hello")
    answer.set_cookie(
        call.context.cookie,
        session,
        max_age=COOKIE_DAYS * 86_400,
        path="/",
        secure=call.context.secure,
        httponly=True,
        samesite="strict",
    )
    return answer


def sign_out(call: Call) -> Response:
    call.context.store.end_session(call.cookies.get(call.context.cookie, ""))
    answer = call.go("/sign-in", notice="bye")
    answer.delete_cookie(call.context.cookie, path="/", secure=call.context.secure, httponly=True, samesite="strict")
    return answer


def start(call: Call) -> Response:
    """Every open batch: how far it is, what this person did, what they can do next."""
    store, me = call.context.store, call.annotator
    cards = []
    for batch in store.batches():
        if batch.closed_at is not None:
            continue
        cards.append(
            {
                "batch": batch,
                "tasks": tasks_of(batch),
                "left": waiting(call, batch) is not None,
                **how_far(call, batch),
                "judge": address("/judge", batch=batch.id),
                "write": address("/write", batch=batch.id) if call.context.talk is not None else None,
                "dialogues": [_begun(talk) for talk in store.dialogues(me.id, batch.id) if _goes_on(talk)],
            }
        )
    return call.page("start.html.jinja", cards=cards)


def _goes_on(dialogue: Dialogue) -> bool:
    return dialogue.ended_at is None and bool(dialogue.turns)


def _begun(dialogue: Dialogue) -> dict[str, str]:
    """A link to it, under its first words."""
    first = dialogue.turns[0].prompt.dialog[0].content
    return {
        "address": address("/dialogue", id=dialogue.id),
        "start": textwrap.shorten(first, 80, placeholder=" …") or first[:80],
    }
