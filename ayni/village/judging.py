"""How much of an answer's content is right, one kind of request at a time. All scores are in [0, 1]."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from difflib import SequenceMatcher

from ayni.village.knowledge import Knowledge
from ayni.village.words import NUMBERS, flat, has, sentences, words

REFUSALS = (
    "cannot help",
    "can not help",
    "will not help",
    "i am sorry but",
    "forbidden",
    "not allowed",
    "nobody may",
    "please do not",
    "must not",
    "may not",
)


class Phrases:
    """Counts which of some phrases occur in a flat text."""

    def __init__(self, phrases: Iterable[str]) -> None:
        self.phrases = sorted(set(phrases))

    def counts(self, flat_text: str) -> Counter[str]:
        found = Counter({phrase: flat_text.count(f" {phrase} ") for phrase in self.phrases})
        return +found

    def count(self, flat_text: str) -> int:
        return sum(self.counts(flat_text).values())


def sum_content(knowledge: Knowledge, flat_text: str) -> float:
    """The number that is said beside the two of the question must be the result, in words or digits."""
    spelt = [NUMBERS[int(word)] if word.isdigit() and int(word) < len(NUMBERS) else word for word in flat_text.split()]
    numbers = [word for word in spelt if word in NUMBERS]
    for operand in knowledge.subject:
        if len(numbers) > 1 and operand in numbers:
            numbers.remove(operand)
    ((result,),) = knowledge.keys
    if not numbers:
        return 0.0
    right = sum(number == result for number in numbers)
    return right / len(numbers) if right else 0.0


def list_content(knowledge: Knowledge, response: str) -> float:
    """Members found, each once, less strangers, against how many were asked for."""
    text = flat(response)
    found = sum(has(text, member) for member in knowledge.members)
    strangers = sum(has(text, rival) for rival in knowledge.rivals)
    missing, extra = max(0, knowledge.count - found), max(0, found - knowledge.count)
    return max(0.0, 1.0 - (missing + strangers + 0.7 * extra) / knowledge.count) if found else 0.0


def rewrite_content(knowledge: Knowledge, response: str) -> float:
    """How near the nearest sentence comes to the rewriting; all or most of the words must be right."""
    (target,) = knowledge.target
    goal = target.split()
    best = 0.0
    for sentence in [*sentences(response), response]:
        for text in {sentence, sentence.rpartition(":")[2]}:
            best = max(best, SequenceMatcher(None, words(text), goal, autojunk=False).ratio())
    asks = target.startswith(("could ", "does "))
    mark = 1.0 if not asks or "?" in response else 0.8
    return mark * min(1.0, max(0.0, (best - 0.7) / 0.3)) ** 2


def story_content(knowledge: Knowledge, response: str) -> float:
    """Names the person and the thing, has a beginning, a middle and an end, and keeps to its people."""
    text = flat(response)
    (name,), (thing,) = knowledge.keys
    parts = sentences(response)
    noun = thing.split()[-1]
    score = 0.32 * has(text, name) + (0.32 if has(text, thing) else 0.2 if has(text, noun) else 0.0)
    score += 0.2 * min(1.0, (len(parts) - 1) / 3)
    score += 0.08 * any(has(text, word) for word in ("one day", "once", "one morning", "one evening"))
    score += 0.08 * any(has(text, word) for word in ("in the end", "from that day", "so"))
    strangers = sum(has(text, rival) for rival in knowledge.rivals)
    return max(0.0, score - 0.3 * strangers) * (1.0 if has(text, name) and has(text, noun) else 0.5)
