"""What the documentation shows. With AYNI_PICTURES=1 the pictures go to docs/pictures, otherwise nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_site import BREAD, DESKTOP, DOG, GUIDELINES, PHONE, Site, judge_by_keyboard, notice, press, whole_site
from page_visitor import item
from playwright.sync_api import Browser, Page

from ayni.feedback.entries import Entry, GoldCheck, Item, PreferenceBatch, shown_swapped
from ayni.feedback.store import Store, open_store
from ayni.quality.page_measures import quality_of
from ayni.records import RATINGS, Dialog
from ayni.seeds import rng

pytest_plugins = ("browser_fixtures",)
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
PEOPLE = {"Illari": 0.7, "Sami Condori": 0.9, "Tupaq Mamani": 1.1, "Urpi": 1.0, "Yana": 3.5}  # how unsure they are
TOMATOES = (
    "Which vegetables can I grow on a small balcony that gets sun only in the morning?",
    (
        "Lettuce, spinach, radishes, spring onions and most herbs do well with four hours of morning sun. Begin with "
        "lettuce and radishes: they forgive mistakes, and you harvest after four to six weeks.",
        "Tomatoes and peppers are great for balconies! Plant them in large pots and water them every day.",
    ),
    "And how deep do the pots have to be?",
    (
        "For lettuce and radishes 15 cm are enough, for spinach and spring onions 20 cm. What matters more is a hole "
        "in the bottom, so that water can run off.",
        "Pots should be deep. The deeper the pot, the better the plant.",
    ),
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A collection well under way: five people, checks, a batch that is closed."""
    with open_store(str(tmp_path_factory.mktemp("pictures") / "page.db")) as store:
        for name, share in (("week-02", 1.0), ("week-03", 0.55)):
            mix = {"helpfulness": 0.75, "safety": 0.25}
            store.add_batch(PreferenceBatch(name, GUIDELINES, task_mix=mix), members(name))
            for person, unsure in PEOPLE.items():
                judge_some(store, name, store.enrol(person).id, unsure, share)
        store.close_batch("week-02")
        with whole_site(store, talk, quality_of) as site:
            yield site


def members(batch: str) -> list[Item]:
    made = []
    for number in range(80):
        prompt, long, short = DOG if number % 4 == 1 else BREAD
        task = "safety" if number % 4 == 1 else "helpfulness"
        gold = GoldCheck("a", "significantly_better") if number % 8 == 5 else None
        made.append(item(f"{batch}-{number}", long, short, prompt, task=task, overlap=3, gold=gold))
    return made


def judge_some(store: Store, batch: str, annotator_id: str, unsure: float, share: float) -> None:
    """As people with noise would: the better answer mostly, by a degree that varies from item to item."""
    draw = rng("pictures", batch, unsure)
    for number in range(round(80 * share)):
        following = store.next_item(annotator_id, batch)
        if following is None:
            return
        if draw.random() < 0.03:
            fields: dict[str, Any] = {"kind": "flagged", "reason": "Both answers are cut off."}
        else:
            worth = 1.2 if following.gold else rng("worth", following.id).normal(0.2, 1.6)
            felt = float(worth + unsure * draw.normal())
            rating = RATINGS[3 - sum(abs(felt) > edge for edge in (0.5, 1.1, 2.0))]
            fields = {"preferred": "a" if felt > 0 else "b", "rating": rating}
            fields["swapped"] = shown_swapped(following.id, annotator_id)
            if following.task == "safety":
                fields |= {"safety_a": felt > -1, "safety_b": felt < 1}
        seconds = round(float(draw.lognormal(3.6, 0.5)), 1)
        store.record(Entry(f"{batch}-{annotator_id}-{number}", following.id, annotator_id, seconds=seconds, **fields))


def talk(dialog: Dialog, task: str) -> tuple[str, str, str, str, dict[str, Any], dict[str, Any]]:
    """What two good models say of tomatoes."""
    a, b = TOMATOES[1] if len(dialog) == 1 else TOMATOES[3]
    return a, b, "new", "old", {"temperature": 0.7}, {"temperature": 1.0}


def test_pictures(chromium: Browser, filled: Site, tmp_path: Path) -> None:
    into = PICTURES if os.environ.get("AYNI_PICTURES") else tmp_path
    for name, (width, height), person in (("desktop", DESKTOP, "Rosa Quispe"), ("phone", PHONE, "Inti Huamán")):
        page = filled.visit(chromium, person, "admin", viewport={"width": width, "height": height})
        judge(page, filled, "helpfulness")
        page.keyboard.press("2")
        take(page, into / f"annotate-{name}.png")
        if name == "desktop":
            judge(page, filled, "safety")
            label_rightly(page)
            take(page, into / "annotate-safety.png")
            page.goto(f"{filled.address}/admin")
            take(page, into / "collection.png")
        else:
            talk_to_models(page, filled)
            take(page, into / "annotate-dialogue.png")
        page.context.close()
    for name in ("annotate-desktop", "annotate-safety", "collection", "annotate-phone", "annotate-dialogue"):
        assert (into / f"{name}.png").stat().st_size > 10_000, name  # an empty page is smaller


def judge(page: Page, site: Site, task: str) -> None:
    """On to a comparison of this task."""
    page.goto(f"{site.address}/judge?batch=week-03")
    while page.locator(".judge-head .tag").inner_text() != task:
        judge_by_keyboard(page, 3)
        notice(page, "Saved. Here is the next one.")


def label_rightly(page: Page) -> None:
    """The answer that would poison a dog is the unsafe one, wherever it stands."""
    unsafe = page.locator(".answer", has_text="in its food").get_attribute("aria-labelledby")
    for key in ("a", "a", "b", "8") if unsafe == "head-A" else ("a", "b", "b", "1"):
        page.keyboard.press(key)


def talk_to_models(page: Page, site: Site) -> None:
    page.goto(f"{site.address}/write?batch=week-03")
    page.get_by_label("Your prompt").fill(TOMATOES[0])
    press(page, "Ask both models")
    better = page.locator(".answer", has_text="Lettuce, spinach").get_attribute("aria-labelledby")
    judge_by_keyboard(page, 2 if better == "head-A" else 7)
    page.get_by_label("Your next message").fill(TOMATOES[2])
    press(page, "Ask both models")


def take(page: Page, path: Path) -> None:
    page.screenshot(path=path, full_page=True, animations="disabled")
    assert path.stat().st_size > 10_000
