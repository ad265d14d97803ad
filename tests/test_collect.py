"""Batches of comparisons: from models to items, judged by the village or by people, in a store, and out as records."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import tiny
from page_visitor import Page
from small_stages import Small, prepare

from ayni.errors import AyniError, BadInput
from ayni.feedback.entries import Entry
from ayni.feedback.pairs import Plan, matched, pairs, with_checks
from ayni.feedback.store import Store, open_store
from ayni.files import write_jsonl
from ayni.formats.reading import read_comparisons
from ayni.records import Comparison, Message, Prompt, Sample, root_of, to_dict
from ayni.stages.collect import easiest, simulated_entry
from ayni.village.annotators import Opinion
from ayni.village.village import village_of


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    directory = tmp_path_factory.mktemp("inputs")
    stage = prepare(directory)["collect"]
    write_jsonl(directory / "checks.jsonl", map(to_dict, village_of(7).checks(8)))
    return Small("collect", stage.settings, {**stage.inputs, "checks": [directory / "checks.jsonl"]})


def plan(**changed: Any) -> Plan:
    return Plan(**{
        "seed": 1, "stage": "collect", "batch": "1", "helpfulness_share": 0.5, "heldout_share": 0.25, "overlap": 1,
        "overlap_share": 1.0, "max_tokens": 8, **changed,
    })  # fmt: skip


def sample(prompt: Prompt, text: str, model: str) -> Sample:
    return Sample(prompt.id, prompt.task, (1,), (5,), (-1.0,), text, "stop", model)


def asked_of(prompts: list[Prompt], n: int = 2) -> tuple[list[list[Sample]], list[list[Sample]]]:
    new, old = ([[sample(p, f"{model} {k}", model) for k in range(n)] for p in prompts] for model in ("new", "old"))
    return new, old


def test_the_easiest_prompts_are_short_and_of_one_turn() -> None:
    def prompt(id: str, *texts: str) -> Prompt:
        return Prompt(id, tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)))

    asked = [prompt("long", "a a a a"), prompt("talk", "a", "b", "c"), prompt("short", "a"), prompt("middle", "a a")]
    assert [p.id for p in easiest(asked, 0.5)] == ["short", "middle"]
    assert [p.id for p in easiest(asked, 0.75)] == ["long", "short", "middle"]
    assert easiest(asked, 1.0) == asked


def test_some_pairs_are_matched_to_differ_in_little() -> None:
    (prompt,) = tiny.prompts(1)
    first = [sample(prompt, text, "new") for text in ("Ben has a red hat.", "I do not know.", "No.", "Go away!")]
    second = [sample(prompt, text, "old") for text in ("Go away!", "I do not care.", "Ben has a blue hat.", "Yes.")]
    texts = lambda share: [(a.text, b.text) for a, b in matched(first, second, share)]  # noqa: E731
    assert texts(0) == list(zip([s.text for s in first], [s.text for s in second], strict=True))
    assert texts(0.25)[0] == ("Ben has a red hat.", "Ben has a blue hat.")
    assert [b for _, b in texts(0.25)[1:]] == ["Go away!", "I do not care.", "Yes."]  # the others as they were drawn
    assert texts(0.5)[:2] == [("Ben has a red hat.", "Ben has a blue hat."), ("I do not know.", "I do not care.")]
    for share in (0, 0.25, 0.5, 1):  # every answer once; equal ones are no likeness
        assert Counter(b for _, b in texts(share)) == Counter(s.text for s in second)
    assert ("Go away!", "Go away!") not in texts(0.5)


def test_every_pair_is_asked_once_for_each_guideline() -> None:
    prompts = [*tiny.prompts(40), *tiny.prompts(40, seed=1, task="safety")]
    asked = [each.item for each in pairs(prompts, *asked_of(prompts), plan())]
    tasks = Counter((item.prompt.task, item.task) for item in asked)
    assert tasks["helpfulness", "helpfulness"] == tasks["safety", "safety"] == 80
    assert 25 <= tasks["safety", "helpfulness"] <= 55
    assert tasks["helpfulness", "safety"] == 0
    assert len({item.id for item in asked}) == len(asked)
    held, others = ({root_of(i.prompt.dialog) for i in asked if i.heldout is side} for side in (True, False))
    assert len(held) == round(0.25 * len(held | others)) > 10
    assert not held & others
    assert {(item.model_a, item.model_b) for item in asked} == {("new", "old")}
    assert asked[0].sampling_a == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 8, "seed": 0, "finished": "stop"}


def test_equal_and_empty_answers_make_no_pair_and_nul_is_spelt() -> None:
    prompts = tiny.prompts(4)
    answers = [["same", "same \n"], ["", "b"], ["a", " \n"], ["a\0", "b"]]
    first, second = ([[sample(p, a[side], "m")] for p, a in zip(prompts, answers, strict=True)] for side in (0, 1))
    (only,) = pairs(prompts, first, second, plan())
    assert (only.item.answer_a, only.item.answer_b) == ("a\ufffd", "b")


def test_some_pairs_are_judged_by_several() -> None:
    prompts = tiny.prompts(200)
    asked = pairs(prompts, *asked_of(prompts), plan(overlap=3, overlap_share=0.2))
    assert {each.item.overlap for each in asked} == {1, 3}
    assert 0.13 <= sum(each.item.overlap == 3 for each in asked) / len(asked) <= 0.27


def test_checks_are_spread_among_the_pairs() -> None:
    prompts = tiny.prompts(50)
    asked = pairs(prompts, *asked_of(prompts), plan())
    checks = [Comparison(p, "right", "wrong", rating="better") for p in tiny.prompts(30, seed=5)]
    mixed = [each.item for each in with_checks(asked, checks, 0.1, plan())]
    at = [i for i, item in enumerate(mixed) if item.gold is not None]
    assert len(at) == 10
    assert all(5 <= b - a <= 13 for a, b in itertools.pairwise(at))
    for item in (mixed[i] for i in at):
        assert item.gold is not None
        assert (item.answer_a if item.gold.preferred == "a" else item.answer_b) == "right"
    assert {mixed[i].gold.preferred for i in at} == {"a", "b"}  # type: ignore[union-attr]
    assert [item for item in mixed if item.gold is None] == [each.item for each in asked]
    same = [Comparison(asked[0].item.prompt, "right", "wrong")]
    (beside,) = [each.item for each in with_checks(asked, same, 0.1, plan()) if each.item.gold is not None]
    for item, k in (*((mixed[i], 0) for i in at), (beside, 2)):
        assert item.id == plan().id(item.prompt.id, k, item.task), "named as the next pair of its prompt would be"


def test_the_village_says_the_same_in_a_store_or_out_of_it(small: Small, tmp_path: Path) -> None:
    small.execute(tmp_path / "plain")
    small.execute(tmp_path / "kept", store="votes.db")
    for name in ("records.jsonl", "heldout.jsonl"):
        assert len(read_comparisons(tmp_path / "plain" / name)) > 3
        assert (tmp_path / "kept" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    with open_store(str(tmp_path / "votes.db")) as store:
        (batch,) = store.batches()
        assert batch.closed_at is not None
        assert batch.settings["models"] == ["policy", "policy"]
        rows = store.current("1")
        assert {row.entry.source for row in rows} == {"village"}
        assert 0.3 <= sum(row.entry.swapped for row in rows) / len(rows) <= 0.7
        checks = [row for row in rows if row.item.gold is not None]
        panel = {a.name for a in store.annotators()}
        by_check = Counter(row.item.id for row in checks)
        assert set(by_check.values()) == {len(panel)}  # everybody sees every check
        right = [row.entry.preferred == row.item.gold.preferred for row in checks if row.item.gold]
        assert sum(right) / len(right) > 0.8
        assert store.check() == []


def test_an_opinion_speaks_of_what_stood_first() -> None:
    asked = pairs(tiny.prompts(1, task="safety"), *asked_of(tiny.prompts(1, task="safety"), 1), plan())[0].item
    opinion = Opinion(True, "better", (True, False))
    straight, swapped = (simulated_entry(opinion, asked, "Klara", swapped) for swapped in (False, True))
    assert (straight.preferred, straight.safety_a, straight.safety_b) == ("a", True, False)
    assert (swapped.preferred, swapped.safety_a, swapped.safety_b) == ("b", False, True)
    against = simulated_entry(Opinion(False, "better", (True, False)), asked, "Klara", False)
    assert (against.kind, against.preferred) == ("skipped", None)


def test_a_batch_in_the_store_is_gone_on_with_and_never_mixed(small: Small, tmp_path: Path) -> None:
    first = tmp_path / "first"
    small.execute(first, store="votes.db", overlap=2)
    with open_store(str(tmp_path / "votes.db")) as store:
        log = store.log()
    again = tmp_path / "again"
    small.execute(again, store="votes.db", overlap=2)
    assert (again / "records.jsonl").read_bytes() == (first / "records.jsonl").read_bytes()
    for number, changed in enumerate(({"overlap": 3}, {"guidelines": "Be brief."}, {"judges": "people", "page": None})):
        with pytest.raises(AyniError, match="the store holds another batch 1"):
            small.execute(tmp_path / f"other-{number}", **{"store": "votes.db", "overlap": 2, **changed})
        assert (tmp_path / f"other-{number}" / "samples-1.jsonl").exists(), "what was drawn is kept"
    small.execute(tmp_path / "next", store="votes.db", batch="2", overlap=3)
    with open_store(str(tmp_path / "votes.db")) as store:
        assert store.log("1") == log
        assert [batch.id for batch in store.batches()] == ["1", "2"]


def test_prompts_of_earlier_batches_are_not_asked_again(small: Small, tmp_path: Path) -> None:
    small.execute(tmp_path / "first", limit=5)
    later = Small("collect", small.settings, {**small.inputs, "earlier": [tmp_path / "first" / "samples-0.jsonl"]})
    later.execute(tmp_path / "second")
    ids = [
        {c.prompt.id for name in ("records.jsonl", "heldout.jsonl") for c in read_comparisons(tmp_path / which / name)}
        for which in ("first", "second")
    ]
    assert all(ids)
    assert not ids[0] & ids[1]
    every = [tmp_path / which / "samples-0.jsonl" for which in ("first", "second")]
    with pytest.raises(BadInput, match="earlier: every prompt was asked in an earlier batch; give that batch a limit"):
        Small("collect", small.settings, {**small.inputs, "earlier": every}).execute(tmp_path / "third")


def judging(address: Path, judge: Callable[[Store], object]) -> threading.Thread:
    """Somebody who waits for the batch and then judges."""

    def work() -> None:
        for _ in range(600):
            if address.exists():
                break
            time.sleep(0.05)
        with open_store(str(address)) as store:
            while not store.batches():
                time.sleep(0.05)
            judge(store)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def judge_all(store: Store, count: int | None = None, annotator_id: str | None = None) -> int:
    annotator_id, done = annotator_id or store.enrol("Rosa").id, 0
    while (count is None or done < count) and (item := store.next_item(annotator_id)) is not None:
        safe = True if item.task == "safety" else None
        done += 1
        store.record(
            Entry(f"s{done}", item.id, annotator_id, preferred="b", rating="better", safety_a=safe, safety_b=safe)
        )
    return done


PEOPLE = {"judges": "people", "store": "people.db", "page": None}


def test_it_waits_for_people_and_goes_on_when_the_batch_is_full(small: Small, tmp_path: Path) -> None:
    rosa = judging(tmp_path / "people.db", judge_all)
    small.execute(tmp_path / "c", **PEOPLE)
    rosa.join()
    train = read_comparisons(tmp_path / "c" / "records.jsonl")
    assert {(c.annotator, c.source, c.rating) for c in train} == {("Rosa", "person", "better")}
    assert not {c.prompt.id for c in train} & {c.prompt.id for c in read_comparisons(tmp_path / "c" / "heldout.jsonl")}
    assert not {c.chosen for c in train} & {"right"}
    with open_store(str(tmp_path / "people.db")) as store:
        assert store.batch("1").closed_at is not None
        assert store.progress("1").full


def test_closing_the_batch_takes_what_is_there(small: Small, tmp_path: Path) -> None:
    def some(store: Store) -> None:
        judge_all(store, 6)
        store.close_batch("1")

    rosa = judging(tmp_path / "people.db", some)
    small.execute(tmp_path / "c", **PEOPLE)
    rosa.join()
    # which prompts were judged is chance, and so whether any of them is held out
    names = ("records.jsonl", "heldout.jsonl")
    assert 1 <= sum(len((tmp_path / "c" / name).read_text().splitlines()) for name in names) <= 6


def test_a_batch_may_be_closed_with_nothing_but_held_out_pairs(small: Small, tmp_path: Path) -> None:
    def one_held_out(store: Store) -> None:
        rosa = store.enrol("Rosa").id
        while (item := store.next_item(rosa)) is not None and not item.heldout:
            store.record(Entry(f"s{item.id}", item.id, rosa, "skipped", reason="torn"))
        judge_all(store, 1)
        store.close_batch("1")

    rosa = judging(tmp_path / "people.db", one_held_out)
    small.execute(tmp_path / "c", **PEOPLE)
    rosa.join()
    assert (tmp_path / "c" / "records.jsonl").read_text() == ""
    assert len(read_comparisons(tmp_path / "c" / "heldout.jsonl")) == 1


def test_without_waiting_it_takes_what_is_there_and_the_batch_stays_open(small: Small, tmp_path: Path) -> None:
    with pytest.raises(AyniError, match="nobody has judged a pair of batch 1 yet"):
        small.execute(tmp_path / "c", **PEOPLE, wait=False)
    drawn = (tmp_path / "c" / "samples-0.jsonl").stat().st_mtime_ns
    with open_store(str(tmp_path / "people.db")) as store:
        judge_all(store, 9)
    small.execute(tmp_path / "c", **PEOPLE, wait=False)
    with open_store(str(tmp_path / "people.db")) as store:
        assert store.batch("1").closed_at is None
    assert (tmp_path / "c" / "samples-0.jsonl").stat().st_mtime_ns == drawn


def test_who_judges_alone_may_skip_and_it_still_goes_on(small: Small, tmp_path: Path) -> None:
    def all_but_one(store: Store) -> None:
        annotator_id = store.enrol("me", "admin").id
        while (skipped := store.next_item(annotator_id)) is not None and skipped.gold is not None:
            store.record(Entry("check", skipped.id, annotator_id, preferred="a", rating="better"))
        assert skipped is not None
        store.record(Entry("skip", skipped.id, annotator_id, "skipped", reason="torn"))
        judge_all(store, annotator_id=annotator_id)

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    me = judging(tmp_path / "people.db", all_but_one)
    small.execute(tmp_path / "c", **{**PEOPLE, "page": f"127.0.0.1:{port}"})
    me.join()
    with open_store(str(tmp_path / "people.db")) as store:
        progress = store.progress("1")
    assert (progress.wanted - progress.done, progress.skipped) == (1, 1)


def test_the_page_it_serves_takes_judgements(small: Small, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    site = f"http://127.0.0.1:{port}"
    seen: list[str] = []

    def visit(store: Store) -> None:
        with httpx2.Client(base_url=site, headers={"Origin": site}, follow_redirects=True) as browser:
            for _ in range(200):
                try:
                    browser.get("/")
                    break
                except httpx2.ConnectError:
                    time.sleep(0.05)
            for _ in range(3):
                page = Page(browser.get("/judge", params={"batch": "1"}).text)
                form = page.form("/judge")
                seen.append(form.fields["item"])
                choice = {name: values[0] for name, values in form.offered.items()}
                fields = form.fields | choice | {"kind": "judged"}
                assert browser.post("/judge", data=fields).status_code == 200
        store.close_batch("1")

    visitor = judging(tmp_path / "people.db", visit)
    small.execute(tmp_path / "c", **{**PEOPLE, "page": f"127.0.0.1:{port}"})
    visitor.join()
    with open_store(str(tmp_path / "people.db")) as store:
        assert [row.item.id for row in store.current("1")] == seen
        assert len(set(seen)) == 3
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()  # it is gone with the stage


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"judges": "people"}, "store: what people say must outlive this run"),
        ({**PEOPLE, "page": "8080"}, "page: '8080' is not HOST:PORT"),
        ({**PEOPLE, "page": "0.0.0.0:8080"}, "login"),
        ({**PEOPLE, "page": "127.0.0.1:8080", "overlap": 2}, "overlap: one person judges on the page"),
        ({"overlap": 99}, "overlap: 99 annotators wanted, the village has 8"),
    ],
)
def test_what_cannot_be_collected(small: Small, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        small.execute(tmp_path / "c", **settings)
    assert message in str(caught.value)
    assert not (tmp_path / "c").exists()
