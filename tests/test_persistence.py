"""Whether an instruction of the first turn lasts: what is asked, what is counted, and who attends to what."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from small_models import edit_json
from small_stages import Small, prepare
from tiny import language_model, tokenizer

from ayni.errors import BadInput
from ayni.evaluate.items import Item, rows_of
from ayni.evaluate.persistence import (
    SEEN,
    UNSEEN,
    Conversation,
    attention_items,
    content_items,
    conversations,
    kept_gains,
    kept_items,
    measured,
    runs,
)
from ayni.evaluate.results import read_results
from ayni.files import write_jsonl
from ayni.model.attention_weights import strongest_attention
from ayni.records import Message, Prompt, Sample, from_dict, to_dict
from ayni.text.chat import render, render_prompt, span_of
from ayni.village import Gold, Village
from ayni.village.constraints import HELD_KIND, keeping

WORDS = tokenizer()


def said(text: str) -> Sample:
    return Sample("p", "helpfulness", (1,), (5,), (-1.0,), text, "stop")


@pytest.fixture(scope="module")
def asked(village: Village) -> list[Conversation]:
    return conversations(village.talks("validation"), village.constraints("validation"), 30, seed=3)


def test_every_constraint_is_asked_as_often_and_said_once(village: Village, asked: list[Conversation]) -> None:
    assert Counter(c.axis for c in asked) == {SEEN: 30, UNSEEN: 30}
    assert {c.constraint.kind for c in asked if c.axis == UNSEEN} == {HELD_KIND}
    for axis in (SEEN, UNSEEN):
        often = Counter(c.constraint.id for c in asked if c.axis == axis)
        assert max(often.values()) - min(often.values()) <= 1
    assert len({c.prompt.id for c in asked}) == len(asked)
    plain = {p.id: p for p in village.talks("validation")}
    for c in asked:
        own = plain[c.prompt.id.partition(" ")[0]]
        assert c.prompt.dialog[0].content == f"{c.told} {own.dialog[0].content}"
        assert c.prompt.dialog[1:] == own.dialog[1:]
    assert sum(c.told == c.constraint.short for c in asked) == len(asked) / 2
    assert asked == conversations(village.talks("validation"), village.constraints("validation"), 30, seed=3)
    seen_only = [c for c in village.constraints("validation") if c.kind != HELD_KIND]
    assert {c.axis for c in conversations(village.talks("validation"), seen_only, 5, seed=3)} == {SEEN}


def test_kept_is_counted_by_turn_and_compared_turn_by_turn(gold: Gold, asked: list[Conversation]) -> None:
    """One model keeps it always, the other in the first two turns; half of its conversations end after four."""
    ours = [[said(keeping([c.constraint], "Yes.")) for _ in range(20)] for c in asked]
    theirs = [
        [said(keeping([c.constraint], "Yes.") if turn < 2 else "Yes.") for turn in range(20 if i % 2 else 4)]
        for i, c in enumerate(asked)
    ]
    a, b = kept_items(gold, asked, ours, model="a"), kept_items(gold, asked, theirs, model="b")
    rows = {(r.metric, r.axis, r.model): r for r in rows_of([*a, *b, *kept_gains(a, b, "b")])}
    for axis in (SEEN, UNSEEN):
        assert rows["obeyed", axis, "b"].value == 1
        assert [rows[f"kept:turn {turn}", axis, "b"].value for turn in measured(20)] == [1] + [0] * 9
        assert rows["kept:turn 4", axis, "b"].n == 30
        assert rows["kept:turn 6", axis, "b"].n == 15
        assert rows["kept:turn 20", axis, "a"].value == 1
        assert rows["kept_gain:turn 20", axis, "a"].value == 1
        assert rows["kept_gain:turn 20", axis, "a"].n == 15
        assert rows["kept_gain:turn 2", axis, "a"].value == 0
        low, high = rows["kept_gain:turn 2", axis, "a"].interval or (0, 0)
        assert low < -0.02  # thirty times no difference is not certainty
        assert high > 0.02
        row = rows["kept:turn 20", axis, "a"]
        assert row.clusters == len({c.constraint.id for c in asked if c.axis == axis})
        assert row.interval is not None
    assert kept_items(gold, asked[:1], [[]]) == []


def test_right_answers_stay_right_in_the_words_of_a_constraint(gold: Gold, asked: list[Conversation]) -> None:
    facts = {question: fact for fact in gold.village.scene.facts for question in fact.ask}
    talks = []
    for c in asked:
        questions = [m.content for m in c.prompt.dialog if m.role == "user"]
        questions[0] = questions[0].removeprefix(f"{c.told} ")
        talks.append([said(keeping([c.constraint], facts[q].say[0])) for q in questions])
    right = content_items(gold, asked, talks)
    assert {item.value for item in right} == {1.0}
    assert len(right) == 10 * len(asked)
    wrong = [[said(keeping([c.constraint], "I do not care."))] * 20 for c in asked]
    assert {item.value for item in content_items(gold, asked, wrong)} == {0.0}


def test_the_span_is_the_instruction_and_the_columns_are_the_answers() -> None:
    dialog = (
        Message("user", "Be an owl. who sings"),
        Message("assistant", "the owl"),
        Message("user", "why"),
        Message("assistant", "rain falls"),
    )
    begin, end = span_of("Be an owl.", dialog, WORDS)
    sequence = render(dialog, WORDS)
    assert WORDS.decode(sequence.tokens[begin:end]).strip() == "Be an owl."
    assert sequence.tokens[1:begin] == WORDS.encode("[INST]")
    system = (Message("system", "Sing low."), *dialog)
    begin, end = span_of("Be an owl.", system, WORDS)
    assert WORDS.decode(render(system, WORDS).tokens[begin:end]).strip() == "Be an owl."
    with pytest.raises(ValueError, match="not in the first turn"):
        span_of("Be a hare.", dialog, WORDS)
    first, second = runs(sequence.mask)
    assert first.start == len(render_prompt(dialog[:1], WORDS))
    assert second == range(len(render_prompt(dialog[:3], WORDS)), len(sequence.tokens))
    assert runs([]) == []


def test_attention_is_read_where_the_answers_are_predicted(village: Village) -> None:
    model = language_model(2, context=400)
    asked, why = Message("user", "Be an owl. who sings"), Message("user", "why")
    talk = Prompt("t", (asked, Message("assistant", "NOBODY SAID THIS"), why))
    conversation = Conversation(talk, village.constraints("validation")[0], "Be an owl.")
    given = [said("the owl"), said("rain falls")]
    (item,) = attention_items({"m": (model, WORDS)}, [conversation], [given], split="validation")
    assert (item.part, item.model, item.axis, item.judge) == ("turn 2", "m", SEEN, None)
    before = (asked, Message("assistant", "the owl"), why)
    tokens = render((*before, Message("assistant", "rain falls")), WORDS).tokens
    begin, end = span_of("Be an owl.", before, WORDS)
    # column t predicts token t + 1: the first of the answer is predicted at the last of the prompt
    columns = strongest_attention(model, tokens, begin, end)[len(render_prompt(before, WORDS)) - 1 : -1]
    assert item.value == pytest.approx(float(columns.mean()))


@pytest.fixture(scope="module")
def small(village: Village, tmp_path_factory: pytest.TempPathFactory) -> Small:
    directory = tmp_path_factory.mktemp("inputs")
    prepare(directory)
    edit_json(directory / "talker" / "config.json", max_position_embeddings=2000)
    short = [Prompt(p.id, p.dialog[:9], category="talk", source=p.source) for p in village.talks("validation")[:3]]
    write_jsonl(directory / "asked.jsonl", map(to_dict, short))
    write_jsonl(directory / "told.jsonl", map(to_dict, village.constraints("validation")))
    model = directory / "talker"
    given = {"model": model, "against": model, "prompts": [directory / "asked.jsonl"]}
    settings = {"max_tokens": 8, "conversations": 6, "attention": 3, "samples": 4, "dtype": "fp32"}
    return Small("persistence", settings, {**given, "constraints": [directory / "told.jsonl"]})


def test_the_stage_says_all_of_it(small: Small, tmp_path: Path) -> None:
    small.execute(tmp_path / "e")
    rows = read_results(tmp_path / "e" / "results.json")
    metrics = {row.metric for row in rows}
    wanted = {"obeyed", "kept", "kept:turn 2", "kept:turn 4", "kept_gain", "talk_content", "constraint_attention"}
    assert wanted <= metrics
    assert "kept:turn 3" not in metrics
    assert {row.axis for row in rows} == {SEEN, UNSEEN}
    assert {row.split for row in rows} == {"validation"}
    items = [from_dict(Item, json.loads(line)) for line in (tmp_path / "e" / "items.jsonl").read_text().splitlines()]
    assert rows_of(items, rows[0].seed) == rows
    gains = {row.value for row in rows if row.metric.startswith("kept_gain")}
    assert gains == {0.0}  # a model against itself
    samples = [json.loads(line) for line in (tmp_path / "e" / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 4
    assert "\n4. " in next(iter(samples[0]["answers"].values()))


def test_the_test_split_stays_shut(small: Small, village: Village, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", map(to_dict, village.talks("test")[:2]))
    write_jsonl(tmp_path / "c.jsonl", map(to_dict, village.constraints("test")))
    for name, file in (("prompts", "t.jsonl"), ("constraints", "c.jsonl")):
        shut = Small("persistence", small.settings, {**small.inputs, name: [tmp_path / file]})
        with pytest.raises(BadInput, match="this is no final evaluation"):
            shut.execute(tmp_path / "e")
    write_jsonl(tmp_path / "p.jsonl", map(to_dict, village.prompts("validation", 3)))
    with pytest.raises(BadInput, match="holds other prompts than talks"):
        Small("persistence", small.settings, {**small.inputs, "prompts": [tmp_path / "p.jsonl"]}).execute(
            tmp_path / "e"
        )
    assert not (tmp_path / "e").exists()
