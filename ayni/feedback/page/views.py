"""From a request to a view and back: who asks, what they sent, and the page that answers.

A view is a plain function `(Call) -> Response`; it runs in a worker thread, so it may wait for the store or a model.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.resources import files
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

import anyio.to_thread
from anyio import CapacityLimiter
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ayni.errors import AyniError, BadInput, NoRoom
from ayni.feedback.entries import Annotator
from ayni.feedback.page.degrees import CHOICES_BY_LETTER
from ayni.feedback.page.desk import Desk
from ayni.feedback.page.forms import Form, read_form
from ayni.feedback.page.shown import shown
from ayni.feedback.store import Store
from ayni.records import Dialog

# (dialogue, task) → (answer_a, answer_b, model_a, model_b, sampling_a, sampling_b); one call at a time, in a thread.
Talk = Callable[[Dialog, str], tuple[str, str, str, str, Mapping[str, Any], Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Measure:
    """One number, as the admin page shows it: a share of 1 when `percent`, its 95% interval, and of how many.

    `person`: of which annotator, "" of a batch. `remark`: words in place of a number.
    """

    name: str
    value: float | None
    interval: tuple[float, float] | None = None
    n: int | None = None
    percent: bool = False
    person: str = ""
    remark: str = ""


# (store, a batch's name) → what the batch's card shows; (store, None) → what the table of annotators shows of persons.
Quality = Callable[[Store, str | None], Sequence[Measure]]


@dataclass(frozen=True, slots=True)
class PageContext:
    """What every view may use. `local` is who judges where nobody signs in; None demands a session."""

    store: Store
    talk: Talk | None = None
    quality: Quality | None = None
    local: Annotator | None = None
    secure: bool = False
    environment: Environment = field(default_factory=lambda: environment())
    desk: Desk = field(default_factory=Desk)

    @property
    def cookie(self) -> str:
        """Under https the name itself forbids other hosts and paths to set it."""
        return "__Host-ayni" if self.secure else "ayni"


@dataclass(frozen=True, slots=True)
class Call:
    """One request: what was asked for and sent, and by whom."""

    context: PageContext
    path: str
    query: Form
    form: Form
    cookies: Form
    person: Annotator | None
    origin: str  # scheme://host as the person sees us

    @property
    def annotator(self) -> Annotator:
        assert self.person is not None  # `endpoint` lets only signed-in people through to views that ask
        return self.person

    def page(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        return HTMLResponse(
            rendered(self.context, template, self.person, notice=self.query.get("notice"), **values), status
        )

    def go(self, path: str, **query: str) -> RedirectResponse:
        """303: the browser asks anew with GET, so a reload repeats nothing."""
        return RedirectResponse(address(path, **query), 303)


View = Callable[[Call], Response]


def address(path: str, **query: str) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def endpoint(
    context: PageContext, view: View, *, role: str | None = "annotator", limiter: CapacityLimiter | None = None
) -> Callable[[Request], Awaitable[Response]]:
    """The view as Starlette calls it, for `role`: None is anybody, "annotator" whoever signed in, "admin" an admin."""

    async def serve(request: Request) -> Response:
        form: Form = await read_form(request) if request.method == "POST" else {}
        return await anyio.to_thread.run_sync(partial(_answer, context, view, role, request, form), limiter=limiter)

    return serve


def _answer(context: PageContext, view: View, role: str | None, request: Request, form: Form) -> Response:
    origin = f"{'https' if context.secure else 'http'}://{request.headers['host']}"
    query = dict(request.query_params)
    call = Call(context, request.url.path, query, form, request.cookies, context.local, origin)
    if any("\0" in value for value in query.values()):  # no database looks for that
        raise HTTPException(404, "There is nothing here.")
    try:
        if call.person is None:
            call = replace(call, person=context.store.session(request.cookies.get(context.cookie, "")))
        if role is not None and call.person is None:
            if request.method == "GET":
                return call.go("/sign-in")
            raise HTTPException(401, "You are signed out, so nothing was saved. Please sign in and send it again.")
        if role == "admin" and call.annotator.role != "admin":
            raise HTTPException(403, "This page is for the people who run the collection.")
        return view(call)
    except BadInput as error:
        return call.page("error.html.jinja", 400, message=sentence(error), title="That did not work")
    except AyniError as error:  # the database or the disk fails: whoever runs this reads why
        logging.getLogger(__name__).error("%s", error)
        return _again(call, request.method == "POST", error)


def _again(call: Call, sent: bool, error: AyniError) -> Response:
    """Needs nothing of the store: what was sent stays on the page, and sent again it counts once."""
    why = "The disk is full" if isinstance(error, NoRoom) else "The page cannot reach its store just now"
    what = "so this is not saved yet. Please send it again in a moment." if sent else "please try again in a moment."
    fields = call.form if sent else None
    title = "Not saved yet" if sent else "One moment please"
    return call.page("again.html.jinja", 503, title=title, message=f"{why}, {what}", path=call.path, fields=fields)


def sentence(error: BadInput) -> str:
    """The error as a person reads it: without file, line or field."""
    text = error.what if error.fix is None else f"{error.what}; {error.fix}"
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def rendered(
    context: PageContext, template: str, person: Annotator | None, *, notice: str | None = None, **values: Any
) -> str:
    """One page. `notice` is a key of NOTICES, never text from the address."""
    status = NOTICES.get(notice or "", "")
    return context.environment.get_template(template).render(
        person=person, signed_in=context.local is None, status=status, submission=uuid.uuid4().hex, **values
    )


NOTICES: Mapping[str, str] = MappingProxyType(
    {
        "saved": "Saved. Here is the next one.",
        "skipped": "Skipped. Here is the next one.",
        "flagged": "Thank you for telling us. Here is the next one.",
        "undone": "Taken back. Judge it again, or skip it.",
        "nothing": "There is nothing to take back.",
        "kept": "Later turns build on that choice, so it stays.",
        "chosen": "Saved. Go on with the dialogue, or end it.",
        "ended": "The dialogue is kept. Thank you!",
        "hello": "You are signed in.",
        "bye": "You are signed out.",
        "closed": "The batch is closed.",
        "retired": "They are signed out and cannot come back.",
    }
)
STATIC = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}


def static_files() -> Mapping[str, tuple[bytes, str]]:
    """name → (bytes, media type): all that /static serves, read once from the package."""
    here = files("ayni.feedback.page") / "static"
    return MappingProxyType({name: ((here / name).read_bytes(), kind) for name, kind in STATIC.items()})


def environment() -> Environment:
    """Jinja with everything escaped and no undefined names; `asset` is a static file's address with its hash."""
    made = Environment(
        loader=PackageLoader("ayni", "feedback/page/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["shown"] = shown
    made.globals["degrees"] = CHOICES_BY_LETTER
    made.globals["asset"] = {
        name: f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"
        for name, (content, _) in static_files().items()
    }
    return made
