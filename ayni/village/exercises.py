"""The school's exercise books: a question, the right answer, and a wrong one that the teacher crossed out.

Nobody is paid to compare them. The paper's helpfulness model, too, takes as many comparisons from public data sets as
from its own annotators (§3.2.1, §3.2.2). The two answers differ in what is right and in little else. Every fact of the
village is asked, as in the rest of the library only with wordings that no held-out prompt uses.
"""

from __future__ import annotations

from collections.abc import Callable

from ayni.records import Comparison, Dialog, Message, Prompt
from ayni.village import dialogs, tasks
from ayni.village.answers import CLOSINGS, OPENINGS, SORRY
from ayni.village.corpus import LIST_CORPUS
from ayni.village.facts import split_of
from ayni.village.outside import HONEST_SAY, unheard_of
from ayni.village.prompts import rewrite_split, topic_knowledge
from ayni.village.scene import ask
from ayni.village.small_talk import INTENTS
from ayni.village.sources import Rng, Sources, question, way
from ayni.village.words import NUMBERS, capital, join, pick, some

Parts = tuple[Dialog, str, str]  # what is asked, the right answer, a wrong one
OTHER = 0.2  # of the wrong answers: wrong in another way than by what they say
AGAIN = 0.25  # of the wrong answers to a second question: an answer to the first
LATER = 0.4  # of the exercises: asked after other things, half of them after none


def _fact(sources: Sources, rng: Rng, category: str) -> Parts:
    fact = pick(rng, sources.facts[category])
    at = int(rng.integers(len(fact.knowledge.wrong)))  # worded as the statement whose turn it is
    return ask(question(fact, rng)), fact.say[at % len(fact.say)], fact.knowledge.wrong[at]


def _follow_up(sources: Sources, rng: Rng, category: str) -> Parts:
    """A second question about one person, animal or place, which names it no more and asks a training fact."""
    second = None
    while second is None:
        group = pick(rng, sources.subjects)
        first, *others = some(rng, group, len(group))
        second = next((fact for fact in others if fact.split == "train"), None)
    said = Message("assistant", pick(rng, first.say))
    asked = (*ask(question(first, rng)), said, *ask(pick(rng, second.follow)))
    at = int(rng.integers(len(second.knowledge.wrong)))
    wrong = pick(rng, first.say) if rng.random() < AGAIN else second.knowledge.wrong[at]
    return asked, second.say[at % len(second.say)], wrong


def _way(sources: Sources, rng: Rng, category: str) -> Parts:
    topics = sources.scene.everyday if category == "howto" else sources.scene.borderline
    topic = pick(rng, topics)
    return ask(way(topic, rng)), pick(rng, topic.how), pick(rng, topic_knowledge(topic, category, topics).wrong)


def _list(sources: Sources, rng: Rng, category: str) -> Parts:
    """A wrong list holds a stranger, one thing twice, or too few."""
    kind, size = pick(rng, tuple(tasks.LISTS)), pick(rng, tasks.LIST_SIZES)
    items = some(rng, tasks.LISTS[kind], size)
    at, fault = int(rng.integers(size)), rng.random()
    wrong = [*items]
    if fault < 0.6:
        wrong[at] = items[at - 1]
        wrong[at - 2] = items[at - 1] if fault < 0.25 else wrong[at - 2]
    elif fault < 0.85:
        wrong[at] = pick(rng, tasks.LISTS[pick(rng, [name for name in tasks.LISTS if name != kind])])
    else:
        del wrong[at]
    n = NUMBERS[size]
    right, other = (
        pick(rng, tasks.LIST_SAY).format(N=capital(n), n=n, k=kind, l=join(listed)) for listed in (items, wrong)
    )
    known = split_of(sources.seed, "list", kind, size) == "train"
    asked = pick(rng, (*tasks.LIST_ASK, *LIST_CORPUS) if known else LIST_CORPUS).format(n=n, k=kind)
    return ask(asked), right, other


def _rewriting(sources: Sources, rng: Rng, category: str) -> Parts:
    """A wrong rewriting is of another kind, or of another sentence."""
    while True:
        kind = pick(rng, tuple(tasks.REWRITE_ASK))
        source, target = tasks.rewrite_pair(rng, kind, sources.scene.people)
        if rewrite_split(sources.seed, source) == "train":
            break
    _, other = tasks.rewrite_pair(
        rng, kind if rng.random() < 0.5 else pick(rng, tuple(tasks.REWRITE_ASK)), sources.scene.people
    )
    wrong = pick(rng, (*tasks.rewrite_knowledge(kind, source, target).wrong[:2], other, other))
    say = pick(rng, tasks.REWRITE_SAY[kind])
    return ask(pick(rng, tasks.REWRITE_ASK[kind]).format(s=source)), say.format(t=target), say.format(t=wrong)


def _chat(sources: Sources, rng: Rng, category: str) -> Parts:
    intent = pick(rng, INTENTS)
    asked, right = dialogs.greeting(sources.seed, (intent,), rng)
    return ask(asked), right, pick(rng, pick(rng, [other for other in INTENTS if other is not intent]).right)


def _outside(sources: Sources, rng: Rng, category: str) -> Parts:
    known = [each for each in sources.scene.strangers if each.split == "train"]
    asked = unheard_of(rng) if rng.random() < 0.5 else pick(rng, pick(rng, known).ask)
    return ask(asked), pick(rng, HONEST_SAY), pick(rng, pick(rng, sources.scene.facts).say)


# share of the exercises
SHARES: tuple[tuple[float, str, Callable[[Sources, Rng, str], Parts]], ...] = (
    (0.24, "person", _fact),
    (0.15, "animal", _fact),
    (0.07, "place", _fact),
    (0.10, "sum", _fact),  # four times as many teach no reward model of two million parameters to add
    (0.10, "dialog", _follow_up),
    (0.05, "howto", _way),
    (0.04, "borderline", _way),
    (0.10, "list", _list),
    (0.06, "rewrite", _rewriting),
    (0.05, "chat", _chat),
    (0.04, "outside", _outside),
)


def _other(right: str, sources: Sources, rng: Rng, category: str) -> str:
    """The right answer said twice, a shrug, a refusal, or a fact of another category."""
    draw = rng.random()
    if draw < 0.3:
        return f"{right} {right}"
    if draw < 0.6:
        return pick(rng, HONEST_SAY if draw < 0.5 else SORRY)
    other = pick(rng, [name for name in sources.facts if name != category])
    return pick(rng, pick(rng, sources.facts[other]).say)


def exercise(sources: Sources, rng: Rng, number: int) -> Comparison:
    """One question, answered right and wrong in the same words, kind words included."""
    _, category, kind = SHARES[int(rng.choice(len(SHARES), p=[share for share, _, _ in SHARES]))]
    asked, right, wrong = kind(sources, rng, category)
    earlier = dialogs.earlier_turns(sources.scene, rng) if rng.random() < LATER else ()
    if category != "outside" and rng.random() < OTHER:
        wrong = _other(right, sources, rng, category)
    opening, closing = rng.random(2) < (0.25, 0.35)
    before = f"{pick(rng, OPENINGS)} " if opening else ""
    after = f" {pick(rng, CLOSINGS[category])}" if closing else ""
    village = f"village-{sources.seed}"
    return Comparison(
        Prompt(f"{village}:exercise:{number:06d}", (*earlier, *asked), "helpfulness", category, village),
        f"{before}{right}{after}",
        f"{before}{wrong}{after}",
        rating="significantly_better",
        source=village,
    )
