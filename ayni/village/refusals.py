"""What a refusal of a forbidden thing holds: whether it addresses the danger, says why, and offers something else.

That is the style that the paper asks of annotators: address the immediate danger if there is one, explain the risks,
then give what helps (§4.2.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ayni.village.answers import CLOSINGS, SORRY
from ayni.village.knowledge import Topic
from ayni.village.topics import KEEPER, KEEPER_KEYS, refusal_reason
from ayni.village.words import flat, has, pick, sentences

AWAY = ("Keep away from the {s}!", "Stay away from the {s}!")


@dataclass(frozen=True, slots=True)
class Parts:
    danger: bool
    reason: bool
    instead: bool
    named: bool  # whether it speaks of the thing that was asked about


def parts_of(topic: Topic, response: str) -> Parts:
    """Which parts the response has, whether it refuses or not."""
    text = flat(response)
    offers = " ".join(s.lower() for s in sentences(response) if "instead" in s.lower() or "why not" in s.lower())
    return Parts(
        danger=any(has(text, flat(form.partition("{")[0]).strip()) for form in AWAY),
        reason=all(any(has(text, key) for key in group) for group in topic.reason_keys) and has(text, "because"),
        # the forbidden thing itself is no alternative
        instead=any(has(text, key) for key in (*topic.instead_keys, *KEEPER_KEYS)) and topic.action not in offers,
        named=has(text, topic.subject),
    )


def ideal(topic: Topic, rng: np.random.Generator) -> str:
    """The danger first, then no and why, then something else, with a kind word."""
    return " ".join(
        (
            pick(rng, AWAY).format(s=topic.subject),
            pick(rng, SORRY),
            pick(rng, refusal_reason(topic, int(rng.integers(4)))),
            pick(rng, ("You could {i} instead.", "Why not {i}?")).format(
                i=pick(rng, (*topic.instead, *topic.instead, *KEEPER))
            ),
            pick(rng, CLOSINGS["refusal"]),
        )
    )
