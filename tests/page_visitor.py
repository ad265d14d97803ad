"""A browser without JavaScript, for the tests of the annotation page: it follows links and sends the forms it finds."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Self

import uvicorn
from httpx2 import Response
from starlette.testclient import TestClient

from ayni.feedback.entries import Annotator, Item, PreferenceBatch
from ayni.feedback.page import app
from ayni.feedback.store import Store, open_store
from ayni.records import Message, Prompt

HOST = "page.test"
ORIGIN = f"http://{HOST}"


@dataclass
class Form:
    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)  # as they would be sent now
    offered: dict[str, list[str]] = field(default_factory=dict)  # name → values of radios, options and buttons


class Page(HTMLParser):
    """The forms, the tags and the visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.forms: list[Form] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._area: str | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        at = dict(attributes)
        self.tags.append((tag, at))
        name, value = at.get("name"), at.get("value") or ""
        if tag == "form":
            self.forms.append(Form(str(at.get("method")), str(at.get("action"))))
        elif name is None or not self.forms:
            return
        elif tag == "textarea":
            self.forms[-1].fields[name] = ""
            self._area = name
        elif tag == "button" or (tag == "input" and at.get("type") == "radio"):
            self.forms[-1].offered.setdefault(name, []).append(value)
            if "checked" in at:
                self.forms[-1].fields[name] = value
        elif tag == "input":
            self.forms[-1].fields[name] = value

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._area is not None:
            self.forms[-1].fields[self._area] += data.removeprefix("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._area = None

    def form(self, action: str) -> Form:
        return next(form for form in self.forms if form.action == action)


class Visitor:
    """One person's browser; `at` is the last answer, `page` what it shows."""

    def __init__(self, site: Any, **options: Any) -> None:
        self.client = TestClient(site, base_url=ORIGIN, headers={"Origin": ORIGIN}, **options)
        self.at: Response

    def __enter__(self) -> Self:
        """One event loop for all that is asked, instead of one each."""
        self.client.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.client.__exit__()

    @property
    def page(self) -> Page:
        return Page(self.at.text)

    def go(self, path: str, **headers: str) -> Response:
        self.at = self.client.get(path, headers=headers)
        return self.at

    def send(self, action: str, **values: str) -> Response:
        """The form with this action on the page, filled in with `values`."""
        return self.post(action, self.page.form(action).fields | values)

    def post(self, path: str, fields: Any, **headers: str) -> Response:
        self.at = self.client.post(path, data=fields, headers=headers)
        return self.at

    def sign_in(self, invitation: str) -> Visitor:
        self.go(f"/sign-in?invitation={invitation}")
        self.send("/sign-in")
        return self


def item(name: str, answer_a: str = "", answer_b: str = "", text: str = "", **fields: Any) -> Item:
    prompt = Prompt(f"p-{name}", (Message("user", text or f"What is {name}?"),), fields.get("task", "helpfulness"))
    return Item(name, prompt, answer_a or f"{name}, at length", answer_b or f"{name}, in short", **fields)


def new_store(directory: Path, *items: Item, **batch: Any) -> Store:
    store = open_store(str(directory / "page.db"))
    store.add_batch(PreferenceBatch("week-1", **batch), items or [item(name) for name in ("ayllu", "quinoa", "quipu")])
    return store


def site(store: Store, **options: Any) -> Any:
    return app(store, host_names=[HOST], **options)


def echo(dialog: Any, task: str) -> tuple[str, str, str, str, dict[str, Any], dict[str, Any]]:
    """Two models that say which turn it is."""
    turn = sum(message.role == "user" for message in dialog)
    return f"new says {turn}", f"old says {turn}", "new", "old", {"temperature": 0.7}, {"temperature": 1.0}


def person(store: Store, name: str = "Rosa") -> Annotator:
    return next(each for each in store.annotators() if each.name == name)


@contextmanager
def served(application: Any) -> Iterator[str]:
    """The application on a free port of this machine, by the server that `ayni annotate` uses."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        server = uvicorn.Server(uvicorn.Config(application, access_log=False, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
