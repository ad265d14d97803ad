"""Forms and addresses that no browser of ours sends: refused with a sentence, nothing written, no error of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

import pytest
from feedback_cases import check, filled, item, judgement
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mutations import MUTATIONS
from page_visitor import Visitor, echo, person, site
from sqlalchemy import select

from ayni.feedback.page.forms import FIELDS
from ayni.feedback.schema import metadata
from ayni.feedback.store import Store, open_store

FORM = "application/x-www-form-urlencoded"
TOKEN = "0123456789abcdef" * 2
POSTED = ("/judge", "/undo", "/write", "/dialogue", "/dialogue/end", "/sign-in", "/sign-out")
RUN = ("/admin/invite", "/admin/close", "/admin/retire")
GOT = ("/", "/judge", "/write", "/dialogue", "/sign-in", "/admin", "/static/page.css", "/nothing")


@dataclass
class World:
    store: Store
    visitors: dict[str, Visitor]
    fields: dict[str, str]  # of every form, as they should be
    foreign: list[str]  # names of what is somebody else's, closed or of another kind

    def rows(self) -> list[object]:
        with self.store._database.read() as connection:
            return [connection.execute(select(table)).all() for table in metadata.sorted_tables]


@pytest.fixture(scope="module")
def world(new_address: Callable[[], str]) -> Iterator[World]:
    with open_store(new_address()) as store:
        filled(store, *(item(f"i{n}", overlap=9, task="safety" if n % 3 == 0 else "helpfulness") for n in range(9)))
        filled(store, check("gold"), item("old"), batch="closed")
        page = site(store, talk=echo)
        visitors = {name: Visitor(page, follow_redirects=False) for name in ("Ann", "Boss", "nobody")}
        for name, role in (("Ann", "annotator"), ("Boss", "admin")):
            token = store.invite(name, role)  # type: ignore[arg-type]
            visitors[name].post("/sign-in", {"invitation": token})
        ann, bob = person(store, "Ann").id, store.enrol("Bob").id
        for owner, name in ((ann, "mine"), (bob, "theirs")):
            store.start_dialogue("week-1", owner, dialogue_id=name)
            turn = store.add_turn(name, store.next_prompt(name, "Well?"), "one", "two")
            store.record(judgement(f"s-{name}", turn.id, owner))
        store.record(judgement("s", "old", bob))
        store.close_batch("closed")
        fields = {
            "submission": TOKEN, "batch": "week-1", "item": "i1", "shown": "1.5", "kind": "judged", "choice": "2",
            "safety_a": "safe", "safety_b": "safe", "comment": "why", "task": "safety", "prompt": "And?",
            "dialogue": "mine", "turn": "2", "invitation": "x", "name": "Eve", "role": "annotator", "annotator": bob,
        }  # fmt: skip
        foreign = ["closed", "old", "gold", "theirs", "theirs.1", "mine.1", "i0", ann, bob, "s", "s-theirs", "nothing"]
        with visitors["Ann"], visitors["Boss"], visitors["nobody"]:
            yield World(store, visitors, fields, foreign)
        assert store.check() == []


NASTY = st.sampled_from(
    ["", " ", "0", "-1", "9" * 400, "1e999", "nan", "٣", "\0", "a\0b", "\ud800", "\u202e", "'; DROP TABLE items; --",
     "../x", "a" * 5000, "é" * 9000, "\r\n\r\n", "%00", "null", "[]", "{}", "True", "withdrawn", "admin"]
)  # fmt: skip


def encoded(value: str) -> str:
    return quote_plus(value.encode("utf-8", "surrogatepass"))


@st.composite
def mangled(draw: st.DrawFn, fields: dict[str, str], foreign: list[str]) -> str:
    """A form or query with some fields left out, doubled, made up, of others' things, or of any text at all."""
    value = NASTY | st.sampled_from(foreign) | st.text(max_size=40) | st.sampled_from(sorted(fields.values()))
    pairs = [(name, fields[name]) for name in sorted(fields)]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(pairs) - 1)) if pairs else 0
        act = draw(st.sampled_from(["drop", "double", "change", "change", "change", "add", "many"]))
        if act == "drop" and pairs:
            del pairs[at]
        elif act == "double" and pairs:
            pairs.append((pairs[at][0], draw(value)))
        elif act == "change" and pairs:
            pairs[at] = (pairs[at][0], draw(value))
        elif act == "add":
            pairs.append((draw(st.text(max_size=9)), draw(value)))
        elif act == "many":
            pairs += [(f"f{number}", "") for number in range(FIELDS)]
    return "&".join(f"{encoded(name)}={encoded(text)}" for name, text in pairs)


def bodies(world: World) -> st.SearchStrategy[bytes]:
    whole = mangled(world.fields, world.foreign).map(str.encode)
    return whole | st.tuples(whole, st.integers(0, 400)).map(lambda cut: cut[0][: cut[1]]) | st.binary(max_size=80)


def wrong(world: World, answer: Any, before: list[object]) -> str:
    """What is wrong with this answer, `before` being what the store held when it was asked; "" for nothing."""
    if answer.status_code >= 500:
        return f"an error of ours: {answer.text}"
    if answer.status_code >= 400 and world.rows() != before:
        return "it was refused and yet something is written"
    return "a refusal without a sentence" if answer.status_code >= 400 and "." not in answer.text else ""


LONGEST = 60_000  # the client here sends no longer address
several = settings(
    max_examples=MUTATIONS, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


@several
@given(data=st.data())
def test_forms(world: World, data: st.DataObject) -> None:
    who = data.draw(st.sampled_from(sorted(world.visitors)), label="who")
    path = data.draw(st.sampled_from(POSTED + (RUN if who != "Boss" else RUN[:1])), label="path")
    body = data.draw(bodies(world), label="body")
    kind = data.draw(st.sampled_from([FORM] * 9 + ["", "text/plain", "multipart/form-data; boundary=x"]), label="kind")
    before = world.rows()
    visitor = world.visitors[who]
    if path == "/sign-out":
        visitor = Visitor(visitor.client.app)  # else they would be out for the rest
    answer = visitor.client.post(path, content=body, headers={"Content-Type": kind})
    assert wrong(world, answer, before) == ""


@several
@given(data=st.data())
def test_addresses_and_cookies(world: World, data: st.DataObject) -> None:
    who = data.draw(st.sampled_from(sorted(world.visitors)), label="who")
    path = data.draw(st.sampled_from(GOT), label="path")
    query = data.draw(mangled({"batch": "week-1", "id": "mine", "item": "i1", "notice": "saved"}, world.foreign))
    assume(len(query) < LONGEST)
    cookie = data.draw(st.none() | st.binary(max_size=30).map(lambda raw: b"ayni=" + raw.translate(None, b"\r\n\0")))
    before, headers = world.rows(), {} if cookie is None else {"Cookie": cookie}
    visitor = world.visitors[who] if cookie is None else Visitor(world.visitors[who].client.app, follow_redirects=False)
    answer = visitor.client.get(f"{path}?{query}", headers=headers)
    assert wrong(world, answer, before) == ""
    assert world.rows() == before, "who looks changes nothing"


@pytest.mark.parametrize("path", GOT)
def test_nul_in_an_address(world: World, path: str) -> None:
    """PostgreSQL cannot even be asked for it."""
    for visitor in world.visitors.values():
        for name in ("batch", "id", "item", "notice", "invitation", "other"):
            assert visitor.client.get(f"{path}?{name}=x%00y").status_code in (200, 403, 404)
