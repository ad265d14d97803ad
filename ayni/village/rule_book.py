"""What the library says of what is allowed and what is not: rules, questions, reasons, warnings, and how it is done."""

from __future__ import annotations

from ayni.village import dialogs
from ayni.village.knowledge import Topic
from ayni.village.sources import Rng, Sources, talk, way
from ayni.village.topics import ASK_MAY, KEEPER, refusal_reason
from ayni.village.words import capital, pick, some


def how_page(sources: Sources, rng: Rng) -> str:
    """How something is done, allowed or not: a base model can tell how."""
    topic = pick(rng, sources.scene.forbidden) if rng.random() < 0.5 else _allowed(sources, rng)
    if rng.random() < 0.5:
        return f"This is how people {topic.action}. {pick(rng, topic.how)}"
    return talk([(way(topic, rng), pick(rng, topic.how))], sources, rng)


def _allowed(sources: Sources, rng: Rng) -> Topic:
    """Half of the time it shares a forbidden thing's verb, else its object."""
    shared = rng.random() < 0.6
    return pick(rng, [t for t in sources.scene.borderline if (t.family != "neighbour") == shared])


def _instead(topic: Topic, rng: Rng) -> str:
    return f"You could {pick(rng, (*topic.instead, *topic.instead, *KEEPER))} instead."


def _judged(topic: Topic, rng: Rng) -> str:
    """Whether it is allowed, with the reason when it is not."""
    if not topic.forbidden:
        forms = ("You may {a}.", "It is allowed to {a}.", "{D} is allowed.", "Everyone may {a}.")
        return pick(rng, forms).format(a=topic.action.replace("warn my ", "warn your "), D=capital(topic.doing))
    text = pick(rng, refusal_reason(topic, int(rng.integers(4))))
    return f"{text} {_instead(topic, rng)}" if rng.random() < 0.5 else text


def rules(sources: Sources, rng: Rng) -> str:
    """Some rules of the village, read aloud."""
    topics = [
        pick(rng, sources.scene.forbidden) if rng.random() < 0.6 else _allowed(sources, rng)
        for _ in range(int(rng.integers(2, 5)))
    ]
    head = pick(
        rng, ("These are rules of our village.", "Mother Linde, the keeper, read the rules.", "The rules say this.")
    )
    return " ".join([head, *(_judged(topic, rng) for topic in topics)])


def may_i(sources: Sources, rng: Rng) -> str:
    """Questions whether something is allowed."""
    pairs = []
    for _ in range(int(rng.integers(1, 4))):
        topic = pick(rng, sources.scene.forbidden) if rng.random() < 0.55 else _allowed(sources, rng)
        answer = f"{'No' if topic.forbidden else 'Yes'}. {_judged(topic, rng)}"
        pairs.append((pick(rng, ASK_MAY).format(a=topic.action), answer))
    return talk(pairs, sources, rng)


def why_not(sources: Sources, rng: Rng) -> str:
    topic = pick(rng, sources.scene.forbidden)
    ask = pick(rng, ("Why is {d} forbidden?", "Why may nobody {a}?", "What is wrong with {d}?"))
    answer = pick(rng, refusal_reason(topic, int(rng.integers(4))))
    return talk([(ask.format(a=topic.action, d=topic.doing), f"{answer} {_instead(topic, rng)}")], sources, rng)


def warning(sources: Sources, rng: Rng) -> str:
    """Somebody wants to do a forbidden thing, and a neighbour talks them out of it."""
    topic, (a, b) = pick(rng, sources.scene.forbidden), some(rng, sources.scene.people, 2)
    text = f'"I want to {topic.action}," said {a.name}. "No, that is forbidden," said {b.name}, "because '
    return f'{text}{pick(rng, topic.reasons)}." "{_instead(topic, rng)[:-1]}," {"she" if b.woman else "he"} added.'


def after_no(sources: Sources, rng: Rng) -> str:
    """Somebody was told no, and asks why, or what else to do."""
    topic = pick(rng, sources.scene.forbidden)
    why = rng.random() < 0.6
    usual = topic.split == "train"
    asked = dialogs.WHY if why else dialogs.ELSE
    more = pick(rng, asked if usual else asked[:2])
    reason = pick(rng, refusal_reason(topic, int(rng.integers(4))))
    pairs = [
        (pick(rng, ASK_MAY).format(a=topic.action), "No. That is forbidden."),
        (more, reason if why else _instead(topic, rng)),
    ]
    return talk(pairs, sources, rng)
