"""Waiting for people: the page is served beside until the batch is full or somebody closes it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from ayni.errors import BadInput
from ayni.feedback.entries import Annotator, BatchProgress
from ayni.feedback.page.app import app
from ayni.feedback.page.serving import host_names, listening, origin, served
from ayni.feedback.page.views import Quality, Talk
from ayni.feedback.store import Store

POLL = 1.0  # seconds between looks at how full the batch is


def wait_until_judged(
    store: Store,
    batch_id: str,
    *,
    alone: str | None = None,
    show: Callable[[BatchProgress], None],
) -> None:
    """Until the batch is full or closed, or nothing is left for the annotator who judges it `alone`, skips included.

    `show` hears how far it is whenever that changes.
    """
    before = None
    while True:
        now = store.progress(batch_id)
        if now != before:
            show(now)
            before = now
        over = now.full or store.batch(batch_id).closed_at is not None
        if over or (alone is not None and store.next_item(alone, batch_id) is None):
            return
        time.sleep(POLL)


def ask_people(
    store: Store,
    batch_id: str,
    page: str | None,
    *,
    talk: Talk | None = None,
    quality: Quality,
    say: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> None:
    """Waits until people have judged the batch, on a `page` at HOST:PORT of this machine (where whoever sits at it
    judges alone), or where somebody else serves the store."""
    with contextlib.ExitStack() as stack:
        where, me = "where `ayni annotate` serves this store", None
        if page is not None:
            me = store.enrol("me", "admin")
            where = f"at {stack.enter_context(page_at(page, store, me, talk=talk, quality=quality))}"
        say(f"people judge {where}; this goes on when batch {batch_id} is full")
        say("closing it on the admin page takes what is there; Ctrl-C stops, and the same command goes on")
        alone = None if me is None else me.id
        wait_until_judged(store, batch_id, alone=alone, show=lambda now: progress(now.done, now.wanted))


@contextlib.contextmanager
def page_at(address: str, store: Store, local: Annotator, *, talk: Talk | None, quality: Quality) -> Iterator[str]:
    """The page at HOST:PORT of this machine, for `local`, who sits at it, while the body runs; yields its address."""
    with listening(*host_and_port(address)) as bound:
        names = host_names(host_and_port(address)[0], ())
        page = app(store, host_names=names, talk=talk, quality=quality, require_login=False, local=local)
        with served(page, bound):
            yield f"{origin(names[0], bound.getsockname()[1], False)}/"


def host_and_port(address: str) -> tuple[str, int]:
    """HOST:PORT apart; BadInput for anything else."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise BadInput(f"{address!r} is not HOST:PORT", field="page", fix="write 127.0.0.1:8080")
    return host.strip("[]"), int(port)
