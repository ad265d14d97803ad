"""Gold checks are hidden: who sees all that the page sends tells them from other items no better than a coin does."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path

import pytest
from feedback_cases import judgement
from page_visitor import Visitor, site
from sqlalchemy import event

from ayni.feedback import queue
from ayni.feedback.entries import Item, PreferenceBatch
from ayni.feedback.page import judge
from ayni.feedback.page.views import Call
from ayni.feedback.pairs import Asked, Plan, with_checks
from ayni.feedback.store import Store, open_store
from ayni.maths.statistics import proportion
from ayni.records import Comparison, Message, Prompt
from ayni.seeds import rng, seed_of

PLAN = Plan(0, "collect", "week-1", 0.0, 0.0, overlap=1, overlap_share=0.0, max_tokens=8)
ITEMS = 404  # half of them checks
LEAKY_ITEMS = 40

TOKENS = itertools.count()  # of forms: any will do

Seen = dict[str, Hashable]


def words(*key: object) -> str:
    """Text without a number in it: every number on a page is the page's own."""
    return " ".join("".join(row) for row in rng("words", *key).choice(list("aeioukmnprst"), (6, 5)))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Annotators' ids are drawn by lot; here always the same, for an adversary who is always as lucky."""
    ids = itertools.count()
    monkeypatch.setattr("ayni.feedback.accounts.secrets.token_hex", lambda _: f"annotator{next(ids)}")
    with open_store(str(tmp_path / "page.db")) as made:
        yield made


def fill(store: Store, count: int) -> None:
    def prompt(sort: str, number: int) -> Prompt:
        return Prompt(f"{sort}{number}", (Message("user", words("prompt", sort, number)),))

    pairs = [prompt("pair", number) for number in range(count // 2)]
    asked = [Asked(Item(PLAN.id(p.id, 0, p.task), p, words(p.id, "a"), words(p.id, "b")), 0) for p in pairs]
    checks = [prompt("check", number) for number in range(count // 2)]
    known = [Comparison(p, words(p.id, "a"), words(p.id, "b"), rating="better") for p in checks]
    store.add_batch(PreferenceBatch("week-1"), [each.item for each in with_checks(asked, known, 1.0, PLAN)])


def shape(visitor: Visitor) -> Seen:
    """Of a page all that is not what was written in it: numbers, headers, the way there, markup, lengths."""
    answer, html = visitor.at, visitor.at.text
    for text in re.findall(r">([aeioukmnprst ]{35})<", html):
        html = html.replace(text, "…")
    html = re.sub(r'value="([0-9a-f]{16}|[0-9a-f]{32}|\d+\.\d+)"', 'value="…"', html)
    path = [re.sub(r"[0-9a-f]{16,}", "…", str(each.headers.get("location"))) for each in answer.history]
    numbers = tuple(int(number) for number in re.findall(r"\d+", html))
    rest = re.sub(r"\d+", "#", html)
    return {"numbers": numbers, "markup": rest, "headers": str(sorted(answer.headers.items())), "path": tuple(path)}


def shown_item(visitor: Visitor) -> str:
    found = re.search(r'name="item" value="([^"]*)"', visitor.at.text)
    return found[1] if found else ""


def compared(name: str, before: Seen, after: Seen) -> Seen:
    """How one page differs from another."""
    one, two = before["numbers"], after["numbers"]
    assert isinstance(one, tuple)
    assert isinstance(two, tuple)
    moved = tuple(b - a for a, b in zip(one, two, strict=True)) if len(one) == len(two) else (len(one), len(two))
    same = {f"{name} {part}": before[part] == after[part] for part in ("markup", "headers")}
    return {f"{name} numbers": moved, f"{name} path": after["path"], **same}


def observe(visitor: Visitor, store: Store, count: int) -> dict[str, Seen]:
    """item → all that an annotator can see of it while holding it, judging it, taking it back and judging it again.

    Meanwhile somebody else judges the same item: what only some items survive would show.
    """
    other, found = store.enrol("Bob").id, dict[str, Seen]()

    def look(path: str = "/judge?batch=week-1") -> Seen:
        visitor.go(path)
        return shape(visitor)

    def send(path: str, **fields: str) -> Seen:
        visitor.post(path, {"batch": "week-1", "submission": f"{next(TOKENS):032x}"} | fields)
        return shape(visitor)

    start = look("/")
    first = look()
    for number in range(count):
        if not (name := shown_item(visitor)):
            break
        assert name not in found
        store.record(judgement(f"bob-{name}", name, other))
        held = look()
        seen: Seen = {"markup": first["markup"], "held": shown_item(visitor) == name, **compared("held", first, held)}
        judged = send("/judge", item=name, choice="2")
        onward = shown_item(visitor)
        undone = send("/undo")
        seen |= {"undone": shown_item(visitor) == name, **compared("judged", first, judged)}
        seen |= compared("undone", first, undone)
        again = send("/judge", item=name, choice="3")
        seen |= {"onward": shown_item(visitor) == onward, **compared("again", judged, again)}
        before, start = start, look("/")
        seen |= compared("start", before, start)
        seen |= {f"place mod {n}": number % n for n in (2, 3, 4, 5, 7)}
        seen |= {"id": name[0], "id's end": name[-1], "id's length": len(name)}
        found[name] = seen
        first = look()
    return found


def guessed(seen: dict[str, Seen], is_check: dict[str, bool]) -> list[bool]:
    """Whether each guess was right: of every half of the items by what the other half's labels, told to the adversary
    as no annotator ever is, say of each thing seen (naive Bayes)."""
    names = sorted(seen)
    order = rng("halves", len(names)).permutation(len(names))
    halves = [[names[i] for i in order[side::2]] for side in (0, 1)]
    right = []
    for learnt, asked in (halves, halves[::-1]):
        counts = Counter((is_check[n], what, value) for n in learnt for what, value in seen[n].items())
        sizes = Counter(is_check[n] for n in learnt)
        for name in asked:
            odds = (sizes[True] + 1) / (sizes[False] + 1)
            for what, value in seen[name].items():
                odds *= (counts[True, what, value] + 1) / (sizes[True] + 2)
                odds /= (counts[False, what, value] + 1) / (sizes[False] + 2)
            right.append((odds > 1) == is_check[name])
    return right


def attack(store: Store, count: int) -> tuple[float, tuple[float, float], int]:
    """(share of guesses that were right, its 95% interval, how many)."""
    fill(store, count)
    with Visitor(site(store)) as visitor:
        seen = observe(visitor.sign_in(store.invite("Rosa")), store, count)
    checks = {item.id: item.gold is not None for item in store.items("week-1")}
    assert abs(sum(checks[name] for name in seen) - len(seen) / 2) <= 2
    right = guessed(seen, checks)
    found = proportion(sum(right), len(right))
    assert found.value is not None
    assert found.interval is not None
    return found.value, found.interval, len(right)


def test_who_sees_everything_tells_checks_no_better_than_a_coin(store: Store) -> None:
    share, (low, high), n = attack(store, ITEMS)
    assert n >= 400
    assert low <= 0.5 <= high, share


def test_a_page_is_as_long_at_any_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of 17 digits now and 16 then would let the same adversary find by chance what is not there."""
    lengths = set()
    for now in (1795416025.4654794, 1795416025.5, 1795416026.0):
        monkeypatch.setattr("ayni.feedback.page.judge.time.time", lambda now=now: now)
        lengths.add(len(judge.fresh_values()["shown"]))
    assert len(lengths) == 1


def meter(call: Call, batch: PreferenceBatch) -> dict[str, object]:
    return {"done": call.context.store.done(batch.id), "mine": 0}


def by_position(step: int, sizes: dict[str, int], key: object) -> int:
    return step // 2 + 1


def told_by_its_name(self: Plan, prompt_id: str, k: int, task: str) -> str:
    return f"{prompt_id.startswith('check'):01x}{seed_of(prompt_id, k, task):015x}"[:16]


@pytest.mark.parametrize(
    ("where", "name", "leak"),
    [
        (judge, "how_far", meter),
        (queue, "checks_due", by_position),
        (Plan, "id", told_by_its_name),
    ],
    ids=["meter", "order", "address"],
)
def test_the_same_adversary_finds_a_leak(
    store: Store, monkeypatch: pytest.MonkeyPatch, where: object, name: str, leak: Callable[..., object]
) -> None:
    monkeypatch.setattr(where, name, leak)
    share, (low, _), _ = attack(store, LEAKY_ITEMS)
    assert low > 0.5, share


def test_the_server_does_the_same_for_both(store: Store) -> None:
    """As long as the store is asked the same, nobody can measure by the clock what is behind an item."""
    fill(store, LEAKY_ITEMS)
    visitor = Visitor(site(store)).sign_in(store.invite("Rosa"))
    said: list[str] = []
    event.listen(store._database.readers, "before_cursor_execute", lambda *given: said.append(given[2]))
    by_kind: dict[bool, set[tuple[str, ...]]] = {True: set(), False: set()}
    visitor.go("/judge?batch=week-1")
    for _ in range(LEAKY_ITEMS // 2):
        fields = visitor.page.form("/judge").fields | {"kind": "judged", "choice": "2"}
        said.clear()
        visitor.go("/judge?batch=week-1")
        visitor.client.post("/judge", data=fields, follow_redirects=False)
        by_kind[store.item(fields["item"]).gold is not None].add(tuple(said))
        visitor.go("/judge?batch=week-1")
    assert by_kind[True] == by_kind[False]
