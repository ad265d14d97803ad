"""The browser and the page that the tests of this folder ask for: a plugin, as a conftest would hide that of tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from browser_site import GUIDELINES, Site, members, quality, whole_site
from conftest import not_here
from playwright.sync_api import Browser, sync_playwright

from ayni.cli.annotate import loaded_talk
from ayni.feedback.entries import PreferenceBatch
from ayni.feedback.store import open_store
from ayni.model_directory import save_model

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
# Without a sandbox, as root needs it; without all that would talk to anybody but the page.
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
AXE = Path(__file__).parents[2] / ".venv" / "axe.min.js"


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, which looks for what people with disabilities would stumble over."""
    return AXE.read_text(encoding="utf-8") if AXE.is_file() else not_here(f"{AXE} is missing: make test-browser")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        not_here("no Chromium; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A batch of 22 items for four people each, every seventh for safety, and two live models."""
    directory = tmp_path_factory.mktemp("page")
    for seed in (0, 1):
        policy = tiny.policy(seed, context=512)
        save_model(directory / f"model-{seed}", policy.role.model, policy.tokenizer)
    talk = loaded_talk([directory / "model-0", directory / "model-1"], [0.7, 1.0], 24, 0)
    with open_store(str(directory / "page.db")) as store:
        batch = PreferenceBatch("week-03", GUIDELINES, task_mix={"helpfulness": 0.8, "safety": 0.2})
        store.add_batch(batch, members())
        with whole_site(store, talk, quality) as made:
            yield made
