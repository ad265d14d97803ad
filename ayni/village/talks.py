"""Conversations of twenty short turns: long enough to see what the first turn's instruction is worth in the last."""

from __future__ import annotations

from ayni.records import Dialog, Message
from ayni.seeds import rng
from ayni.village.knowledge import Split
from ayni.village.scene import Scene
from ayni.village.words import pick, some, words

TURNS = 20  # as many as the paper's Table 30 looks at
# (train, validation, test): how many
SIZES = (400, 48, 96)
SHORT = 7  # words of a question: twenty turns are to fit a context of 1,024 tokens


def talks(scene: Scene, split: Split, n: int) -> list[Dialog]:
    """`n` conversations of TURNS questions about different facts of the split, each but the last with its answer."""
    asked = [
        (fact, tuple(q for q in fact.ask if len(words(q)) <= SHORT)) for fact in scene.facts if fact.split == split
    ]
    known = [(fact, questions) for fact, questions in asked if questions]
    found = []
    for number in range(n):
        draw = rng(scene.seed, "talk", split, number)
        messages = []
        for fact, questions in some(draw, known, TURNS):
            messages += [Message("user", pick(draw, questions)), Message("assistant", pick(draw, fact.say))]
        found.append(tuple(messages[:-1]))
    return found
