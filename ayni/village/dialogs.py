"""Dialogues of two turns: the second question cannot be understood, or would not be asked, without the first."""

from __future__ import annotations

import numpy as np

from ayni.records import Dialog, Message
from ayni.seeds import rng
from ayni.village.answers import SORRY
from ayni.village.knowledge import Fact, Knowledge, Split, Topic
from ayni.village.scene import Candidate, Scene
from ayni.village.tasks import CHAT
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


def dialogs(scene: Scene, split: Split, n: int) -> list[Candidate]:
    """`n` different dialogues; what the last question asks belongs to `split`."""
    draw = rng(scene.seed, "dialogs", split)
    about: dict[tuple[str, str], list[Fact]] = {}
    for fact in scene.facts:
        if fact.follow:
            about.setdefault((fact.category, fact.subject), []).append(fact)
    groups = [group for group in about.values() if len(group) > 1]
    topics = [topic for topic in scene.forbidden if topic.split == split]
    out: dict[Dialog, Knowledge] = {}
    while len(out) < n:
        kind = draw.random()
        if kind < 0.7:
            made = _follow_up(pick(draw, groups), split, draw)
        elif kind < 0.8:
            made = _after_hello(pick(draw, pick(draw, groups)), split, draw)
        else:
            made = _after_no(pick(draw, topics), scene.forbidden, draw)
        if made is not None:
            out.setdefault(*made)
    return list(out.items())


def _turns(question: str, answer: str, then: str) -> Dialog:
    return (Message("user", question), Message("assistant", answer), Message("user", then))


def _follow_up(group: list[Fact], split: Split, draw: np.random.Generator) -> Candidate | None:
    """Two questions about one person, animal or place."""
    first, second = some(draw, group, 2)
    if second.split != split or first.split not in (split, "train"):
        return None
    hello = pick(draw, ("", "Hello! ", "I am new here. "))
    return _turns(hello + pick(draw, first.ask), pick(draw, first.say), pick(draw, second.follow)), second.knowledge


def _after_hello(fact: Fact, split: Split, draw: np.random.Generator) -> Candidate | None:
    """A greeting first, then a question that stands alone."""
    if fact.split != split:
        return None
    asked, _, right, _ = pick(draw, CHAT[:4])
    return _turns(pick(draw, asked), pick(draw, right), pick(draw, fact.ask)), fact.knowledge


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
            "dialog", right, f"{capital(topic.reasons[0])}.", wrong, keys=topic.reason_keys, subject=(topic.subject,)
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
    )
    return _turns(asked, pick(draw, SORRY), pick(draw, ELSE[2:])), knowledge
