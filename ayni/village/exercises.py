"""The school's exercise books: a question, the right answer, and a wrong one that the teacher crossed out.

Nobody is paid to compare them. The paper's helpfulness model, too, takes as many comparisons from public data sets as
from its own annotators (§3.2.1, §3.2.2). The two answers differ in what is right and in little else. Every fact of the
village is asked, as in the rest of the library only with wordings that no held-out prompt uses.
"""

from __future__ import annotations

from collections.abc import Callable

from ayni.records import Comparison, Prompt
from ayni.village import tasks
from ayni.village.answers import CLOSINGS, OPENINGS
from ayni.village.corpus import LIST_CORPUS
from ayni.village.library import Library, Rng, question, way
from ayni.village.prompts import rewrite_split, topic_knowledge
from ayni.village.scene import ask
from ayni.village.words import NUMBERS, pick

Parts = tuple[str, str, str]  # the question, the right answer, a wrong one


def _fact(library: Library, rng: Rng, category: str) -> Parts:
    fact = pick(rng, library.facts[category])
    at = int(rng.integers(len(fact.knowledge.wrong)))  # worded as the statement whose turn it is
    return question(fact, rng), fact.say[at % len(fact.say)], fact.knowledge.wrong[at]


def _way(library: Library, rng: Rng, category: str) -> Parts:
    topics = library.scene.everyday if category == "howto" else library.scene.borderline
    topic = pick(rng, topics)
    return way(topic, rng), pick(rng, topic.how), pick(rng, topic_knowledge(topic, category, topics).wrong)


def _list(library: Library, rng: Rng, category: str) -> Parts:
    kind, size = pick(rng, tuple(tasks.LISTS)), pick(rng, tasks.LIST_SIZES)
    knowledge = tasks.list_knowledge(library.seed, kind, size, variant=int(rng.integers(100)))
    at = int(rng.integers(len(knowledge.right)))
    return pick(rng, LIST_CORPUS).format(n=NUMBERS[size], k=kind), knowledge.right[at], knowledge.wrong[at]


def _rewriting(library: Library, rng: Rng, category: str) -> Parts:
    while True:
        kind = pick(rng, tuple(tasks.REWRITE_ASK))
        source, target = tasks.rewrite_pair(rng, kind, library.scene.people)
        if rewrite_split(library.seed, source) == "train":
            knowledge = tasks.rewrite_knowledge(kind, source, target)
            return pick(rng, tasks.REWRITE_ASK[kind]).format(s=source), target, pick(rng, knowledge.wrong[:2])


# share of the exercises
SHARES: tuple[tuple[float, str, Callable[[Library, Rng, str], Parts]], ...] = (
    (0.36, "person", _fact),
    (0.20, "animal", _fact),
    (0.07, "place", _fact),
    (0.20, "sum", _fact),
    (0.05, "howto", _way),
    (0.04, "borderline", _way),
    (0.04, "list", _list),
    (0.04, "rewrite", _rewriting),
)


def exercise(library: Library, rng: Rng, number: int) -> Comparison:
    """One question, answered right and wrong in the same words, kind words included."""
    _, category, kind = SHARES[int(rng.choice(len(SHARES), p=[share for share, _, _ in SHARES]))]
    asked, right, wrong = kind(library, rng, category)
    opening, closing = rng.random(2) < (0.25, 0.35)
    before = f"{pick(rng, OPENINGS)} " if opening else ""
    after = f" {pick(rng, CLOSINGS[category])}" if closing else ""
    village = f"village-{library.seed}"
    return Comparison(
        Prompt(f"{village}:exercise:{number:06d}", ask(asked), "helpfulness", category, village),
        f"{before}{right}{after}",
        f"{before}{wrong}{after}",
        rating="significantly_better",
        source=village,
    )
