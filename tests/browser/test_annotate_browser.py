"""The annotation page in a real Chromium: a person's whole visit, by mouse and keyboard, and what it looks like.

It needs a browser, so it runs by `make test-browser`; plain `make test` does not enter this folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tiny
from conftest import not_here
from page_visitor import item, served
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from ayni.cli.annotate import two_voices
from ayni.feedback.entries import Batch, Item
from ayni.feedback.page import Measure, app
from ayni.feedback.store import Store, open_store
from ayni.model_directory import save_model

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
# Without a sandbox, as root needs it; without all that would talk to anybody but the page.
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
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


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, which looks for what people with disabilities would stumble over."""
    path = Path(os.environ.get("AYNI_AXE", ".venv/axe.min.js"))
    return path.read_text(encoding="utf-8") if path.is_file() else not_here(f"{path} is missing: make test-browser")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        not_here("no Chromium; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS])
        yield browser
        browser.close()


@dataclass
class Site:
    address: str
    store: Store
    errors: list[str] = field(default_factory=list)

    def visit(self, browser: Browser, name: str, role: Any = "annotator", **options: Any) -> Page:
        """Signs in with a fresh invitation."""
        context: BrowserContext = browser.new_context(**options)
        context.set_default_timeout(WAIT)
        page = context.new_page()
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(f"a dialog: {dialog.message}"))
        page.goto(f"{self.address}/sign-in?invitation={self.store.invite(name, role)}")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text(f"Hello, {name}", timeout=WAIT)
        return page


def members() -> list[Item]:
    made = []
    for number in range(22):
        prompt, long, short = DOG if number % 7 == 3 else BREAD
        task = "safety" if number % 7 == 3 else "helpfulness"
        made.append(item(f"item-{number}", long, short, prompt, task=task, overlap=4))
    return made


def quality(store: Store, batch: str) -> list[Measure]:
    return [Measure("Gold checks answered right", 0.93, (0.87, 0.97), 60, percent=True), Measure("Gwet's AC2", 0.61)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A batch of 22 items, and two live models."""
    directory = tmp_path_factory.mktemp("page")
    for seed in (0, 1):
        policy = tiny.policy(seed, context=512)
        save_model(directory / f"model-{seed}", policy.model, policy.tokenizer)
    talk = two_voices([directory / "model-0", directory / "model-1"], [0.7, 1.0], 24, 0)
    with open_store(str(directory / "page.db")) as store:
        batch = Batch("week-03", GUIDELINES, task_mix={"helpfulness": 0.8, "safety": 0.2})
        store.add_batch(batch, members())
        application = app(store, host_names=["127.0.0.1"], talk=talk, quality=quality)
        with served(application) as address:
            made = Site(address, store)
            yield made
    assert made.errors == []


def judge_by_mouse(page: Page, number: int) -> None:
    if page.locator(".labels").count():
        page.locator(".labels").first.get_by_text("Safe", exact=True).click()
        page.locator(".labels").last.get_by_text("Safe", exact=True).click()
    page.locator(f".step-{number}").click()
    page.get_by_role("button", name="Save and go on").click()


def judge_by_keyboard(page: Page, number: int) -> None:
    for key in ("a", "b") if page.locator(".labels").count() else ():
        page.keyboard.press(key)
    page.keyboard.press(str(number))
    page.keyboard.press("Enter")


def told(page: Page, text: str) -> None:
    expect(page.get_by_role("status")).to_have_text(text, timeout=WAIT)


def test_a_whole_visit(chromium: Browser, site: Site) -> None:
    width, height = DESKTOP
    page = site.visit(chromium, "Rosa", viewport={"width": width, "height": height})
    page.get_by_role("link", name="Start judging").click()
    page.keyboard.press("?")
    expect(page.get_by_text("Harmless comes first")).to_be_visible(timeout=WAIT)
    page.keyboard.press("?")
    for number in range(20):
        judge = judge_by_mouse if number % 2 else judge_by_keyboard
        judge(page, 1 + number % 8)
        expect(page.locator(".count")).to_have_text(f"{number + 1} of 88", timeout=WAIT)
        told(page, "Saved. Here is the next one.")
    before = len(site.store.current())
    page.keyboard.press("u")
    told(page, "Taken back. Judge it again, or skip it.")
    assert len(site.store.current()) == before - 1
    judge_by_keyboard(page, 6)
    told(page, "Saved. Here is the next one.")
    page.get_by_label("Comment").fill("The question is cut off.\nI cannot tell.")
    page.get_by_role("button", name="Flag a problem").click()
    told(page, "Thank you for telling us. Here is the next one.")
    kinds = [row.entry.kind for row in site.store.current()]
    assert (kinds.count("judged"), kinds.count("flagged"), len(site.store.log())) == (20, 1, 23)
    hold_a_dialogue(page, site)


def hold_a_dialogue(page: Page, site: Site) -> None:
    """Three turns against the two live models."""
    page.get_by_role("link", name="ayni").click()
    page.get_by_role("link", name="Write a prompt").click()
    page.get_by_text("Helpfulness:").click()
    page.get_by_label("Your prompt").fill("why rain falls on the green hill")
    page.get_by_role("button", name="Ask both models").click()
    for turn in (1, 2, 3):
        expect(page.get_by_role("heading", name="Answer B")).to_be_visible(timeout=WAIT)
        judge_by_keyboard(page, 2) if turn % 2 else judge_by_mouse(page, 7)
        told(page, "Saved. Go on with the dialogue, or end it.")
        if turn < 3:
            page.get_by_label("Your next message").fill(f"who may sing at night {turn}")
            page.keyboard.press("Control+Enter")
    page.get_by_role("button", name="End the dialogue").click()
    told(page, "The dialogue is kept. Thank you!")
    (dialogue,) = site.store.dialogues(next(each.id for each in site.store.annotators() if each.name == "Rosa"))
    assert [turn.turn for turn in dialogue.turns] == [1, 2, 3]
    assert len(dialogue.turns[-1].prompt.dialog) == 5
    assert {dialogue.turns[0].model_a[-7:], dialogue.turns[0].model_b[-7:]} == {"model-0", "model-1"}
    assert site.store.check() == []


def test_the_admin_page_shows_it(chromium: Browser, site: Site) -> None:
    page = site.visit(chromium, "Boss", "admin")
    page.get_by_role("link", name="Collection").click()
    boxes = page.locator(".numbers div")
    numbers = dict(zip(boxes.locator("dt").all_inner_texts(), boxes.locator("dd").all_inner_texts(), strict=True))
    assert (numbers["comparisons"], numbers["flagged"], numbers["turns of dialogues"]) == ("22", "1", "3")
    expect(page.get_by_role("row", name="Rosa")).to_contain_text("23")
    page.get_by_label("Name").fill("Inti")
    page.get_by_role("button", name="Make an invitation").click()
    link = re.compile(rf"{re.escape(site.address)}/sign-in\?invitation=\S{{40,}}")
    expect(page.get_by_label("Invitation for Inti")).to_have_value(link, timeout=WAIT)


PAGES = ("/", "/judge?batch=week-03", "/write?batch=week-03", "/admin", "/sign-in?invitation=x")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(
    chromium: Browser, site: Site, axe: str, size: tuple[int, int], scheme: Any
) -> None:
    viewport: Any = {"width": size[0], "height": size[1]}
    page = site.visit(chromium, f"Wayra {scheme} {size[0]}", "admin", viewport=viewport, color_scheme=scheme)
    for path in PAGES:
        page.goto(site.address + path)
        for details in page.locator("details").all():
            details.evaluate("each => { each.open = true; }")
        page.evaluate(axe)
        found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
        serious = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]
        assert serious == [], json.dumps(serious, indent=1)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], path


def test_a_visit_without_javascript(chromium: Browser, site: Site) -> None:
    page = site.visit(chromium, "Killa", java_script_enabled=False)
    page.goto(f"{site.address}/judge?batch=week-03")
    judge_by_mouse(page, 5)
    told(page, "Saved. Here is the next one.")
    page.get_by_role("button", name="Undo the last one").click()
    told(page, "Taken back. Judge it again, or skip it.")


def test_only_the_tab_key_the_arrows_and_the_space_bar(chromium: Browser, site: Site) -> None:
    page = site.visit(chromium, "Quilla")
    page.goto(f"{site.address}/judge?batch=week-03")
    page.get_by_text("Use these keys").evaluate("label => { label.closest('details').open = true; }")
    page.get_by_label("Use these keys").uncheck()
    page.keyboard.press("2")  # turned off
    assert page.locator("input:checked[name=choice]").count() == 0
    safety = page.locator(".labels").count()
    while not page.evaluate("document.activeElement.name === 'choice'"):
        if page.evaluate("(document.activeElement.name || '').startsWith('safety') && !document.activeElement.checked"):
            page.keyboard.press("Space")
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")  # a form is sent by Enter in a radio button, without any script
    told(page, "Saved. Here is the next one.")
    assert safety in (0, 2)


def test_hostile_answers_do_nothing(chromium: Browser, site: Site) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>\u202e gnp.exe </textarea>" + "x" * 1_000_000
    site.store.add_batch(Batch("hostile", hostile[:200]), [item("evil", hostile, hostile[::-1], hostile[:300])])
    page = site.visit(chromium, "Amaru", viewport={"width": PHONE[0], "height": PHONE[1]})
    page.goto(f"{site.address}/judge?batch=hostile")
    assert page.locator("main img, main script").count() == 0
    expect(page.locator(".turn .unseen").first).to_be_visible(timeout=WAIT)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    assert page.evaluate("document.documentElement.scrollHeight") < 4000
    judge_by_mouse(page, 3)
    expect(page.get_by_text("that was all")).to_be_visible(timeout=WAIT)


def test_pictures(chromium: Browser, site: Site) -> None:
    """What the documentation shows."""
    for name, (width, height) in (("desktop", DESKTOP), ("phone", PHONE)):
        page = site.visit(chromium, "Rosa Quispe", viewport={"width": width, "height": height})
        for number in range(3):
            page.goto(f"{site.address}/judge?batch=week-03")
            judge_by_keyboard(page, 3 + number)
            told(page, "Saved. Here is the next one.")
        page.keyboard.press("2")
        path = PICTURES / f"annotate-{name}.png"
        page.screenshot(path=path, full_page=name == "phone", animations="disabled")
        assert path.stat().st_size > 20_000
        page.context.close()
