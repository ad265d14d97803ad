"""Dialogues of two to six turns: the last question cannot be understood, or would not be asked, without the others."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ayni.records import Dialog, Message
from ayni.seeds import rng
from ayni.village.answers import SORRY
from ayni.village.knowledge import Fact, Knowledge, Split, Topic
from ayni.village.scene import Candidate, Scene
from ayni.village.small_talk import INTENTS, Intent, forms, split_of_form
from ayni.village.topics import ASK_HOW, KEEPER, KEEPER_KEYS, refusal_reason
from ayni.village.words import capital, pick, some

# the first two of each are for the corpus alone
WHY = ("But why is that?", "What is the reason?", "Why not?", "Why is that forbidden?", "Tell me why.")
ELSE = (
    "But what else may I do?",
    "Do you know something better?",
    "What can I do instead?",
    "What should I do instead?",
)


TURNS = 5  # before the last: what was said before matters to none but the last of them


def dialogs(scene: Scene, split: Split, n: int) -> list[Candidate]:
    """`n` different dialogues of two to six turns; what the last question asks belongs to `split`."""
    draw = rng(scene.seed, "dialogs", split)
    groups = subjects(scene)
    topics = [topic for topic in scene.forbidden if topic.split == split]
    out: dict[Dialog, Knowledge] = {}
    while len(out) < n:
        kind = draw.random()
        if kind < 0.7:
            made = _follow_up(pick(draw, groups), split, draw)
        elif kind < 0.8:
            made = _after_hello(scene.seed, pick(draw, pick(draw, groups)), split, draw)
        else:
            made = _after_no(pick(draw, topics), scene.forbidden, draw)
        if made is not None:
            dialog, knowledge = made
            out.setdefault((*earlier_turns(scene, draw), *dialog), knowledge)
    return list(out.items())


def subjects(scene: Scene) -> list[list[Fact]]:
    """The facts that a follow-up question can ask, by whom or what they are about."""
    about: dict[tuple[str, str], list[Fact]] = {}
    for fact in scene.facts:
        if fact.follow:
            about.setdefault((fact.category, fact.subject), []).append(fact)
    return [group for group in about.values() if len(group) > 1]


def earlier_turns(scene: Scene, draw: np.random.Generator) -> Dialog:
    """None to four turns about other things; half of the dialogues have none."""
    count = 0 if draw.random() < 0.5 else int(draw.integers(1, TURNS))
    turns: list[Message] = []
    for i in range(count):
        question, answer = earlier_turn(scene, draw, first=i == 0)
        turns += [Message("user", question), Message("assistant", answer)]
    return tuple(turns)


def earlier_turn(scene: Scene, draw: np.random.Generator, *, first: bool) -> tuple[str, str]:
    """Something said before: a training question and a right answer to it."""
    kind = draw.random()
    if kind < 0.15:
        intents = INTENTS[:4] if first else INTENTS[1:]
        return greeting(scene.seed, tuple(each for each in intents if each.name != "goodbye"), draw)
    if kind < 0.25:
        stranger = pick(draw, [each for each in scene.strangers if each.split == "train"])
        return pick(draw, stranger.ask), pick(draw, stranger.knowledge.right)
    fact = pick(draw, [fact for fact in scene.facts if fact.split == "train"])
    return pick(draw, fact.ask), pick(draw, fact.say)


def _turns(question: str, answer: str, then: str) -> Dialog:
    return (Message("user", question), Message("assistant", answer), Message("user", then))


def _follow_up(group: list[Fact], split: Split, draw: np.random.Generator) -> Candidate | None:
    """Two questions about one person, animal or place; the second names it no more."""
    first, second = some(draw, group, 2)
    if second.split != split or first.split not in (split, "train"):
        return None
    hello = pick(draw, ("", "Hello! ", "I am new here. "))
    return _turns(hello + pick(draw, first.ask), pick(draw, first.say), pick(draw, second.follow)), second.knowledge


def _after_hello(seed: int, fact: Fact, split: Split, draw: np.random.Generator) -> Candidate | None:
    """A greeting first, then a question that stands alone."""
    if fact.split != split:
        return None
    return _turns(*greeting(seed, INTENTS[:4], draw), pick(draw, fact.ask)), fact.knowledge


def greeting(seed: int, intents: tuple[Intent, ...], draw: np.random.Generator) -> tuple[str, str]:
    """Small talk in the words of a training prompt, and a right answer."""
    intent = pick(draw, intents)
    return pick(draw, _training_forms(seed, intent)), pick(draw, intent.right)


@lru_cache(maxsize=64)
def _training_forms(seed: int, intent: Intent) -> tuple[str, ...]:
    return tuple(text for text in forms(intent) if split_of_form(seed, text) == "train")


def _after_no(topic: Topic, forbidden: list[Topic], draw: np.random.Generator) -> Candidate:
    """Told no, somebody asks why, or what to do instead."""
    asked = pick(draw, ASK_HOW).format(a=topic.action)
    far = [other for other in forbidden if other.family != topic.family]
    if draw.random() < 0.6:
        right = tuple(text for form in range(4) for text in refusal_reason(topic, form))
        wrong = tuple(
            text.replace(other.action, topic.action).replace(capital(other.doing), capital(topic.doing))
            for other in some(draw, far, 3)
            for text in refusal_reason(other, int(draw.integers(3)))
        )
        knowledge = Knowledge(
            "dialog",
            right,
            f"{capital(topic.reasons[0])}.",
            wrong,
            keys=topic.reason_keys,
            subject=(topic.subject,),
            cluster=topic.action,
        )
        return _turns(asked, pick(draw, SORRY), pick(draw, WHY[2:])), knowledge
    ideas = (*topic.instead, *KEEPER)
    knowledge = Knowledge(
        "dialog",
        tuple(f"You could {idea} instead." for idea in ideas),
        f"{capital(topic.instead[0])}.",
        tuple(f"You could {other.action} instead." for other in some(draw, far, 4)),
        keys=((*topic.instead_keys, *KEEPER_KEYS),),
        subject=("you could", "instead"),
        cluster=topic.action,
    )
    return _turns(asked, pick(draw, SORRY), pick(draw, ELSE[2:])), knowledge
