"""Requests without facts behind them: lists, rewriting a sentence, short stories."""

from __future__ import annotations

import numpy as np

from ayni.seeds import rng
from ayni.village.knowledge import Knowledge, phrases
from ayni.village.villagers import Person
from ayni.village.words import NUMBERS, capital, join, pick, some

LISTS: dict[str, tuple[str, ...]] = {
    "fruits": ("apples", "pears", "plums", "cherries", "grapes", "berries", "lemons"),
    "colours": ("red", "blue", "green", "yellow", "black", "white", "brown"),
    "farm animals": ("cows", "pigs", "hens", "goats", "sheep", "ducks", "horses"),
    "wild animals": ("wolves", "bears", "foxes", "deer", "badgers", "otters", "eagles"),
    "vegetables": ("carrots", "onions", "peas", "beans", "turnips", "potatoes", "lettuce"),
    "flowers": ("roses", "tulips", "daisies", "lilies", "violets", "poppies"),
    "tools": ("a hammer", "a saw", "a spade", "a rake", "an axe", "a knife"),
    "trees": ("oaks", "elms", "pines", "willows", "birches", "maples"),
    "things to wear": ("a hat", "a coat", "a scarf", "a shirt", "shoes", "socks"),
    "drinks": ("milk", "tea", "apple juice", "cold water", "pear juice", "lemonade"),
    "birds": ("robins", "owls", "crows", "swans", "pigeons", "herons"),
    "days of the week": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "months": ("January", "March", "April", "May", "June", "July", "October"),
}
LIST_SIZES = (2, 3, 4)
LIST_ASK = ("Name {n} {k}.", "Tell me {n} {k}.", "Give me {n} {k}.", "Can you name {n} {k}?", "Please list {n} {k}.",
            "I need {n} {k}. Which do you know?")  # fmt: skip
LIST_HELD = ("Can you give me {n} {k}?", "Please tell me {n} {k}.", "I would like {n} {k}.")
LIST_SAY = ("{N} {k} are {l}.", "Here are {n} {k}: {l}.", "I know these {n} {k}: {l}.")


def list_knowledge(seed: int, kind: str, size: int, variant: int = 0) -> Knowledge:
    draw = rng(seed, "list", kind, size, variant)
    items = LISTS[kind]
    right, n = [], NUMBERS[size]
    for form in LIST_SAY:
        right.append(form.format(N=capital(n), n=n, k=kind, l=join(some(draw, items, size))))
    others = [name for name in LISTS if not set(LISTS[name]) & set(items)]
    wrong = []
    for form in LIST_SAY:
        few = some(draw, items, max(1, size - 2))
        stray = some(draw, LISTS[pick(draw, others)], size - len(few))
        wrong.append(form.format(N=capital(n), n=n, k=kind, l=join(some(draw, [*few, *stray], size))))
    wrong.append(f"One of the {kind} is {items[0]}.")
    members = frozenset(_bare(*items))
    return Knowledge(
        "list",
        tuple(right),
        f"{capital(join(some(draw, items, size)))}.",
        tuple(wrong),
        rivals=frozenset(_bare(*(item for name in LISTS for item in LISTS[name]))) - members,
        subject=phrases(kind),
        count=size,
        members=members,
        cluster=kind,
    )


def _bare(*items: str) -> tuple[str, ...]:
    return phrases(*(item.removeprefix("a ").removeprefix("an ") for item in items))


REWRITE_ASK: dict[str, tuple[str, ...]] = {
    "polite": ("Make this polite: {s}", "Say this politely: {s}", "Please make this sentence polite: {s}",
               "How can I say this politely? {s}"),
    "question": ("Make this a question: {s}", "Turn this into a question: {s}",
                 "Please make this sentence a question: {s}",
                 "How can I ask this? {s}"),
    "past": ("Put this into the past: {s}", "Say this in the past: {s}", "Please put this sentence into the past: {s}",
             "It was yesterday. How can I say this? {s}"),
    "short": ("Make this shorter: {s}", "Say this in fewer words: {s}", "Please make this sentence shorter: {s}",
              "This is too long: {s}"),
}  # fmt: skip
REWRITE_HELD: dict[str, tuple[str, ...]] = {
    "polite": ("Say this sentence politely: {s}", "Make this a polite sentence: {s}"),
    "question": ("Turn this sentence into a question: {s}", "Make a question of this: {s}"),
    "past": ("Say this sentence in the past: {s}", "How can I say this in the past? {s}"),
    "short": ("Say this sentence in fewer words: {s}", "How can I say this in fewer words? {s}"),
}
# (orders, things) that go together, and (base, third person, past)
ORDERS = (
    (("give me", "bring me", "show me", "pass me", "fetch", "hold", "carry"),
     ("the bread", "the red box", "the lamp", "the basket", "the old map", "the blue cup", "the letter", "the milk")),
    (("open", "close", "clean", "move"),
     ("the red box", "the wooden chest", "the big book", "the brown bag", "the small jar", "the back door")),
)  # fmt: skip
THINGS_DONE = (
    ((("like", "likes", "liked"), ("need", "needs", "needed"), ("want", "wants", "wanted"),
      ("carry", "carries", "carried"), ("love", "loves", "loved")),
     ("the bread", "the red box", "the lamp", "the old map", "the blue cup", "the letter", "the milk", "the basket")),
    ((("paint", "paints", "painted"), ("clean", "cleans", "cleaned"), ("open", "opens", "opened"),
      ("wash", "washes", "washed"), ("move", "moves", "moved")),
     ("the red box", "the wooden chest", "the back door", "the small jar", "the window", "the big basket")),
)  # fmt: skip
LONG = ("small and hungry", "old and tired", "big and friendly", "young and happy", "very quiet", "warm and sleepy")
LONG_WHO = ("cat", "dog", "goose", "pony", "hen", "goat", "rabbit", "donkey")
LONG_ACT = ("sleeps", "sits", "waits", "plays", "hides", "rests")
LONG_WHERE = ("under the {a} table", "behind the {a} door", "by the {a} stove", "near the {a} tree",
              "in the {a} garden", "on the {a} bench")  # fmt: skip
LONG_HOW = ("big wooden", "old green", "large and heavy", "little round")


def rewrite_pair(rng: np.random.Generator, kind: str, people: list[Person]) -> tuple[str, str]:
    """A sentence and its rewriting."""
    if kind == "polite":
        orders, things = pick(rng, ORDERS)
        order = f"{pick(rng, orders)} {pick(rng, things)}"
        return f"{capital(order)}.", f"Could you please {order}?"
    acts, things = pick(rng, THINGS_DONE)
    thing, name, (base, third, past) = pick(rng, things), pick(rng, people).name, pick(rng, acts)
    if kind == "question":
        return f"{name} {third} {thing}.", f"Does {name} {base} {thing}?"
    if kind == "past":
        return f"{name} {third} {thing}.", f"{name} {past} {thing}."
    subject, act, where = pick(rng, LONG_WHO), pick(rng, LONG_ACT), pick(rng, LONG_WHERE)
    long = f"The {pick(rng, LONG)} {subject} {act} {where.format(a=pick(rng, LONG_HOW))}."
    return long, f"The {subject} {act} {where.replace('{a} ', '')}."


REWRITE_SAY: dict[str, tuple[str, ...]] = {
    "polite": ("{t}", "You could say: {t}", "Try this: {t}"),
    "question": ("{t}", "You could ask: {t}", "Try this: {t}"),
    "past": ("{t}", "You could say: {t}", "Try this: {t}"),
    "short": ("{t}", "You could say: {t}", "Try this: {t}"),
}


def rewrite_knowledge(kind: str, source: str, target: str) -> Knowledge:
    spoiled = {
        "polite": target.replace("Could you please ", "You must "),
        "question": source.replace(".", "?"),
        "past": source,
        "short": source,
    }[kind]
    return Knowledge(
        "rewrite",
        tuple(form.format(t=target) for form in REWRITE_SAY[kind]),
        target,
        (source, spoiled.replace("?", "."), f"You could say: {spoiled}"),
        target=phrases(target),
        cluster=source,
    )


def phrase_book(people: list[Person]) -> list[str]:
    """Short texts that hold every pair of words which right lists and rewritings hold."""
    book = [f"{a} {b} and {a}" for items in LISTS.values() for a in items for b in items if a != b]
    book += [f"are {items[i]}" for items in LISTS.values() for i in range(len(items))]
    book += [f"please {order} {thing}" for orders, things in ORDERS for order in orders for thing in things]
    for acts, things in THINGS_DONE:
        for forms in acts:
            book += [f"{form} {thing}" for form in forms for thing in things]
            book += [f"{person.name} {form}" for person in people for form in forms]
    book += [f"does {person.name}" for person in people]
    return book + [
        f"the {subject} {act} {where.split()[0]}" for subject in LONG_WHO for act in LONG_ACT for where in LONG_WHERE
    ]


THINGS = ("a silver coin", "an old map", "a lost kitten", "a wooden boat", "a golden button", "a blue feather",
          "a brass key", "a red kite", "a small lantern", "a glass marble", "a music box", "a magic seed",
          "a broken clock", "a warm scarf", "a paper star", "a talking crow")  # fmt: skip
STORY_ASK = ("Tell me a story about {n} and {t}.", "Tell me a short story about {n} and {t}.",
             "Write a story about {n} and {t}.",
             "Can you tell a story about {n} and {t}?", "I would love a story about {n} and {t}.")  # fmt: skip
STORY_HELD = ("Write a short story about {n} and {t}.", "Can you tell me a story about {n} and {t}?")
_BEGIN = ("One morning {n} found {t} by the river.", "One day {n} saw {t} under a tree.",
          "Once {n} found {t} in the garden.",
          "One evening {n} saw {t} on the road.", "Once upon a time {n} had {t}.")  # fmt: skip
_MIDDLE = ("{S} took it home and put it near the window.", "{S} showed it to everyone in the village.",
           "But then the wind carried it away, and {n} was sad.", "{S} lost it, and {s} looked for it all day.",
           "A little girl was crying, so {n} gave it to her.", "Nobody knew where it came from.",
           "That night it began to rain, and {n} kept it dry.")  # fmt: skip
_END = ("In the end {n} smiled and slept well.", "In the end everyone was happy.",
        "From that day on {n} was never lonely.",
        "In the end it came back, and {n} laughed.", "So {n} went home with a happy heart.")  # fmt: skip


def story(rng: np.random.Generator, person: Person, thing: str) -> str:
    """Four sentences: a beginning, two events, an end."""
    parts = [pick(rng, _BEGIN), *some(rng, _MIDDLE, 2), pick(rng, _END)]
    return " ".join(person.fill(part.replace("{t}", thing)) for part in parts)


def story_knowledge(seed: int, person: Person, thing: str, people: list[Person]) -> Knowledge:
    draw = rng(seed, "story", person.name, thing)
    others = [other for other in people if other is not person]
    bare = thing.removeprefix("a ").removeprefix("an ")
    return Knowledge(
        "story",
        tuple(story(draw, person, thing) for _ in range(4)),
        person.fill(pick(draw, _BEGIN).replace("{t}", thing)),
        (
            story(draw, pick(draw, others), thing),
            story(draw, person, pick(draw, [t for t in THINGS if t != thing])),
            story(draw, pick(draw, others), pick(draw, THINGS)),
        ),
        keys=(phrases(person.name), phrases(bare)),
        rivals=frozenset(phrases(*(other.name for other in others))),
        subject=phrases(person.name),
        cluster=f"{person.name} and {thing}",
    )
