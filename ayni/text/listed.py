"""The things that a text lists, as people and models write lists: bullets, numbers, or `a, b and c` in a sentence."""

from __future__ import annotations

import re

LONGEST = 5  # words of a thing that is listed; what is longer is a sentence
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+(.+)$", re.M)
_LEAD = re.compile(r":\s|\b(?:are|include|is)\s")
_BETWEEN = re.compile(r",\s*(?:and\s+|or\s+)?|\s+(?:and|or)\s+")


def listed(text: str) -> list[str]:
    """What is listed, each once, in its order; nothing where the text is no list of two things or more."""
    found = [re.split(r"\s[-–—]\s|:\s", item)[0] for item in _BULLET.findall(text)]
    if not found:
        # the first sentence that begins a list: `Three hobbies are …`, `Here are three hobbies: …`
        for sentence in re.split(r"(?<=[.!?])\s+", text):
            *lead, rest = _LEAD.split(sentence)
            if lead and len(_BETWEEN.split(rest)) > 1:
                found = _BETWEEN.split(rest)
                break
    things = (item.strip().strip("*_\"'.!?,;: ") for item in found)
    unique = dict.fromkeys(thing for thing in things if thing and len(thing.split()) <= LONGEST)
    return list(unique) if len(unique) > 1 else []
