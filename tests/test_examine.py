"""What somebody meets who asks: content, honesty, broken sentences, and whether a reward model knows a fact."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import edit_json
from small_stages import Small, prepare

from ayni.errors import BadInput
from ayni.evaluate.items import Item, rows_of
from ayni.evaluate.results import read_results
from ayni.evaluate.village_answers import (
    broken_items,
    content_gains,
    content_items,
    differing_pairs,
    preference_items,
)
from ayni.files import write_jsonl
from ayni.model.role import Role
from ayni.model_directory import load_model
from ayni.records import Message, Prompt, Sample, from_dict, to_dict
from ayni.rollout.conversations import own_answers
from ayni.rollout.engine import rollout
from ayni.rollout.local import LocalEngine
from ayni.rollout.sampling import Sampling
from ayni.seeds import seed_of
from ayni.village import Gold, Village
from ayni.village.outside import HONEST_SAY

SALAD = "the the of bread nobody wolf seven when garden"


def of(village: Village, category: str, n: int = 8) -> list[Prompt]:
    return [p for p in village.prompts("validation") if p.category == category][:n]


def sample(prompt: Prompt, text: str) -> Sample:
    return Sample(prompt.id, prompt.task, (1,), (5,), (-1.0,), text, "stop")


def values(items: list[Item]) -> dict[str, float | None]:
    return {row.metric: row.value for row in rows_of(items)}


def test_content_is_what_is_right_and_of_strangers_what_is_honest(village: Village, gold: Gold) -> None:
    prompts = [*of(village, "person"), *of(village, "outside"), *of(village, "unsafe")]
    right = [village.knowledge(p).right[0] for p in prompts]
    found = values(content_items(gold, prompts, right))
    assert found["content"] == found["content:person"] == found["content:outside"] == 1
    assert "content:unsafe" not in found
    wrong = [village.knowledge(p).wrong[0] for p in prompts]
    assert values(content_items(gold, prompts, wrong))["content"] == 0
    silent = content_items(gold, prompts, [HONEST_SAY[0]] * len(prompts))
    assert values(silent)["content:outside"] == 1
    assert 0 < (values(silent)["content:person"] or 0) < 0.5
    gains = content_gains(gold, prompts, right, wrong)
    assert values(gains)["content_gain:person"] == 1
    assert {row.clusters for row in rows_of(gains) if row.metric.endswith("person")} == {
        len({p.cluster for p in of(village, "person")})
    }


def test_word_salad_is_broken_and_counted_by_turn(village: Village, gold: Gold) -> None:
    prompts = of(village, "dialog", 6)
    plain = "Owls eat mice."
    talks = [[sample(p, plain), sample(p, SALAD if i < 3 else plain)] for i, p in enumerate(prompts)]
    found = values(broken_items(gold, prompts, talks))
    assert (found["broken:turn 1"], found["broken:turn 2"], found["broken"]) == (0, 0.5, 0.25)


def test_pairs_differ_in_a_fact_and_in_nothing_else(village: Village, gold: Gold) -> None:
    prompts = [*of(village, "person"), *of(village, "animal")]
    groups = []
    for p in prompts:
        right, wrong = village.knowledge(p).right[0], village.knowledge(p).wrong[0]
        texts = [wrong, f"{wrong} I hope that helps!", SALAD, HONEST_SAY[0], f"You are a fool. {wrong}", right]
        groups.append([sample(p, text) for text in texts])
    pairs = differing_pairs("fact", gold, prompts, groups, 100, seed=1)
    assert {p.category for p, *_ in pairs} == {"person", "animal"}
    for p, good, bad in pairs:
        assert (good.text, bad.text) == (village.knowledge(p).right[0], village.knowledge(p).wrong[0])
    assert len({p.id for p, *_ in pairs}) == len(pairs) <= len(prompts)
    assert pairs == differing_pairs("fact", gold, prompts, groups, 100, seed=1)
    liked = [1.0, 0.0] * (len(pairs) - 1) + [0.0, 1.0]
    (row,) = rows_of(preference_items("fact", pairs, torch.tensor(liked), model="r", against="m"))
    assert (row.metric, row.n, row.value) == ("right_fact", len(pairs), (len(pairs) - 1) / len(pairs))
    assert len(differing_pairs("fact", gold, prompts, groups, 3, seed=1)) == 3


def test_pairs_differ_in_style_or_length_and_in_nothing_else(village: Village, gold: Gold) -> None:
    prompts = of(village, "person", 6)
    groups = []
    for p in prompts:
        right, wrong = village.knowledge(p).right[0], village.knowledge(p).wrong[0]
        texts = [right, f"You fool. {right}", wrong, f"I hope that helps! {right}"]
        groups.append([sample(p, text) for text in texts])
    style = differing_pairs("style", gold, prompts, groups, 100, seed=1)
    assert style
    for p, better, worse in style:
        contents = [gold.content(village.knowledge(p), s.text) for s in (better, worse)]
        assert contents[0] == pytest.approx(contents[1], abs=0.05)
        assert gold.helpfulness(p, better.text) >= gold.helpfulness(p, worse.text) + 0.1
        assert abs(len(better.text.split()) - len(worse.text.split())) <= 3
        assert "fool" in worse.text or "helps" in better.text


def test_pairs_differ_in_length_alone(village: Village, gold: Gold) -> None:
    """What is true of an animal makes the way to a place longer, and no better."""
    prompts, animals = of(village, "place", 8), of(village, "animal", 40)
    one, two = sorted({village.knowledge(p).right[0] for p in animals}, key=len)[-2:]
    groups = []
    for p in prompts:
        right, wrong = village.knowledge(p).right[0], village.knowledge(p).wrong[0]
        texts = [right, f"{right} {one} {two}", f"{wrong} {one} {two}", f"{right} {SALAD} {SALAD}", SALAD, "So?"]
        groups.append([sample(p, text) for text in texts])
    pairs = differing_pairs("length", gold, prompts, groups, 100, seed=1)
    assert len(pairs) > 1
    for p, longer, shorter in pairs:
        assert longer.text.startswith(shorter.text)
        assert len(longer.text.split()) >= len(shorter.text.split()) + 7
        assert abs(gold.helpfulness(p, longer.text) - gold.helpfulness(p, shorter.text)) < 0.02


def test_of_a_safe_and_an_unsafe_answer_the_first_is_safe(village: Village, gold: Gold) -> None:
    prompts = of(village, "unsafe", 6)
    groups = []
    for p in prompts:
        topic = village.knowledge(p).topic
        assert topic is not None
        groups.append([sample(p, topic.how[0]), sample(p, "I am sorry, I can not help with that.")])
    pairs = differing_pairs("safety", gold, prompts, groups, 100, seed=1)
    assert len(pairs) == 6
    for p, safe, unsafe in pairs:
        assert gold.unsafe(p, unsafe.text)
        assert not gold.unsafe(p, safe.text)
    (row,) = rows_of(preference_items("safety", pairs, torch.tensor([1.0, 0.0] * 6), model="r"))
    assert (row.metric, row.n, row.value) == ("safe_preferred", 6, 1.0)


@pytest.fixture(scope="module")
def small(village: Village, tmp_path_factory: pytest.TempPathFactory) -> Small:
    directory = tmp_path_factory.mktemp("inputs")
    inputs = prepare(directory)["ppo"].inputs
    for name in ("model", "reward_helpfulness"):  # room for a conversation
        edit_json(inputs[name] / "config.json", max_position_embeddings=400)
    short = [p for p in village.prompts("validation") if len(p.dialog) < 4]
    categories = ("person", "animal", "dialog", "outside", "unsafe")
    asked = [p for c in categories for p in [p for p in short if p.category == c][:4]]
    write_jsonl(directory / "asked.jsonl", map(to_dict, asked))
    given = {"model": inputs["model"], "against": inputs["model"], "reward": inputs["reward_helpfulness"]}
    return Small("examine", {"max_tokens": 8, "dtype": "fp32"}, {**given, "prompts": [directory / "asked.jsonl"]})


def test_every_answer_of_a_conversation_is_the_models_own(small: Small) -> None:
    model, words = load_model(small.inputs["model"])
    engine = LocalEngine(Role(model), words, "m")
    asked = (Message("user", "owl"), Message("assistant", "NOBODY SAID THIS"), Message("user", "hare"))
    prompts = [Prompt("a", asked), Prompt("b", asked[:1])]
    sampling = Sampling(1.0, 1.0, 6)
    (first, second), (alone,) = own_answers(engine, prompts, sampling=sampling, seed=3, say=print)
    assert (first.prompt_id, alone.prompt_id) == ("a", "b")
    history = (asked[0], Message("assistant", first.text), asked[2])
    again = [replace(prompts[0], id="0", dialog=history)]
    ((expected,),) = rollout(engine, again, n=1, sampling=sampling, seed=seed_of(3, "turn", 1))
    assert (second.tokens, second.prompt_tokens) == (expected.tokens, expected.prompt_tokens)


def test_the_stage_says_all_of_it_for_both_models(small: Small, tmp_path: Path) -> None:
    small.execute(tmp_path / "e")  # whose random models never draw a right fact: no pair, no right_fact
    rows = read_results(tmp_path / "e" / "results.json")
    metrics = {row.metric for row in rows}
    assert {"content", "helpfulness", "content_gain", "broken", "broken:turn 1"} <= metrics
    items = [from_dict(Item, json.loads(line)) for line in (tmp_path / "e" / "items.jsonl").read_text().splitlines()]
    assert rows_of(items, rows[0].seed) == rows
    assert {row.split for row in rows} == {"validation"}
    assert (tmp_path / "e" / "samples.jsonl").read_text().count("\n") > 3
    small.execute(tmp_path / "safety", safety_answers=2)  # a draw of its own: everything else stays
    assert read_results(tmp_path / "safety" / "results.json") == rows


def test_the_test_split_stays_shut(small: Small, village: Village, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", map(to_dict, village.prompts("test", 4)))
    shut = Small("examine", small.settings, {**small.inputs, "prompts": [tmp_path / "t.jsonl"]})
    with pytest.raises(BadInput, match="this is no final evaluation"):
        shut.execute(tmp_path / "e")
    assert not (tmp_path / "e").exists()
