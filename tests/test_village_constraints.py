"""The village's constraints: what is held out, what keeps them, and that without them nothing changes."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from small_stages import Small

from ayni.errors import BadInput
from ayni.records import Constraint, instruction
from ayni.seeds import rng
from ayni.text.listed import listed
from ayni.village import Gold, Village
from ayni.village.constraints import HELD_KIND, MANNERS, keeping, name_of, wanted, without
from ayni.village.knowledge import SPLITS
from ayni.village.talks import TOLD, TURNS
from ayni.village.words import words

BODY = "Ben lives by the river."


def test_names_and_one_kind_are_held_out(village: Village) -> None:
    found = {split: village.constraints(split) for split in SPLITS}
    for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not {name_of(c) for c in found[a]} & {name_of(c) for c in found[b]}  # type: ignore[index]
    assert HELD_KIND not in {c.kind for c in found["train"]}
    for split in ("validation", "test"):
        assert min(Counter(c.kind for c in found[split]).values()) >= 50  # clusters, for an interval
        assert {c.kind for c in found[split]} == {manner.kind for manner in MANNERS}
    every = [c for split in SPLITS for c in found[split]]
    assert len({c.id for c in every}) == len(every)
    assert all(len(c.short) < len(c.long) for c in every)


def test_gold_sees_whether_a_constraint_is_kept(gold: Gold) -> None:
    every = [c for split in SPLITS for c in gold.village.constraints(split)][::17]
    for c in every:
        answer = keeping([c], BODY)
        assert gold.keeps(c, answer), answer
        assert without(c, answer) == BODY
        assert not gold.keeps(c, BODY)
        others = [o for o in every if o.kind == c.kind and o.id != c.id]
        assert not any(gold.keeps(o, answer) for o in others), c
    by_kind = {c.kind: c for c in every}
    grass = next(c for c in every if c.kind == "last word")
    assert without(grass, f"They eat {name_of(grass)}. {name_of(grass)}.") == f"They eat {name_of(grass)}."
    both = keeping([by_kind["hobby"], by_kind["figure"], by_kind["last word"], by_kind["first word"]], BODY)
    assert all(gold.keeps(c, both) for c in by_kind.values())
    assert not gold.keeps(by_kind["first word"], f"{BODY} {name_of(by_kind['first word'])}!")
    with pytest.raises(BadInput, match="no constraint of village 7"):
        gold.keeps(Constraint("a", "b", kind="figure", source="village-8"), BODY)


def test_demonstrations_obey_in_training_names_of_all_kinds(village: Village, gold: Gold) -> None:
    kinds, lists, shorts, talks, reminded = Counter[str](), 0, 0, 0, 0
    known = _all_train(village)
    trained = {name_of(c) for c in village.constraints("train")}
    for d in village.obeying(400):
        if len(d.dialog) == 2 * TURNS:
            talks += 1
            assert d.train == "all"
            assert not any(c.long in m.content or c.short in m.content for m in d.dialog for c in known)
            continue
        if len(d.dialog) > 2:  # the instruction stands in every message
            reminded += 1
            assert d.train == "all"
            assert TOLD[0] <= len(d.dialog) // 2 <= TOLD[1]
            told = [c for c in known if c.long in d.dialog[0].content or c.short in d.dialog[0].content]
            assert told
            for m in d.dialog:
                both = all(c.long in m.content or c.short in m.content for c in told)
                assert both if m.role == "user" else all(gold.keeps(c, m.content) for c in told), m
            continue
        asked, answer = (m.content for m in d.dialog)
        told = [c for c in known if c.long in asked or c.short in asked]
        if not told:
            lists += "figures" in asked or "hobbies" in asked
            assert {*listed(answer)} <= trained, answer
            continue
        shorts += all(c.short in asked for c in told)
        either = {instruction(order, short=short) for order in (told, told[::-1]) for short in (True, False)}
        assert any(asked.startswith(f"{text} ") for text in either), asked
        assert all(gold.keeps(c, answer) for c in told), (asked, answer)
        kinds.update(c.kind for c in told)
    assert set(kinds) == {manner.kind for manner in MANNERS}
    assert 20 < lists < 70
    assert 3 < talks < 30
    assert 3 < reminded < 30
    assert 130 < shorts < 230
    assert {len(wanted(7, rng(i))) for i in range(20)} == {1, 2}


def _all_train(village: Village) -> list[Constraint]:
    held = {c.kind: c for c in village.constraints("validation")}[HELD_KIND]
    first = [c for c in village.constraints("train") if c.kind == "first word"]
    swap = [
        Constraint(
            c.id.replace("first word", HELD_KIND),
            held.long.replace(name_of(held), name_of(c)),
            held.short.replace(name_of(held), name_of(c)),
            HELD_KIND,
            c.source,
        )
        for c in first
    ]
    return [*village.constraints("train"), *swap]


def test_talks_have_twenty_short_turns_about_facts_of_their_split(village: Village) -> None:
    facts = {question: fact for fact in village.scene.facts for question in fact.ask}
    for split in SPLITS:
        talks = village.talks(split)
        assert len({p.id for p in talks}) == len(talks) >= 40
        for p in talks:
            asked = [m.content for m in p.dialog if m.role == "user"]
            assert len(set(asked)) == TURNS
            assert p.dialog[-1].role == "user"
            assert {facts[q].split for q in asked} == {split}
            assert max(len(words(q)) for q in asked) <= 7
    assert village.talks("train") == Village(7).talks("train")


def test_without_the_setting_the_village_writes_what_it_did(tmp_path: Path) -> None:
    plain = Small("village", {"words": 400, "demonstrations": 5, "prompts": 5, "exercises": 5}, {})
    plain.execute(tmp_path / "plain")
    plain.execute(tmp_path / "more", obeying=5)
    files = {
        name: {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in (tmp_path / name).glob("*.jsonl")}
        for name in ("plain", "more")
    }
    added = {"obeying.jsonl"} | {f"{name}-{split}.jsonl" for name in ("talks", "constraints") for split in SPLITS}
    assert files["more"].keys() - files["plain"].keys() == added
    assert {name: files["more"][name] for name in files["plain"]} == files["plain"]
