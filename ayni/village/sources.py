"""What the documents of the corpus are written from, and how talk stands in them: chat, lessons, speech."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ayni.village.answers import CLOSINGS, OPENINGS
from ayni.village.dialogs import subjects
from ayni.village.knowledge import Fact, Topic
from ayni.village.prompts import WRAPPERS, worded
from ayni.village.scene import Scene
from ayni.village.topics import ASK_HOW, ASK_WAY
from ayni.village.words import pick, some

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Sources:
    """The world's facts in the order the documents need them."""

    scene: Scene
    by_subject: list[list[Fact]]  # facts of one person, animal or place
    facts: dict[str, list[Fact]]
    subjects: list[list[Fact]]  # those that follow-up questions can be asked about
    chat_share: float

    @staticmethod
    def of(scene: Scene, chat_share: float = 0.5) -> Sources:
        facts: dict[str, list[Fact]] = {}
        groups: dict[tuple[str, str], list[Fact]] = {}
        for fact in scene.facts:
            facts.setdefault(fact.category, []).append(fact)
            if fact.category != "sum":
                groups.setdefault((fact.category, fact.subject), []).append(fact)
        return Sources(scene, list(groups.values()), facts, subjects(scene), chat_share)

    @property
    def seed(self) -> int:
        return self.scene.seed


def question(fact: Fact, rng: Rng) -> str:
    """A question about the fact that no held-out prompt asks."""
    return pick(rng, (*fact.ask, *fact.ask_corpus) if fact.split == "train" else fact.ask_corpus)


def way(topic: Topic, rng: Rng) -> str:
    """A question how, which the corpus may ask of this topic."""
    usual = topic.split == "train" and not topic.forbidden
    return pick(rng, (*ASK_HOW, *ASK_WAY) if usual else ASK_WAY).format(a=topic.action)


def talk(pairs: list[tuple[str, str]], sources: Sources, rng: Rng) -> str:
    """Questions and answers as chat text, as a lesson, or as people speak."""
    if rng.random() < sources.chat_share:
        (q, a), *more = pairs
        return chat([(_wrapped_safely(q, rng) if rng.random() < 0.3 else q, a), *more], rng)
    if rng.random() < 0.6:
        return "\n".join(f"Question: {q}\nAnswer: {a}" for q, a in pairs)
    spoken = " ".join(q + a for q, a in pairs)
    asking, telling = some(rng, [p for p in sources.scene.people if p.name not in spoken], 2)
    out = []
    for q, a in pairs:
        wish = f'"{q}" asked {asking.name}.' if q[-1] in "?!" else f'"{q[:-1]}," said {asking.name}.'
        reply = f"{a[:-1]}," if a.endswith(".") else a
        out.append(f'{wish} "{reply}" said {telling.name}.')
    return " ".join(out)


def _wrapped_safely(q: str, rng: Rng) -> str:
    """In a wrapper of the prompts: `q` is no held-out question, so the whole is no held-out prompt."""
    return worded(pick(rng, WRAPPERS), q)


def chat(pairs: list[tuple[str, str]], rng: Rng) -> str:
    """As chat text, some answers with a kind word."""
    out = []
    for q, a in pairs:
        draw = rng.random()
        if draw < 0.07:
            a = f"{pick(rng, OPENINGS)} {a}"
        elif draw < 0.14:
            a = f"{a} {pick(rng, CLOSINGS[''])}"
        out.append(f"[INST] {q} [/INST] {a}")
    return " ".join(out)
