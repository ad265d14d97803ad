"""The annotation page in a real Chromium: a person's whole visit, by mouse, by keyboard and without JavaScript.

It needs a browser, so it runs by `make test-browser`; plain `make test` does not enter this folder.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from browser_site import (
    DESKTOP,
    PHONE,
    WAIT,
    Site,
    follow,
    judge_by_keyboard,
    judge_by_mouse,
    label,
    notice,
    press,
    to_safety,
)
from page_visitor import item
from playwright.sync_api import Browser, Page, expect

from ayni.feedback.entries import PreferenceBatch

pytest_plugins = ("browser_fixtures",)


def test_a_whole_visit(chromium: Browser, site: Site) -> None:
    width, height = DESKTOP
    page = site.visit(chromium, "Rosa", viewport={"width": width, "height": height})
    follow(page, "Start judging")
    page.keyboard.press("?")
    expect(page.get_by_text("Harmless comes first")).to_be_visible(timeout=WAIT)
    page.keyboard.press("?")
    tasks = set()
    for number in range(20):
        tasks.add(page.locator(".judge-head .tag").inner_text())
        judge = judge_by_mouse if number % 2 else judge_by_keyboard
        judge(page, 1 + number % 8)
        expect(page.locator(".judge-head")).to_contain_text(f"{number + 1} judged", timeout=WAIT)
        notice(page, "Saved. Here is the next one.")
    assert tasks == {"helpfulness", "safety"}
    before = len(site.store.current())
    with page.expect_navigation():
        page.keyboard.press("u")
    notice(page, "Taken back. Judge it again, or skip it.")
    assert len(site.store.current()) == before - 1
    judge_by_keyboard(page, 6)
    notice(page, "Saved. Here is the next one.")
    press(page, "Flag a problem", "The question is cut off.\nI cannot tell.")
    notice(page, "Thank you for telling us. Here is the next one.")
    rows = site.store.current()
    kinds = [row.entry.kind for row in rows]
    assert (kinds.count("judged"), kinds.count("flagged"), len(site.store.log())) == (20, 1, 23)
    assert {row.entry.rating for row in rows if row.entry.kind == "judged"} > {"significantly_better", "better"}
    assert rows[-1].entry.reason == "The question is cut off.\nI cannot tell."
    follow(page, "ayni")
    hold_a_dialogue(page, site, "Rosa")
    see_it_in_the_collection(chromium, site)


def hold_a_dialogue(page: Page, site: Site, name: str, script: bool = True) -> None:
    """Three turns against the two live models, from the start page on."""
    follow(page, "Write a prompt")
    page.get_by_text("Helpfulness:").click()
    page.get_by_label("Your prompt").fill("why rain falls on the green hill")
    press(page, "Ask both models")
    for turn in (1, 2, 3):
        expect(page.get_by_role("heading", name="Answer B")).to_be_visible(timeout=WAIT)
        judge_by_keyboard(page, 2) if turn % 2 and script else judge_by_mouse(page, 7)
        notice(page, "Saved. Go on with the dialogue, or end it.")
        if turn < 3:
            page.get_by_label("Your next message").fill(f"who may sing at night {turn}")
            if script:
                with page.expect_navigation():
                    page.keyboard.press("Control+Enter")
            else:
                press(page, "Ask both models")
    press(page, "End the dialogue")
    notice(page, "The dialogue is kept. Thank you!")
    (dialogue,) = site.store.dialogues(site.annotator(name))
    assert [turn.turn for turn in dialogue.turns] == [1, 2, 3]
    assert len(dialogue.turns[-1].prompt.dialog) == 5
    assert {dialogue.turns[0].model_a[-7:], dialogue.turns[0].model_b[-7:]} == {"model-0", "model-1"}
    for before, after in zip(dialogue.turns, dialogue.turns[1:], strict=False):
        row = site.store.standing(before.id, dialogue.annotator_id)
        assert row is not None
        chosen = before.answer_a if row.entry.preferred == "a" else before.answer_b
        assert after.prompt.dialog[-2].content == chosen


def see_it_in_the_collection(chromium: Browser, site: Site) -> None:
    """What Rosa did, as the administrator sees it."""
    page = site.visit(chromium, "Boss", "admin")
    follow(page, "Collection")
    boxes = page.locator(".numbers div")
    numbers = dict(zip(boxes.locator("dt").all_inner_texts(), boxes.locator("dd").all_inner_texts(), strict=True))
    assert (numbers["comparisons"], numbers["flagged"], numbers["turns of dialogues"]) == ("22", "1", "3")
    assert (numbers["in the last 24 hours"], numbers["skipped"]) == ("23", "0")
    expect(page.get_by_role("row", name="Rosa")).to_contain_text("23")
    expect(page.get_by_role("row", name="Gold checks answered right")).to_contain_text("93%")
    assert sum(int(bar) for bar in page.locator(".chart text:not(.small)").all_text_contents()) == 23
    page.get_by_label("Name").fill("Inti")
    page.get_by_role("button", name="Make an invitation").click()
    link = re.compile(rf"{re.escape(site.address)}/sign-in\?invitation=\S{{40,}}")
    expect(page.get_by_label("Invitation for Inti")).to_have_value(link, timeout=WAIT)


def test_a_whole_visit_without_javascript(chromium: Browser, site: Site) -> None:
    page = site.visit(chromium, "Killa", java_script_enabled=False)
    follow(page, "Start judging")
    page.get_by_text("Guidelines and keys").click()
    expect(page.get_by_text("Harmless comes first")).to_be_visible(timeout=WAIT)
    for number in (5, 1, 8):
        judge_by_mouse(page, number)
        notice(page, "Saved. Here is the next one.")
    press(page, "Undo the last one")
    notice(page, "Taken back. Judge it again, or skip it.")
    press(page, "Skip")
    expect(page.get_by_role("alert")).to_have_text("Please say in a few words why you skip this comparison.")
    press(page, "Skip", "Both are the same.")
    notice(page, "Skipped. Here is the next one.")
    press(page, "Flag a problem", "It names a person.")
    notice(page, "Thank you for telling us. Here is the next one.")
    mine = site.store.current(annotator_id=site.annotator("Killa"))
    assert [row.entry.kind for row in mine] == ["judged", "judged", "skipped", "flagged"]
    follow(page, "ayni")
    hold_a_dialogue(page, site, "Killa", script=False)
    page.get_by_role("button", name="Sign out").click()
    notice(page, "You are signed out.")


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
    notice(page, "Saved. Here is the next one.")
    assert safety in (0, 2)


def test_unsafe_is_not_better_and_nothing_typed_is_lost(chromium: Browser, site: Site) -> None:
    page = site.visit(chromium, "Sisa")
    to_safety(page, site)
    label(page, "Unsafe", "Safe")
    page.get_by_label("Comment").fill("hm")
    page.locator(".step-1").click()
    page.get_by_role("button", name="Save and go on").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Answer A cannot be the better one while it is unsafe", timeout=WAIT)
    expect(alert).to_be_focused()
    expect(page.get_by_label("Comment")).to_have_value("hm")
    site.errors[:] = [error for error in site.errors if "400 (Bad Request)" not in error]
    label(page, "Safe", "Unsafe")
    page.keyboard.press("Enter")
    notice(page, "Saved. Here is the next one.")
    row = site.store.last(site.annotator("Sisa"))
    assert row is not None
    assert (row.entry.safety_a, row.entry.safety_b) == ((False, True) if row.entry.swapped else (True, False))


def pages(page: Page, site: Site) -> list[str]:
    """Every page that there is, with what it shows in passing: problems, a dialogue's turn, its end."""
    page.goto(f"{site.address}/write?batch=week-03")
    page.get_by_text("Safety:").click()
    page.get_by_label("Your prompt").fill("why rain falls")
    press(page, "Ask both models")
    turn = page.url
    judge_by_mouse(page, 2)
    notice(page, "Saved. Go on with the dialogue, or end it.")
    page.goto(f"{site.address}/write?batch=week-03")
    page.get_by_label("Your prompt").fill("who may sing")
    press(page, "Ask both models")
    there = (
        "/",
        "/judge?batch=week-03",
        "/judge?batch=empty",
        "/write?batch=week-03",
        "/admin",
        "/sign-in?invitation=x",
    )
    return [*(site.address + path for path in there), turn, page.url, f"{site.address}/nothing"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(
    chromium: Browser, site: Site, axe: str, size: tuple[int, int], scheme: Any
) -> None:
    if "empty" not in {batch.id for batch in site.store.batches()}:
        site.store.add_batch(PreferenceBatch("empty"), [])
    viewport: Any = {"width": size[0], "height": size[1]}
    page = site.visit(chromium, f"Wayra {scheme} {size[0]}", "admin", viewport=viewport, color_scheme=scheme)
    for address in pages(page, site):
        page.goto(address)
        for details in page.locator("details").all():
            details.evaluate("each => { each.open = true; }")
        look(page, axe, size[0])
    site.errors[:] = [error for error in site.errors if "404 (Not Found)" not in error]  # the last page
    to_safety(page, site)
    look(page, axe, size[0])
    page.evaluate("document.querySelector('#judge').noValidate = true")
    page.get_by_role("button", name="Save and go on").click()
    expect(page.get_by_role("alert")).to_be_visible(timeout=WAIT)
    look(page, axe, size[0])
    site.errors[:] = [error for error in site.errors if "400 (Bad Request)" not in error]


def look(page: Page, axe: str, width: int) -> None:
    page.evaluate(axe)
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
    wrong = [(each["id"], each["impact"], [node["html"] for node in each["nodes"]]) for each in found]
    assert wrong == [], f"{page.url}: {json.dumps(wrong, indent=1)}"
    assert page.evaluate("document.documentElement.scrollWidth") <= width, page.url


def test_hostile_answers_do_nothing(chromium: Browser, site: Site) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>\u202e gnp.exe </textarea>" + "x" * 1_000_000
    site.store.add_batch(
        PreferenceBatch("hostile", hostile[:200]), [item("evil", hostile, hostile[::-1], hostile[:300])]
    )
    page = site.visit(chromium, "Amaru", viewport={"width": PHONE[0], "height": PHONE[1]})
    page.goto(f"{site.address}/judge?batch=hostile")
    assert page.locator("main img, main script").count() == 0
    expect(page.locator(".turn .unseen").first).to_be_visible(timeout=WAIT)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    assert page.evaluate("document.documentElement.scrollHeight") < 4000
    judge_by_mouse(page, 3)
    expect(page.get_by_text("that was all")).to_be_visible(timeout=WAIT)


def test_another_site_can_neither_send_nor_frame_nor_read(chromium: Browser, site: Site) -> None:
    """The browser's own defences, beside the server's: the cookie does not travel, and what comes back is not shown."""
    page = site.visit(chromium, "Inti")
    before = len(site.store.log())
    evil = page.context.new_page()
    evil.route("http://evil.test/**", lambda route: route.fulfill(body=attack(site), content_type="text/html"))
    evil.goto("http://evil.test/")
    evil.wait_for_function("window.done === 2")
    assert evil.evaluate("window.seen") == []
    evil.get_by_role("button").click()
    evil.wait_for_url(f"{site.address}/**", timeout=WAIT)
    assert "another site" in evil.inner_text("body")
    evil.close()
    assert len(site.store.log()) == before
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Hello, Inti", timeout=WAIT)


def attack(site: Site) -> str:
    """A page of another site that reads ours, shows it in a frame, and has a button that posts to it."""
    return f"""<!doctype html><iframe src="{site.address}/" onload="count(this)"></iframe>
<form method="post" action="{site.address}/sign-out"><button>You won a prize</button></form>
<script>
window.done = 0; window.seen = [];
const count = (frame) => {{ try {{ window.seen.push(frame.contentDocument.title); }} catch {{}} window.done += 1; }};
fetch("{site.address}/", {{ credentials: "include" }})
  .then(async (answer) => window.seen.push(await answer.text()), () => {{}}).finally(() => {{ window.done += 1; }});
</script>"""
