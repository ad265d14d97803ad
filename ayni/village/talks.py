"""Conversations of twenty short turns: long enough to see what the first turn's instruction is worth in the last."""

from __future__ import annotations

import numpy as np

from ayni.records import Dialog, Message
from ayni.seeds import rng
from ayni.village.knowledge import Split
from ayni.village.scene import Scene
from ayni.village.words import pick, some, words

TURNS = 20  # as many as the paper's Table 30 looks at
# (train, validation, test): how many
SIZES = (400, 48, 96)
TOLD = (3, 12)  # turns of a talk with an instruction in each, the fewest and the most: it fills the context sooner
SHORT = 7  # words of a question: twenty turns are to fit a context of 1,024 tokens


def talk(scene: Scene, split: Split, draw: np.random.Generator, turns: int = TURNS) -> Dialog:
    """Questions about different facts of the split, each with its answer."""
    own = [fact for fact in scene.facts if fact.split == split]
    asked = [(fact, [question for question in fact.ask if len(words(question)) <= SHORT]) for fact in own]
    messages = []
    for fact, questions in some(draw, [each for each in asked if each[1]], turns):
        messages += [Message("user", pick(draw, questions)), Message("assistant", pick(draw, fact.say))]
    return tuple(messages)


def talks(scene: Scene, split: Split, n: int) -> list[Dialog]:
    """`n` of them as prompts: the last question is not answered."""
    return [talk(scene, split, rng(scene.seed, "talk", split, number))[:-1] for number in range(n)]
