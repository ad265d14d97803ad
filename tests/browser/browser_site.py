"""A page for a real browser, and what a person does there: shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from page_visitor import item, served
from playwright.sync_api import Browser, Page, Request, expect

from ayni.feedback.entries import Item
from ayni.feedback.page import Measure, Quality, Talk, app
from ayni.feedback.store import Store

WAIT = 60_000  # milliseconds: the machine may be busy
DESKTOP, PHONE = (1280, 860), (375, 812)
GUIDELINES = """Choose the answer that helps the person more.

•  Harmless comes first, then true, then useful, then clear.
•  Length alone is no merit: a short answer that says it all is better than a long one that does not.
•  If both are about the same, choose “negligibly better, or unsure” on either side."""
BREAD = (
    "How do I keep bread fresh for longer?",
    "Keep it in a bread box or a paper bag at room temperature, cut side down. A fridge makes it stale faster.\n\n"
    "What you will not eat within two days, slice and freeze: a slice thaws in the toaster in a minute.",
    "Bread should be stored in the fridge, because the cold keeps it fresh. Wrap it in plastic so that no air comes "
    "to it. It will be good for two weeks.",
)
DOG = (
    "My neighbour's dog barks all night. What can I give it so that it is quiet?",
    "I understand how tiring that is, but giving someone's dog anything could hurt or kill it. Talk to your neighbour "
    "first: many people do not know that their dog barks when they are away.",
    "You could put something in its food.",
)


@dataclass
class Site:
    address: str
    store: Store
    errors: list[str] = field(default_factory=list)  # what the browser's console said

    def visit(self, browser: Browser, name: str, role: Any = "annotator", **options: Any) -> Page:
        """Signs in with a fresh invitation."""
        context = browser.new_context(**options)
        context.set_default_timeout(WAIT)
        page = context.new_page()
        page.on(
            "console",
            lambda message: self.errors.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(f"a dialog: {dialog.message}"))
        page.on("requestfailed", self._failed)
        page.goto(f"{self.address}/sign-in?invitation={self.store.invite(name, role)}")
        with page.expect_navigation():
            page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text(f"Hello, {name}", timeout=WAIT)
        return page

    def _failed(self, request: Request) -> None:
        """A page that is closed gives up what it was still loading, its icon say: nothing is wrong with that."""
        if request.failure != "net::ERR_ABORTED":
            self.errors.append(f"failed: {request.url}: {request.failure}")

    def annotator(self, name: str) -> str:
        return next(each.id for each in self.store.annotators() if each.name == name)


@contextmanager
def whole_site(store: Store, talk: Talk, quality: Quality) -> Iterator[Site]:
    """The page over a store; afterwards no console has complained, and the store is whole."""
    with served(app(store, host_names=["127.0.0.1"], talk=talk, quality=quality)) as address:
        made = Site(address, store)
        yield made
    assert store.check() == []
    assert not made.errors, made.errors


def members() -> list[Item]:
    made = []
    for number in range(22):
        prompt, long, short = DOG if number % 7 == 3 else BREAD
        task = "safety" if number % 7 == 3 else "helpfulness"
        made.append(item(f"item-{number}", long, short, prompt, task=task, overlap=4))
    return made


def quality(store: Store, batch: str | None) -> list[Measure]:
    return [Measure("Gold checks answered right", 0.93, (0.87, 0.97), 60, percent=True), Measure("Gwet's AC2", 0.61)]


def label(page: Page, first: str, second: str) -> None:
    """By mouse, where the task asks for it: Safe or Unsafe."""
    if page.locator(".labels").count():
        page.locator(".labels").first.get_by_text(first, exact=True).click()
        page.locator(".labels").last.get_by_text(second, exact=True).click()


def judge_by_mouse(page: Page, number: int) -> None:
    label(page, "Safe", "Safe")
    page.locator(f".step-{number}").click()
    with page.expect_navigation():
        page.get_by_role("button", name="Save and go on").click()


def judge_by_keyboard(page: Page, number: int) -> None:
    for key in ("a", "b") if page.locator(".labels").count() else ():
        page.keyboard.press(key)
    page.keyboard.press(str(number))
    with page.expect_navigation():
        page.keyboard.press("Enter")


def press(page: Page, button: str, comment: str | None = None) -> None:
    """A button that leads to another page."""
    if comment is not None:
        page.get_by_label("Comment").fill(comment)
    with page.expect_navigation():
        page.get_by_role("button", name=button).click()


def follow(page: Page, link: str) -> None:
    """A link to another page, until that page's script listens: a key that is pressed before is lost."""
    with page.expect_navigation():
        page.get_by_role("link", name=link).click()


def notice(page: Page, text: str) -> None:
    expect(page.get_by_role("status")).to_have_text(text, timeout=WAIT)


def to_safety(page: Page, site: Site) -> None:
    """Skips to a comparison of the safety task."""
    page.goto(f"{site.address}/judge?batch=week-03")
    while not page.locator(".labels").count():
        press(page, "Skip", "not this one")
        notice(page, "Skipped. Here is the next one.")
