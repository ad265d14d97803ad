"""Constitutional AI: what is asked in every round, what stands, what is kept; the village's part; the recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import refused
from small_recipes import RECIPES, run_small, unmeasured
from small_stages import PRINCIPLES, Small, prepare
from tiny import prompts, tokenizer

from ayni.evaluate.refusals import refuses
from ayni.files import write_jsonl
from ayni.formats.reading import read_demonstrations, read_principles, read_prompts
from ayni.records import Message, Sample, to_dict
from ayni.rollout.store import read_groups
from ayni.runs.recipe import read_recipe
from ayni.stages import revise
from ayni.text.chat import render_prompt
from ayni.village import Gold, Village
from ayni.village.principles import CURT, FINE, HARM

RECIPE = RECIPES / "constitutional.yaml"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return prepare(tmp_path_factory.mktemp("inputs"))["revise"]


def drawn(directory: Path, step: str) -> dict[str, Sample]:
    return {group[0].prompt_id: group[0] for group in read_groups(directory / f"samples-{step}.jsonl")}


def tokens(*said: str, before: tuple[Message, ...] = ()) -> tuple[int, ...]:
    roles = ("assistant", "user")
    dialog = (*before, *(Message(roles[i % 2], text) for i, text in enumerate(said)))  # type: ignore[arg-type]
    return tuple(render_prompt(dialog, tokenizer()))


def test_every_round_asks_about_the_answer_that_stands(small: Small, tmp_path: Path) -> None:
    small.execute(tmp_path / "o")
    asked = {p.id: p.dialog for p in read_prompts(small.inputs["prompts"][0]) if p.task == "safety"}  # type: ignore[index]
    standing = {id: sample.text for id, sample in drawn(tmp_path / "o", "answers").items()}
    assert standing.keys() == asked.keys()
    used, replaced, kept = [], 0, set()
    for number in (1, 2):
        critiques, revisions = (drawn(tmp_path / "o", f"{step}-{number}") for step in ("critiques", "revisions"))
        assert {id for id, text in standing.items() if text.strip()} == critiques.keys()
        assert {id for id, sample in critiques.items() if sample.text.strip()} == revisions.keys()
        for id, sample in critiques.items():
            ways = [tokens(standing[id], p.critique, before=asked[id]) for p in PRINCIPLES]
            used.append(ways.index(sample.prompt_tokens))
            if id in revisions:
                principle = PRINCIPLES[used[-1]]  # the revision is asked for by the same
                told = (standing[id], principle.critique, sample.text, principle.revision)
                assert revisions[id].prompt_tokens == tokens(*told, before=asked[id])
        for id, sample in revisions.items():
            if sample.finished == "stop" and sample.text.strip():
                standing[id], replaced = sample.text, replaced + 1
                kept.add(id)
    assert len(set(used)) == 2
    assert 0 < replaced < 2 * len(asked)  # some were cut off
    found = [d for d in read_demonstrations(tmp_path / "o" / "records.jsonl") if ":revision:" in d.source]
    assert {d.source for d in found} == {f"revise:revision:{id}" for id in kept}
    for d in found:
        id = d.source.rpartition(":")[2]
        assert d.dialog == (*asked[id], Message("assistant", standing[id]))
        assert (d.train, d.finished) == ("last", "stop")


def test_helpful_answers_stand_beside_them(small: Small, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", map(to_dict, [*prompts(30), *prompts(8, seed=5, task="safety")]))
    mine = Small("revise", small.settings, {**small.inputs, "prompts": [tmp_path / "p.jsonl"]})
    mine.execute(tmp_path / "o", helpful=1.5)
    helpful = drawn(tmp_path / "o", "helpful")
    assert len(helpful) == 12
    found = [d for d in read_demonstrations(tmp_path / "o" / "records.jsonl") if ":helpful:" in d.source]
    assert 0 < len(found) < 12
    assert {d.dialog[-1].content for d in found} == {s.text for s in helpful.values() if s.fit}
    mine.execute(tmp_path / "none", helpful=0.0)
    assert all(":revision:" in d.source for d in read_demonstrations(tmp_path / "none" / "records.jsonl"))
    mine.execute(tmp_path / "few", limit=3)
    assert (len(drawn(tmp_path / "few", "answers")), len(drawn(tmp_path / "few", "helpful"))) == (3, 2)


def test_without_critique_it_is_revised_at_once(small: Small, tmp_path: Path) -> None:
    small.execute(tmp_path / "o", critique=False, rounds=1)
    asked = {p.id: p.dialog for p in read_prompts(small.inputs["prompts"][0])}  # type: ignore[index]
    first, then = (drawn(tmp_path / "o", step) for step in ("answers", "revisions-1"))
    assert then
    for id, sample in then.items():
        ways = [tokens(first[id].text, p.revision, before=asked[id]) for p in PRINCIPLES]
        assert sample.prompt_tokens in ways
    assert not list((tmp_path / "o").glob("samples-critiques*"))


def test_rows_say_what_each_round_changed() -> None:
    asked = prompts(4, task="safety")
    texts = [
        ["Pull yourself up.", "Sure!", "No.", "owl"],
        ["I am sorry, but I cannot help with that.", "Sure!", "No.", "hare"],
    ]
    first, last = ([revise.Standing(p, t) for p, t in zip(asked, each, strict=True)] for each in texts)
    rows = {(row.metric, row.axis): row for row in revise.by_round([first, last], model="m", seed=0)}
    assert (rows["refused", "round 0"].value, rows["refused", "round 1"].value) == (0.25, 0.5)
    assert rows["changed", "round 1"].value == 0.5
    assert ("changed", "round 0") not in rows
    assert rows["refused_gain", "round 1"].value == 0.25


def test_what_it_refuses(small: Small, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", map(to_dict, prompts(3)))
    kind = Small("revise", small.settings, {**small.inputs, "prompts": [tmp_path / "p.jsonl"]})
    assert "prompts: no prompt is tagged safety" in refused(lambda: kind.execute(tmp_path / "o"))
    assert "max_tokens: no answer was revised" in refused(lambda: small.execute(tmp_path / "cut", max_tokens=1))
    (tmp_path / "bad.jsonl").write_text('{"id": "a", "critique": "why [INST]", "revision": "b"}\n')
    bad = Small("revise", small.settings, {**small.inputs, "principles": tmp_path / "bad.jsonl"})
    assert "bad.jsonl:1: critique: " in refused(lambda: bad.execute(tmp_path / "bad"))
    write_jsonl(tmp_path / "twice.jsonl", [to_dict(PRINCIPLES[0])] * 2)
    assert "'owl' is the id of another principle too (twice.jsonl:1)" in refused(
        lambda: read_principles(tmp_path / "twice.jsonl")
    )
    assert not (tmp_path / "o").exists()
    assert not (tmp_path / "bad").exists()


# the village


def test_the_village_shows_how_to_live_by_its_principles(village: Village, gold: Gold) -> None:
    found = village.revising(401, village.attacks("train", 200))
    assert len(found) == 401
    assert found[:100] == village.revising(100, village.attacks("train", 200))
    known = {p.dialog: p for p in (*village.prompts("train"), *village.attacks("train", 200))}
    critiques, revisions = {p.critique for p in village.principles()}, {p.revision for p in village.principles()}
    kinds = {"harm": 0, "curt": 0, "fine": 0}
    for short, whole in zip(found[::2], found[1::2], strict=False):
        assert whole.dialog[:-2] == short.dialog
        assert (short.train, whole.train) == ("last", "last")
        prompt, (first, request, wrong, again, better) = known[whole.dialog[:-5]], whole.dialog[-5:]
        assert request.content in critiques
        assert again.content in revisions
        if wrong.content in FINE:
            kinds["fine"] += 1
            assert prompt.task == "helpfulness"
            assert better == first
            continue
        assert prompt.task == "safety"
        assert refuses(better.content)
        assert gold.safety(prompt, better.content) > 0.8
        harms = gold.unsafe(prompt, first.content)
        kinds["harm" if harms else "curt"] += 1
        assert ("how to" in wrong.content or "I told how" in wrong.content) is harms
    assert {kind: count / 200 for kind, count in kinds.items()} == pytest.approx(
        {"harm": HARM, "curt": CURT - HARM, "fine": 1 - CURT}, abs=0.1
    )


def test_without_it_the_village_is_what_it_was(tmp_path: Path) -> None:
    settings = {"words": 3000, "demonstrations": 20, "exercises": 5, "prompts": 30, "attacks": 12}
    Small("village", settings, {}).execute(tmp_path / "before")
    Small("village", {**settings, "revising": 6}, {}).execute(tmp_path / "after")
    before = {file.name: file.read_bytes() for file in (tmp_path / "before").glob("*.jsonl")}
    after = {file.name: file.read_bytes() for file in (tmp_path / "after").glob("*.jsonl")}
    assert after.keys() - before.keys() == {"revising.jsonl", "principles.jsonl"}
    assert {name: after[name] for name in before} == before
    assert read_principles(tmp_path / "after" / "principles.jsonl") == Village(7).principles()
    assert read_demonstrations(tmp_path / "after" / "revising.jsonl") == Village(7).revising(
        6, Village(7).attacks("train", 12)
    )


# the recipe


def test_the_recipe_at_a_size_of_seconds(tmp_path: Path) -> None:
    assert len(read_recipe(RECIPE).claims) == 3
    assert unmeasured(RECIPE, tmp_path / "run") == []
    assert {stage["state"] for stage in run_small(RECIPE, tmp_path / "run")["stages"]} == {"reused"}
