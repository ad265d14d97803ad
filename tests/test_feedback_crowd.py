"""Judgements over HTTP, forms sent twice, kills, a full disk, idle sockets: a small version of `make test-load`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from crowd import Plan, load, losses

from ayni.feedback.store import open_store


def test_nothing_acknowledged_is_lost_or_doubled(new_address: Callable[[], str], tmp_path: Path) -> None:
    address, plan = new_address(), Plan(people=4, each=12, kills=2, full_disks=1, restarts=1, idle=50, doubles=0.4)
    outcome, lost = load(address, plan, tmp_path / "log", getattr(new_address, "restart", None))
    assert lost == []
    assert (outcome.saved, outcome.kills) == (48, 2)
    assert sum(person.twice for person in outcome.people) >= 10
    assert sum(person.browser.retries for person in outcome.people) >= 2, "the kills were felt"
    with open_store(address) as store:  # and the comparison itself can fail
        ann = outcome.people[0]
        submission, (name, choice) = ann.saved.popitem()
        assert losses(store, outcome) == [f"nobody was told of {submission}"]
        ann.saved[submission] = (name, str(9 - int(choice)))
        ann.saved["f" * 32] = (name, choice)
        assert losses(store, outcome) == [f"changed: {ann.name} of {name}", f"lost: {ann.name} of {name}"]
        del ann.saved["f" * 32]
        annotator_id = next(each.id for each in store.annotators() if each.name == ann.name)
        ann.saved |= {submission: (name, choice)}
        again = replace(store.standing(name, annotator_id).entry, submission="again")
        store.record(again)
        assert losses(store, outcome) == ["somebody judged an item twice", "nobody was told of again"]
