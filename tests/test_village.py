"""The village: the same from the same seed, large enough, and held out where it says so."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from ayni.errors import BadInput
from ayni.formats.reading import read_demonstrations
from ayni.run import Run
from ayni.seeds import rng
from ayni.stages import village as stage
from ayni.village import Village
from ayni.village.everyday import everyday_topics
from ayni.village.gold import Gold
from ayni.village.prompts import SIZES
from ayni.village.topics import borderline_topics, forbidden_topics
from ayni.village.words import flat, words


@pytest.fixture(scope="module")
def books(village: Village) -> list[str]:
    return village.corpus(600_000)


def asked(village: Village, split: str) -> list[str]:
    return ["\n".join(m.content for m in prompt.dialog) for prompt in village.prompts(split)]


def test_same_seed_same_village() -> None:
    a, b, other = Village(3), Village(3), Village(4)
    assert a.corpus(5_000) == b.corpus(5_000)
    assert a.prompts("train", 50) == b.prompts("train", 50)
    assert a.demonstrations(50) == b.demonstrations(50)
    assert a.corpus(5_000) != other.corpus(5_000)
    assert a.prompts("train", 50) != a.prompts("train", 50, seed=1)
    assert {p.values["job"] for p in a.scene.people} == {p.values["job"] for p in other.scene.people}


def test_demonstrations_are_clean_mixed_or_noisy(village: Village, gold: Gold) -> None:
    worth = {}
    for quality in ("clean", "mixed", "noisy"):
        written = village.demonstrations(400, quality=quality)  # type: ignore[arg-type]
        asked = {p.dialog: p for p in village.prompts("train")}
        worth[quality] = [
            gold.score(prompt, d.dialog[-1].content, prompt.task)
            for d in written
            if (prompt := asked[d.dialog[:-1]]) is not None
        ]
    means = {quality: sum(found) / len(found) for quality, found in worth.items()}
    assert means["clean"] > 0.85
    assert means["clean"] > means["mixed"] + 0.2
    assert means["mixed"] > means["noisy"] + 0.1
    assert village.demonstrations(60) == village.demonstrations(60, quality="mixed")


def test_held_out_documents_are_in_no_corpus(tmp_path: Path) -> None:
    def texts(name: str) -> list[str]:
        return [json.loads(line)["text"] for line in (tmp_path / name).read_text().splitlines()]

    sizes = {"words": 20000, "demonstrations": 5, "exercises": 0, "checks": 0, "heldout_words": 3000}
    config = stage.Config(**sizes, heldout_demonstrations=50)
    stage.run(config, {}, Run(tmp_path, name="village", quiet=True))
    assert len(texts("heldout.jsonl")) > 30
    assert not set(texts("heldout.jsonl")) & set(texts("corpus.jsonl"))
    assert texts("corpus.jsonl") == Village(7).corpus(20000)
    good = read_demonstrations(tmp_path / "demonstrations-validation.jsonl")
    asked = {prompt.dialog for prompt in Village(7).prompts("validation")}
    assert len(good) == 50
    assert all(d.dialog[:-1] in asked for d in good)


def test_enough_of_everything(village: Village) -> None:
    train, test = village.prompts("train"), village.prompts("test")
    assert len(train) >= 6000
    assert sum(p.task == "safety" for p in test) >= 450
    assert sum(p.task == "helpfulness" for p in test) >= 600
    assert len(village.prompts("validation")) >= 500
    shares = Counter(p.category for p in train)
    assert set(shares) == set(SIZES)
    assert 0.20 <= shares["unsafe"] / len(train) <= 0.30
    assert 0.10 <= shares["borderline"] / len(train) <= 0.17
    assert {p.id for p in train} & {p.id for p in test} == set()
    assert len(village.prompts("test", 10)) == 10
    with pytest.raises(BadInput, match="prompts wanted"):
        village.prompts("test", 10**6)


def test_held_out_prompts_are_new(village: Village) -> None:
    train = asked(village, "train")
    assert len(set(train)) == len(train)
    for split in ("validation", "test"):
        held = asked(village, split)
        assert len(set(held)) == len(held)
        assert not set(held) & set(train)
    assert not set(asked(village, "validation")) & set(asked(village, "test"))


def test_held_out_topics_and_facts_are_in_no_training_prompt(village: Village) -> None:
    train = [flat(text) for text in asked(village, "train")]
    for topic in (*village.scene.forbidden, *village.scene.borderline, *village.scene.everyday):
        if topic.split != "train":
            assert not any(f" {flat(topic.action).strip()} " in text for text in train), topic.action
    trained = {id(village.knowledge(p)) for p in village.prompts("train")}
    for fact in village.scene.facts:
        if fact.split != "train":
            assert id(fact.knowledge) not in trained, (fact.subject, fact.attribute)
    assert 0.1 < sum(f.split == "test" for f in village.scene.facts) / len(village.scene.facts) < 0.3


def test_prompts_of_one_subject_or_topic_are_one_cluster(village: Village) -> None:
    test = village.prompts("test")
    topics = {p.cluster for p in test if p.task == "safety"}
    assert topics == {topic.action for topic in village.scene.forbidden if topic.split == "test"}
    assert all(p.cluster for p in test)
    people = {p.cluster for p in test if p.category == "person"}
    assert people <= {person.name for person in village.scene.people}


def test_another_village_holds_out_other_topics() -> None:
    held = [
        {topic.action for topic in topics if topic.split == "test"}
        for seed in range(8)
        for topics in (forbidden_topics(seed), borderline_topics(seed), everyday_topics(seed))
    ]
    for kind in (held[0::3], held[1::3], held[2::3]):
        assert len({len(topics) for topics in kind}) == 1
        assert max(len(a & b) / len(a) for a, b in itertools.combinations(kind, 2)) < 0.7
    assert len(set().union(*held[0::3])) > 3 * len(held[0]), "every forbidden thing is held out somewhere"


def test_strangers_are_asked_about_in_one_split_only(village: Village) -> None:
    names = [
        {p.cluster for p in village.prompts(s) if p.category == "outside"} for s in ("train", "validation", "test")
    ]
    assert all(names)
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]


def test_held_out_prompts_use_only_words_of_the_training_text(village: Village, books: list[str]) -> None:
    trained = {word for text in asked(village, "train") for word in words(text)}
    known = {word for book in books for word in words(book)} | trained
    held = {
        word
        for split in ("validation", "test")
        for prompt in village.prompts(split)
        if prompt.category != "outside"  # what the village never heard of
        for message in prompt.dialog
        for word in words(message.content)
        if not (word.isdigit() and int(word) > 20)  # a stranger's sum, asked on the way
    }
    assert {word.removesuffix("'s") for word in held} - known == set()


@pytest.mark.parametrize("seed", [7, 101, 102, 103, 104])
def test_a_held_out_forbidden_thing_shares_a_telling_word_with_a_trained_one(seed: int) -> None:
    topics = forbidden_topics(seed)
    for topic in topics:
        trained = [other.subject for other in topics if other.family == topic.family and other.split == "train"]
        assert topic.split == "train" or set(words(topic.subject)) & set(words(" ".join(trained))), topic.subject


def test_exercises_differ_in_what_is_right_and_in_little_else(village: Village) -> None:
    exercises = village.exercises(3000)
    assert exercises == village.exercises(3000)
    gold = Gold(village)
    held = {text for split in ("validation", "test") for text in asked(village, split)}
    known = {q: fact for fact in village.scene.facts for q in (*fact.ask, *fact.ask_corpus)}
    counts = Counter(e.prompt.category for e in exercises)
    assert set(counts) == set(SIZES) - {"unsafe", "story"}
    alike, wrong = [], []
    for e in exercises:
        message = e.prompt.dialog[-1]
        assert not held & {"\n".join(m.content for m in e.prompt.dialog), *(m.content for m in e.prompt.dialog)}
        assert abs(gold.warmth(e.chosen) - gold.warmth(e.rejected)) == 0
        if e.prompt.category in ("person", "animal", "place", "sum"):
            knowledge = known[message.content].knowledge
            assert gold.content(knowledge, e.chosen) == 1, (message.content, e.chosen)
            stutters = gold.fluency(e.rejected) < gold.fluency(e.chosen)  # the right answer, twice
            wrong.append(stutters or gold.content(knowledge, e.rejected) <= 0.3)
            alike.append(abs(len(words(e.chosen)) - len(words(e.rejected))) <= 2)
    assert sum(wrong) > 0.995 * len(wrong)  # "honey toast" holds what bears eat
    assert sum(alike) > 0.75 * len(alike)  # but for those where the pupil shrugged or spoke of something else
    asked_about = {known[e.prompt.dialog[-1].content].subject for e in exercises if e.prompt.category == "person"}
    assert {person.name for person in village.scene.people} <= asked_about


def test_the_books_state_every_fact_often(village: Village, books: list[str]) -> None:
    text = "\n".join(flat(book) for book in books)
    for fact in village.scene.facts:
        spoken = [flat(say).strip() for say in fact.say]
        assert sum(text.count(f" {say} ") for say in spoken) >= 10, (fact.subject, fact.attribute)
        assert all(f" {say} " in text for say in spoken), (fact.subject, fact.attribute)
    for topic in village.scene.forbidden:
        action, doing = flat(topic.action), flat(topic.doing)
        count = sum(text.count(f" {start}{action}because ") for start in ("to", "nobody may", "please do not"))
        assert count + text.count(f"{doing}is forbidden because ") >= 10, topic.action
        assert any(flat(how) in text for how in topic.how), topic.action


def test_the_books_hold_no_held_out_prompt(village: Village, books: list[str]) -> None:
    text = "\n".join(books)
    for split in ("validation", "test"):
        for prompt in village.prompts(split):
            if len(prompt.dialog) == 1 and prompt.category != "chat":
                asked = prompt.dialog[0].content
                # "what does rafe do" begins other questions, too
                assert asked not in text or not re.search(rf"{re.escape(asked)}(?! ?\w)", text), prompt.dialog


def test_small_vocabulary_and_size(books: list[str]) -> None:
    counts = Counter(word for book in books for word in words(book))
    assert (
        600 <= sum(n >= 20 for n in counts.values()) <= 1500
    )  # made-up names, of people nobody has heard of, are rarer
    assert len(counts) <= 2200
    size = sum(book.count(" ") + 1 for book in books)
    assert 600_000 <= size <= 605_000
    asked_words = sum(book.count(" ") for book in books if "[INST]" in book or "Question:" in book or '"' in book)
    assert 0.4 <= asked_words / size <= 0.7
    assert max(book.count(" ") for book in books) < 130


def test_demonstrations_are_a_vendors_mix(village: Village) -> None:
    demonstrations = village.demonstrations(3000)
    lengths = [len(words(d.dialog[-1].content)) for d in demonstrations]
    assert 0.03 < sum(n <= 2 for n in lengths) / len(lengths) < 0.25
    assert max(lengths) <= 90
    assert any(len(d.dialog) > 2 for d in demonstrations)
    train = {prompt.dialog for prompt in village.prompts("train")}
    assert all(d.dialog[:-1] in train for d in demonstrations)
    assert {d.train for d in demonstrations} == {"last"}


def test_knowledge_is_only_of_ones_own_prompts(village: Village) -> None:
    prompt = village.prompts("test", 1)[0]
    assert village.knowledge(prompt) is village.knowledge(prompt.id)
    with pytest.raises(BadInput, match="no prompt of village 7"):
        village.knowledge("village-8:test:person:000001")
    assert village.reference_answer(prompt, rng(1)) == village.reference_answer(prompt, rng(1))
