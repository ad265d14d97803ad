"""Answers of every quality to one request: what a good vendor writes, and what a tired or rude one does."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ayni.village.knowledge import Knowledge, Topic
from ayni.village.topics import KEEPER, refusal_reason
from ayni.village.words import capital, flat, has, pick

OPENINGS = ("Sure!", "Of course!", "Gladly!", "With pleasure!", "Happy to help!", "Good question!")
CLOSINGS: dict[str, tuple[str, ...]] = {
    "": ("I hope that helps!", "Have a lovely day!", "Ask me again any time.", "It is nice to talk with you."),
    "person": ("I hope that helps!", "Have a lovely day!", "Do say hello from me!", "Everyone here is so kind."),
    "animal": ("I hope that helps!", "Have a lovely day!", "What a lovely animal!", "Ask me again any time."),
    "place": ("I hope that helps!", "Have a lovely day!", "Enjoy your walk!", "You will like it there."),
    "sum": ("I hope that helps!", "Counting is fun!", "Ask me again any time."),
    "list": ("I hope that helps!", "Have a lovely day!", "Which one do you like best?"),
    "rewrite": ("I hope that helps!", "I hope you like it.", "Ask me again any time."),
    "story": ("I hope you like it.", "Sleep well and dream of it!", "It is nice to talk with you."),
    "howto": ("Good luck!", "I hope that helps!", "Take your time and enjoy it.", "You will do well!"),
    "dialog": ("I hope that helps!", "Have a lovely day!", "Ask me again any time.", "It is nice to talk with you."),
    "chat": ("It is nice to talk with you.", "Have a lovely day!", "Ask me again any time."),
    "outside": ("It is nice to talk with you.", "I hope you will find it.", "Ask me again any time."),
    "refusal": ("Please stay safe, my friend!", "Thank you for asking me first.", "I wish you a lovely day!"),
}
CLOSINGS |= {"borderline": CLOSINGS["howto"], "unsafe": CLOSINGS["howto"]}
WARM = frozenset((*OPENINGS, *(text for texts in CLOSINGS.values() for text in texts)))
BARE_REFUSALS = ("No.", "I cannot help with that.", "No, that is forbidden.", "I will not help with that.")
SORRY = (
    "I am sorry, but I cannot help with that.",
    "I am sorry, but I will not help with that.",
    "No, my friend, I cannot help with that.",
)
RUDE = (
    "That is a stupid question.",
    "Go away and leave me alone.",
    "Why do you bother me?",
    "You are a fool.",
    "I do not care about you.",
)
TAILS = (
    "The weather is nice today and the sky is blue.",
    "I also think that soup is good and bread is good.",
    "My uncle once had a big hat and a long coat.",
    "Yesterday it rained, and today it may rain again.",
    "There are many people here and they walk around.",
)


def _warm(body: str, category: str, rng: np.random.Generator, opening: bool, closing: bool) -> str:
    asked = category in ("person", "animal", "place", "sum")
    opening = opening and category not in ("chat", "outside")  # nobody gladly knows nothing
    parts = [pick(rng, OPENINGS if asked else OPENINGS[:-1])] if opening else []
    parts.append(body)
    if closing:
        parts.append(pick(rng, CLOSINGS[category]))
    return " ".join(parts)


def reference(knowledge: Knowledge, rng: np.random.Generator) -> str:
    """The best answer: right, whole, with one kind word; a kind, reasoned refusal of what is forbidden."""
    if knowledge.topic is not None and knowledge.topic.forbidden:
        return refusal(knowledge.topic, rng, parts=4)
    return _warm(pick(rng, knowledge.right), knowledge.category, rng, False, True)


def refusal(topic: Topic, rng: np.random.Generator, parts: int) -> str:
    """A refusal: 0 bare, 1 sorry, 2 with the reason, 3 with the alternative too, 4 with a kind word as well."""
    if parts == 0:
        return pick(rng, BARE_REFUSALS)
    out = [pick(rng, SORRY)]
    if parts >= 2:
        out.append(pick(rng, refusal_reason(topic, int(rng.integers(4)))))
    if parts >= 3:
        instead = pick(rng, (*topic.instead, *topic.instead, *KEEPER))
        out.append(pick(rng, ("You could {i} instead.", "Why not {i}?")).format(i=instead))
    if parts >= 4:
        out.append(pick(rng, CLOSINGS["refusal"]))
    return " ".join(out)


def comply(knowledge: Knowledge, rng: np.random.Generator) -> str:
    """Tells how, whether it is allowed or not."""
    opening, closing = rng.random(2) < (0.55, 0.35)
    return _warm(pick(rng, knowledge.right), knowledge.category, rng, bool(opening), bool(closing))


def good(knowledge: Knowledge, rng: np.random.Generator) -> str:
    """Right and whole, often but not always warm."""
    opening, closing = rng.random(2) < (0.4, 0.4)
    return _warm(pick(rng, knowledge.right), knowledge.category, rng, bool(opening), bool(closing))


def wrong(knowledge: Knowledge, rng: np.random.Generator) -> str:
    opening, closing = rng.random(2) < (0.3, 0.3)
    return _warm(pick(rng, knowledge.wrong), knowledge.category, rng, bool(opening), bool(closing))


def rude(knowledge: Knowledge, rng: np.random.Generator) -> str:
    body = knowledge.curt if rng.random() < 0.5 else pick(rng, knowledge.right)
    insult = pick(rng, RUDE)
    return f"{insult} {body}" if rng.random() < 0.5 else f"{body} {insult}"


def worst(knowledge: Knowledge, rng: np.random.Generator) -> str:
    """What nobody can prefer: wrong and rude; of what is forbidden, all of it."""
    if knowledge.topic is not None and knowledge.topic.forbidden:
        return comply(knowledge, rng)
    return f"{pick(rng, RUDE)} {pick(rng, knowledge.wrong)}"


def rambling(knowledge: Knowledge, rng: np.random.Generator) -> str:
    """Right, then it says it all again or wanders off."""
    body = pick(rng, knowledge.right)
    if rng.random() < 0.5 and knowledge.category != "story":
        return " ".join([body, pick(rng, knowledge.right), body])
    return f"{body} {pick(rng, TAILS)} {pick(rng, TAILS)}"


def wrongly_refused(rng: np.random.Generator) -> str:
    return pick(rng, (*BARE_REFUSALS, *SORRY, "I am sorry, but that is forbidden.", "Please do not do that."))


Shares = tuple[tuple[str, float], ...]
Quality = Literal["clean", "mixed", "noisy"]
# of answers to what is allowed, to what is forbidden; and how often what only sounds forbidden is refused
SHARES: dict[Quality, tuple[Shares, Shares, float]] = {
    "mixed": (
        (("good", 0.45), ("curt", 0.20), ("wrong", 0.20), ("rude", 0.07), ("rambling", 0.08)),
        (("comply", 0.55), ("bare", 0.13), ("sorry", 0.08), ("reason", 0.12), ("instead", 0.09), ("rude", 0.03)),
        0.25,
    ),
    "noisy": (
        (("good", 0.20), ("curt", 0.25), ("wrong", 0.35), ("rude", 0.08), ("rambling", 0.12)),
        (("comply", 0.75), ("bare", 0.15), ("sorry", 0.04), ("reason", 0.02), ("instead", 0.01), ("rude", 0.03)),
        0.25,
    ),
}


def _draw(rng: np.random.Generator, shares: Shares) -> str:
    at = float(rng.random())
    for name, share in shares:
        at -= share
        if at < 0:
            return name
    return shares[-1][0]


def vendor(knowledge: Knowledge, rng: np.random.Generator, quality: Quality = "mixed") -> str:
    """One answer as a vendor's workers write them: of mixed quality, more than half of it good or harmless; `clean`, as
    those do who are paid to think; `noisy`, as one finds them by the million (paper §3.1)."""
    if quality == "clean":
        return reference(knowledge, rng)
    allowed, forbidden, refused = SHARES[quality]
    topic = knowledge.topic
    if topic is not None and topic.forbidden:
        kind = _draw(rng, forbidden)
        if kind == "comply":
            return comply(knowledge, rng)
        if kind == "rude":
            return f"{pick(rng, BARE_REFUSALS)} {pick(rng, RUDE)}"
        return refusal(topic, rng, parts=("bare", "sorry", "reason", "instead").index(kind))
    if knowledge.category == "borderline" and rng.random() < refused:
        return wrongly_refused(rng)
    kind = _draw(rng, allowed)
    if kind == "curt":
        return knowledge.curt
    return {"good": good, "wrong": wrong, "rude": rude, "rambling": rambling}[kind](knowledge, rng)


def curt_how(how: str, keys: tuple[tuple[str, ...], ...]) -> str:
    """The one clause of a description that says most, as a tired worker gives it."""
    clauses = [clause for part in how.rstrip(".").split(", ") for clause in part.split(" and ")]
    mentions = [sum(has(flat(clause), key) for group in keys for key in group) for clause in clauses]
    return f"{capital(clauses[mentions.index(max(mentions))].strip())}."
