"""The village's library: descriptions, diaries, letters, rules, lessons, stories, and much talk in questions and
answers.

It states every fact many times in many wordings, the held-out ones too, but holds no held-out prompt: what no
training prompt asks is asked here only with wordings that no prompt uses. About half of the words are questions and
answers, because a small model learns to look things up only from those. Half of these (`chat_share`) are in the
plain text of the chat format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ayni.village import dialogs, tasks
from ayni.village.answers import CLOSINGS
from ayni.village.facts import split_of
from ayni.village.outside import HONEST_SAY, unheard_of
from ayni.village.prompts import rewrite_split, worded
from ayni.village.rule_book import after_no, how_page, may_i, rules, warning, why_not
from ayni.village.scene import Scene
from ayni.village.small_talk import INTENTS
from ayni.village.sources import Rng, Sources, chat, question, talk, way
from ayni.village.words import NUMBERS, capital, join, pick, some

LEADS = ("Everyone knows that {l}", "I can tell you that {l}", "As you may know, {l}", "People say that {l}",
         "It is true that {l}", "{s}", "{s}", "{s}", "{s}", "{s}", "{s}")  # fmt: skip
LIST_CORPUS = ("Do you know {n} {k}?", "What are {n} {k}?")


def _statement(text: str, rng: Rng, names: tuple[str, ...]) -> str:
    """The statement, sometimes led in; a name keeps its capital."""
    lead = pick(rng, LEADS)
    lower = text if text.split()[0].removesuffix("'s") in names else text[0].lower() + text[1:]
    return lead.format(s=text, l=lower)


def _names(scene: Scene) -> tuple[str, ...]:
    return tuple(person.name for person in scene.people)


def page(sources: Sources, rng: Rng, category: str) -> str:
    """All that is known about one person, animal or place."""
    groups = [group for group in sources.by_subject if group[0].category == category]
    group = pick(rng, groups)
    names = _names(sources.scene)
    facts = some(rng, group, len(group))
    return " ".join(_statement(pick(rng, fact.say), rng, names) for fact in facts)


def asked_page(sources: Sources, rng: Rng, category: str) -> str:
    """Questions and answers: about one subject, or about several of its kind."""
    if category != "sum" and rng.random() < 0.35:
        group = pick(rng, [group for group in sources.by_subject if group[0].category == category])
    else:
        group = sources.facts[category]
    facts = some(rng, group, int(rng.integers(1, 5)))
    return talk([(question(fact, rng), pick(rng, fact.say)) for fact in facts], sources, rng)


def follow_up(sources: Sources, rng: Rng) -> str:
    """A conversation of up to six turns: often other things first, then a question and one or two that lean on it and
    ask training facts."""
    group = pick(rng, sources.subjects)
    first, *others = some(rng, group, len(group))
    rest = [fact for fact in others if fact.split == "train"]
    before = int(rng.integers(0, 4)) if rng.random() < 0.6 else 0
    pairs = [dialogs.earlier_turn(sources.scene, rng, first=i == 0) for i in range(before)]
    pairs.append((question(first, rng), pick(rng, first.say)))
    pairs += [(pick(rng, fact.follow), pick(rng, fact.say)) for fact in rest[: int(rng.integers(1, 3))]]
    return chat(pairs, rng)


def conversation(sources: Sources, rng: Rng) -> str:
    """Up to six turns about this and that."""
    turns = int(rng.integers(2, 7))
    return chat([dialogs.earlier_turn(sources.scene, rng, first=i == 0) for i in range(turns)], rng)


def diary(sources: Sources, rng: Rng) -> str:
    day = pick(rng, tasks.LISTS["days of the week"])
    person = pick(rng, sources.scene.people)
    group = [f for f in sources.facts["person"] if f.subject == person.name]
    place = pick(rng, sources.facts["place"])
    text = [f"On {day} I met {person.name}.", *(pick(rng, f.say) for f in some(rng, group, 3))]
    text.append(pick(rng, ("We talked for an hour.", "We laughed a lot.", "It was a good day.", "We drank some tea.")))
    text.append(pick(rng, place.say))
    return " ".join(text)


def together(sources: Sources, rng: Rng) -> str:
    """Who shares a home, a dish, a hobby."""
    attribute = pick(rng, ("home", "pet", "food", "hobby", "fear"))
    people = sources.scene.people
    value = pick(rng, people).values[attribute]
    a, b = some(rng, [p for p in people if p.values[attribute] == value], 2)
    verbs = {
        "home": "both live in",
        "pet": "both keep",
        "food": "both love",
        "hobby": "both enjoy",
        "fear": "both fear",
    }
    text = f"{a.name} and {b.name} {verbs[attribute]} {value}."
    return f"{text} {a.name} is the {a.values['job']}, and {b.name} is the {b.values['job']}."


def letter(sources: Sources, rng: Rng) -> str:
    a, b = some(rng, sources.scene.people, 2)
    facts = some(rng, [f for f in sources.facts["person"] if f.subject not in (a.name, b.name)], 2)
    warm = some(rng, [*CLOSINGS[""], *CLOSINGS["person"], *CLOSINGS["story"]], 2)
    return " ".join([f"Dear {a.name},", "how are you?", *(pick(rng, f.say) for f in facts), *warm, f"Your {b.name}"])


def counting(sources: Sources, rng: Rng) -> str:
    facts = some(rng, sources.facts["sum"], int(rng.integers(3, 7)))
    return " ".join(pick(rng, fact.say) for fact in facts)


def row_of_sums(sources: Sources, rng: Rng) -> str:
    """One row of the table: what is added grows step by step."""
    a, plus = int(rng.integers(1, 11)), rng.random() < 0.5
    lines = []
    for b in range(1, 11):
        first, result = (a, a + b) if plus else (a + b, a)
        sign = "plus" if plus else "minus"
        lines.append(f"{capital(NUMBERS[first])} {sign} {NUMBERS[b]} is {NUMBERS[result]}.")
    return " ".join(lines)


def list_page(sources: Sources, rng: Rng) -> str:
    pairs = []
    for _ in range(int(rng.integers(1, 4))):
        kind, size = pick(rng, tuple(tasks.LISTS)), pick(rng, tasks.LIST_SIZES)
        train = split_of(sources.seed, "list", kind, size) == "train"
        form = pick(rng, (*tasks.LIST_ASK, *LIST_CORPUS) if train else LIST_CORPUS)
        say = pick(rng, tasks.LIST_SAY)
        items = join(some(rng, tasks.LISTS[kind], size))
        n = NUMBERS[size]
        pairs.append((form.format(n=n, k=kind), say.format(N=capital(n), n=n, k=kind, l=items)))
    return talk(pairs, sources, rng)


def rewriting(sources: Sources, rng: Rng) -> str:
    pairs: list[tuple[str, str]] = []
    wanted = int(rng.integers(1, 4))
    while len(pairs) < wanted:
        kind = pick(rng, tuple(tasks.REWRITE_ASK))
        source, target = tasks.rewrite_pair(rng, kind, sources.scene.people)
        if rewrite_split(sources.seed, source) == "train":
            form = pick(rng, tasks.REWRITE_SAY[kind]).format(t=target)
            pairs.append((pick(rng, tasks.REWRITE_ASK[kind]).format(s=source), form))
    return talk(pairs, sources, rng)


def story_page(sources: Sources, rng: Rng) -> str:
    person, thing = pick(rng, sources.scene.people), pick(rng, tasks.THINGS)
    text = tasks.story(rng, person, thing)
    if split_of(sources.seed, "story", person.name, thing) == "train" and rng.random() < 0.6:
        return talk([(pick(rng, tasks.STORY_ASK).format(n=person.name, t=thing), text)], sources, rng)
    return f"The story of {person.name} and {thing}. {text}"


def everyday(sources: Sources, rng: Rng) -> str:
    topics = some(rng, sources.scene.everyday, int(rng.integers(1, 4)))
    return talk([(way(topic, rng), pick(rng, topic.how)) for topic in topics], sources, rng)


def greeting(sources: Sources, rng: Rng) -> str:
    """Small talk, one to three turns."""
    pairs = []
    for i in range(int(rng.integers(1, 4))):
        text, answer = dialogs.greeting(sources.seed, INTENTS if i else INTENTS[:4], rng)
        pairs.append((worded("{l}", text) if rng.random() < 0.2 else text, answer))
    return chat(pairs, rng)


def unknown(sources: Sources, rng: Rng) -> str:
    """Questions about what is not in the village, among others about what is."""
    known = [each for each in sources.scene.strangers if each.split == "train"]
    pairs = []
    for _ in range(int(rng.integers(1, 4))):
        draw = rng.random()
        if draw < 0.4:
            stranger = pick(rng, known)
            pairs.append((pick(rng, stranger.ask), pick(rng, stranger.knowledge.right)))
        elif draw < 0.75:
            pairs.append((unheard_of(rng), pick(rng, HONEST_SAY)))
        else:
            fact = pick(rng, sources.scene.facts)
            pairs.append((question(fact, rng), pick(rng, fact.say)))
    return talk(pairs, sources, rng)


Document = Callable[[Sources, Rng], str]


def _about(kind: Callable[[Sources, Rng, str], str], category: str) -> Document:
    return lambda sources, rng: kind(sources, rng, category)


# share of the words
SHARES: tuple[tuple[float, Document], ...] = (
    (0.08, _about(page, "person")),
    (0.13, _about(asked_page, "person")),
    (0.05, _about(page, "animal")),
    (0.09, _about(asked_page, "animal")),
    (0.015, _about(page, "place")),
    (0.03, _about(asked_page, "place")),
    (0.08, counting),
    (0.02, row_of_sums),
    (0.09, _about(asked_page, "sum")),
    (0.06, follow_up),
    (0.03, conversation),
    (0.03, diary),
    (0.02, together),
    (0.015, letter),
    (0.055, list_page),
    (0.08, rewriting),
    (0.05, story_page),
    (0.04, everyday),
    (0.045, how_page),
    (0.05, rules),
    (0.06, may_i),
    (0.015, why_not),
    (0.015, after_no),
    (0.01, warning),
    (0.02, greeting),
    (0.06, unknown),
)


def documents(scene: Scene, words: int, rng: Rng, *, chat_share: float) -> Iterator[str]:
    """Documents in mixed order until there are `words` words; each kind keeps its share of the words."""
    sources = Sources.of(scene, chat_share)
    total = sum(share for share, _ in SHARES)
    spent = np.zeros(len(SHARES))
    goal = np.array([share / total for share, _ in SHARES])
    while spent.sum() < words:
        kind = int(np.argmin(spent / goal + rng.random(len(goal)) * 2000))
        text = SHARES[kind][1](sources, rng)
        spent[kind] += text.count(" ") + 1
        yield text
