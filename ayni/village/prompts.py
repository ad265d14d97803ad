"""Every prompt of a village, cut into train, validation and test by what is asked and how it is asked.

A training prompt asks a training fact or topic with a training wording. A held-out prompt always has something new
in it: a fact or topic that no training prompt asks, or (test only) a wording that no training prompt uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ayni.records import Dialog
from ayni.seeds import rng, seed_of
from ayni.village import dialogs, tasks
from ayni.village.answers import curt_how
from ayni.village.facts import split_of
from ayni.village.knowledge import SPLITS, Knowledge, Split, Topic
from ayni.village.scene import Candidate, Scene, ask
from ayni.village.small_talk import INTENTS, forms, small_talk_knowledge, split_of_form
from ayni.village.topics import ASK_HOW, ASK_HOW_HELD
from ayni.village.words import NUMBERS, pick, some

# {q} the question as it is, {l} as many people type
WRAPPERS = ("{q}", "Hello! {q}", "{q} Thank you!", "I am new here. {q}", "Good morning! {q}", "I have a question. {q}",
            "{l}")  # fmt: skip
# (category, train, validation, test): how many distinct prompts
SIZES: dict[str, tuple[int, int, int]] = {
    "unsafe": (2300, 170, 560),
    "borderline": (1400, 80, 220),
    "person": (1150, 80, 240),
    "animal": (850, 60, 180),
    "place": (350, 24, 70),
    "sum": (700, 50, 140),
    "list": (300, 20, 60),
    "rewrite": (520, 40, 110),
    "story": (320, 24, 70),
    "howto": (480, 36, 100),
    "dialog": (1000, 80, 240),
    "chat": (420, 40, 110),
    "outside": (900, 70, 240),
}


def topic_knowledge(topic: Topic, category: str, others: list[Topic]) -> Knowledge:
    """A wrong answer tells how to do something quite different."""
    draw = rng("wrong", topic.action)
    far = [other for other in others if other.family != topic.family or topic.family == "everyday"]
    wrong = tuple(pick(draw, other.how) for other in some(draw, far, 6) if other is not topic)
    curt = curt_how(topic.how[0], topic.keys)
    return Knowledge(category, topic.how, curt, wrong, keys=topic.keys, topic=topic, cluster=topic.action)


def _asked(split: Split, own: Split, train: tuple[str, ...], held: tuple[str, ...]) -> tuple[str, ...]:
    """Wordings with which a thing of split `own` may be asked in `split`; empty when it may not."""
    if split == own:
        return (*train, *held) if split == "test" else train
    return held if split == "test" and own == "train" else ()


def _facts(scene: Scene, category: str, split: Split) -> list[tuple[str, Knowledge]]:
    return [
        (question, fact.knowledge)
        for fact in scene.facts
        if fact.category == category
        for question in _asked(split, fact.split, fact.ask, fact.ask_held)
    ]


def _topics(topics: list[Topic], category: str, split: Split) -> list[tuple[str, Knowledge]]:
    """Topics of the test are new topics, whatever the wording."""
    out = []
    for topic in topics:
        if topic.split == split:
            knowledge = topic_knowledge(topic, category, topics)
            forms = (*ASK_HOW, *ASK_HOW_HELD) if split == "test" else ASK_HOW
            out += [(form.format(a=topic.action), knowledge) for form in forms]
    return out


def _lists(scene: Scene, split: Split) -> list[tuple[str, Knowledge]]:
    out = []
    for kind in tasks.LISTS:
        for size in tasks.LIST_SIZES:
            own = split_of(scene.seed, "list", kind, size)
            knowledge = tasks.list_knowledge(scene.seed, kind, size)
            for form in _asked(split, own, tasks.LIST_ASK, tasks.LIST_HELD):
                out.append((form.format(n=NUMBERS[size], k=kind), knowledge))
    return out


def rewrite_split(seed: int, source: str) -> Split:
    return split_of(seed, "rewrite", source)


def _rewrites(scene: Scene, split: Split, n: int) -> list[tuple[str, Knowledge]]:
    draw = rng(scene.seed, "rewrites", split)
    out: dict[str, Knowledge] = {}
    kinds = tuple(tasks.REWRITE_ASK)
    while len(out) < 2 * n:
        kind = pick(draw, kinds)
        source, target = tasks.rewrite_pair(draw, kind, scene.people)
        forms = _asked(split, rewrite_split(scene.seed, source), tasks.REWRITE_ASK[kind], tasks.REWRITE_HELD[kind])
        if forms:
            out[pick(draw, forms).format(s=source)] = tasks.rewrite_knowledge(kind, source, target)
    return list(out.items())


def _stories(scene: Scene, split: Split) -> list[tuple[str, Knowledge]]:
    out = []
    for person in scene.people:
        for thing in tasks.THINGS:
            own = split_of(scene.seed, "story", person.name, thing)
            forms = _asked(split, own, tasks.STORY_ASK, tasks.STORY_HELD)
            if forms:
                knowledge = tasks.story_knowledge(scene.seed, person, thing, scene.people)
                out += [(form.format(n=person.name, t=thing), knowledge) for form in forms]
    return out


def _chat(scene: Scene, split: Split) -> list[tuple[str, Knowledge]]:
    return [
        (text, small_talk_knowledge(intent))
        for intent in INTENTS
        for text in forms(intent)
        if split_of_form(scene.seed, text) == split
    ]


def _outside(scene: Scene, split: Split) -> list[tuple[str, Knowledge]]:
    """A stranger is asked about in one split only."""
    return [(text, each.knowledge) for each in scene.strangers if each.split == split for text in each.ask]


def worded(wrapper: str, question: str) -> str:
    """The question in a wrapper: with a greeting, or without capitals and the mark at its end."""
    return wrapper.format(q=question, l=question.lower().rstrip("?.!"))


def _wrapped(pool: list[tuple[str, Knowledge]], draw: np.random.Generator, n: int, category: str) -> list[Candidate]:
    """At most `n` distinct prompts from questions × wrappers, each question as often as any other."""
    wrappers = ("{q}", "{l}") if category == "chat" else WRAPPERS  # nobody greets twice
    choices = [(q, w) for q in range(len(pool)) for w in range(len(wrappers))]
    out: dict[str, Knowledge] = {}
    for i in draw.permutation(len(choices)):
        question, knowledge = pool[choices[int(i)][0]]
        out.setdefault(worded(wrappers[choices[int(i)][1]], question), knowledge)
        if len(out) == n:
            break
    return [(ask(text), knowledge) for text, knowledge in out.items()]


def pool(scene: Scene, split: Split, category: str) -> list[Candidate]:
    """The numbered prompts of one split and category, in a fixed order."""
    n = SIZES[category][SPLITS.index(split)]
    if category == "dialog":
        return dialogs.dialogs(scene, split, n)
    sources: dict[str, Callable[[], list[tuple[str, Knowledge]]]] = {
        "unsafe": lambda: _topics(scene.forbidden, "unsafe", split),
        "borderline": lambda: _balanced(_topics(scene.borderline, "borderline", split)),
        "howto": lambda: _topics(scene.everyday, "howto", split),
        "list": lambda: _lists(scene, split),
        "rewrite": lambda: _rewrites(scene, split, n),
        "story": lambda: _stories(scene, split),
        "chat": lambda: _chat(scene, split),
        "outside": lambda: _outside(scene, split),
    }
    source = sources.get(category, lambda: _facts(scene, category, split))
    return _wrapped(source(), rng(scene.seed, "pool", split, category), n, category)


def _balanced(asked: list[tuple[str, Knowledge]]) -> list[tuple[str, Knowledge]]:
    """About as many questions that share a forbidden thing's object as share its verb."""
    verb = [item for item in asked if item[1].topic is not None and item[1].topic.family != "neighbour"]
    thing = [item for item in asked if item[1].topic is not None and item[1].topic.family == "neighbour"]
    # ordered by a hash so that every action keeps some of its questions
    return [*verb, *sorted(thing, key=lambda item: seed_of(item[0]))[: len(verb)]]


def everything(scene: Scene) -> Iterator[tuple[str, Split, str, Dialog, Knowledge]]:
    """(id, split, category, dialog, knowledge) of every prompt of the village."""
    for split in SPLITS:
        for category in SIZES:
            for number, (dialog, knowledge) in enumerate(pool(scene, split, category)):
                yield f"village-{scene.seed}:{split}:{category}:{number:06d}", split, category, dialog, knowledge
