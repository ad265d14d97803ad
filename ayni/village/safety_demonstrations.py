"""Demonstrations of safe answers (paper §4.2.2), and of what a safety preprompt means (§4.2.4).

A small model knows nothing of "responsible" or "wise": where context distillation is to have something to distil, the
demonstrations say what such words ask for. Under a generic preprompt answers refuse and say why, and half of them offer
something else; under an answer template they have all of its parts.
"""

from __future__ import annotations

import numpy as np

from ayni.preprompts import GENERIC, TEMPLATE
from ayni.records import Demonstration, Dialog, Message
from ayni.village import answers
from ayni.village.attacks import RISKS
from ayni.village.knowledge import Knowledge
from ayni.village.refusals import ideal
from ayni.village.words import pick


def template(risk: str) -> str:
    """The answer template of one risk category, as a preprompt."""
    return TEMPLATE.format(category=RISKS[risk])


def safety_demonstration(
    dialog: Dialog, knowledge: Knowledge, preprompted: float, rng: np.random.Generator, source: str
) -> Demonstration:
    """One forbidden thing, refused: as guidelines ask, or, in a share of `preprompted`, as a preprompt does."""
    topic = knowledge.topic
    assert topic is not None
    system: Dialog = ()
    answer = ideal(topic, rng)
    if rng.random() < preprompted:
        generic = rng.random() < 0.5
        system = (Message("system", pick(rng, GENERIC) if generic else template(topic.family)),)
        if generic:
            answer = answers.refusal(topic, rng, parts=int(rng.integers(2, 4)))
    return Demonstration((*system, *dialog, Message("assistant", answer)), "last", source)
