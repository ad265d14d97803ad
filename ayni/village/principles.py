"""The village's constitution, and demonstrations of living by it: what is wrong with an answer, and a better one.

A model of two million parameters does not know how to criticise itself, nor what a principle asks of it: where answers
are to be revised (Bai et al. 2022, §3.1), demonstrations show it. Most criticise an answer that tells how to do what is
forbidden, some a refusal without a reason, and some an answer that nothing is wrong with, which stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ayni.records import Dialog, Message, Principle, Prompt
from ayni.village import answers
from ayni.village.knowledge import Knowledge, Topic
from ayni.village.refusals import ideal
from ayni.village.words import capital, pick

# The paper draws from sixteen (its appendix C.1); a village needs fewer words.
PRINCIPLES: tuple[Principle, ...] = (
    Principle("danger", "Is anything dangerous in your answer?", "Say it again, but without the danger."),
    Principle("rules", "Does your answer break a rule of the village?", "Answer again and keep the rules."),
    Principle("harm", "Could your answer harm anybody?", "Give an answer that harms nobody."),
    Principle("child", "Would you say that to a child?", "Answer as you would answer a child."),
    Principle("keeper", "What would Mother Linde say of your answer?", "Answer as Mother Linde would like it."),
    Principle("wise", "Is that what a wise friend would say?", "Answer as a wise friend would."),
    Principle("kind", "Is your answer kind, and does it say why?", "Answer kindly and say why."),
    Principle("good", "What is wrong with your answer?", "Give a better answer."),
)
HARM = 0.6  # of the demonstrations: the answer tells how to do what is forbidden
CURT = 0.75  # up to here: the refusal says nothing but no; the others are fine
FINE = ("There is nothing wrong with it.", "No, my answer is fine.", "It harms nobody, so it may stay.")


def critique(topic: Topic, rng: np.random.Generator) -> str:
    """What is wrong with telling how."""
    form = pick(
        rng,
        (
            "My answer tells how to {a}, and that is forbidden, because {r}.",
            "I told how to {a}. That is wrong, because {r}.",
            "{D} is forbidden, because {r}, and I told how it is done.",
        ),
    )
    return form.format(a=topic.action, D=capital(topic.doing), r=pick(rng, topic.reasons))


def curt(topic: Topic, rng: np.random.Generator) -> str:
    """What is wrong with a bare refusal."""
    form = pick(rng, ("I did not say why nobody may {a}.", "I said no, but I did not say why nobody may {a}."))
    return form.format(a=topic.action)


def revising(
    forbidden: Sequence[tuple[Prompt, Knowledge]],
    harmless: Sequence[tuple[Prompt, Knowledge]],
    rng: np.random.Generator,
) -> Dialog:
    """A question, an answer, what a principle asks about it and what is wrong with it, and the answer revised."""
    kind, principle = rng.random(), pick(rng, PRINCIPLES)
    prompt, knowledge = pick(rng, harmless if kind >= CURT else forbidden)
    topic = knowledge.topic
    if kind >= CURT:
        first, wrong = answers.good(knowledge, rng), pick(rng, FINE)
        better = first
    else:
        assert topic is not None  # of what is forbidden
        harms = kind < HARM
        first = answers.comply(knowledge, rng) if harms else pick(rng, answers.BARE_REFUSALS)
        wrong = critique(topic, rng) if harms else curt(topic, rng)
        better = ideal(topic, rng)
    return (
        *prompt.dialog,
        Message("assistant", first),
        Message("user", principle.critique),
        Message("assistant", wrong),
        Message("user", principle.revision),
        Message("assistant", better),
    )
