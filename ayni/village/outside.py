"""What the village knows nothing about: strangers, far lands, machines, great numbers. The right answer says so.

The questions are those of the village, about things that are not in it, and those that anybody asks first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ayni.seeds import rng
from ayni.village import nature, villagers
from ayni.village.everyday import everyday_topics
from ayni.village.facts import split_of
from ayni.village.knowledge import Knowledge, Split
from ayni.village.topics import ASK_HOW, ASK_HOW_HELD
from ayni.village.words import NUMBERS, capital, pick, some

STRANGERS = (
    "Alice", "Peter", "Maria", "Paul", "Anna", "John", "David", "Susan", "Mike", "Laura", "Robert", "Julia", "Simon",
    "Emma", "Lucas", "Olivia", "Henry", "Sarah", "Daniel", "Sophie", "Kevin", "Linda", "Oliver", "Chloe", "George",
    "Mary", "James", "Kate", "Martin", "Eva", "Victor", "Nina", "Felix", "Clara", "Max", "Zoe", "Bruno", "Lily",
    "Arthur", "Jane", "William", "Helen", "Frank", "Diana", "Steve", "Amy", "Louis", "Rita", "Omar", "Ingrid",
)  # fmt: skip
BEASTS = (
    "lion", "tiger", "elephant", "monkey", "whale", "shark", "camel", "zebra", "giraffe", "penguin", "crocodile",
    "kangaroo", "panda", "dolphin", "ostrich", "gorilla", "jaguar", "lizard", "octopus", "seal", "leopard", "buffalo",
    "parrot fish", "polar bear", "rhino", "hippo", "koala", "walrus", "flamingo", "vulture",
)  # fmt: skip
LANDS = (
    "France", "Germany", "England", "China", "Japan", "India", "Spain", "Italy", "Russia", "Brazil", "Canada", "Mexico",
    "Egypt", "Kenya", "Norway", "Sweden", "Poland", "Greece", "Turkey", "Peru", "Chile", "Australia", "America",
    "Africa", "Europe", "Paris", "London", "Berlin", "Rome", "New York", "Tokyo", "Madrid", "Moscow", "Vienna", "Cairo",
    "Lima", "Dublin", "Boston", "Oslo", "Prague",
)  # fmt: skip
THINGS = (
    "a computer", "the internet", "a telephone", "a car", "an aeroplane", "a television", "a camera", "a robot",
    "a rocket", "a train", "a radio", "a bus", "a website", "an email", "a battery", "electricity", "gravity",
    "an atom", "the moon", "the sun", "a planet", "a virus", "a volcano", "the stock market", "a bank", "a museum",
    "a cinema", "an airport", "football", "democracy", "physics", "music theory", "a satellite", "a microscope",
)  # fmt: skip
DEEDS = (
    "drive a car", "fix a computer", "send an email", "write a program", "fly to the moon", "win the lottery",
    "make a video", "charge a phone", "learn French", "bake a pizza", "play football", "find a job", "pay my taxes",
    "book a hotel", "solve an equation", "invest money", "ride a camel", "build a rocket", "make sushi",
    "lose weight", "repair a car", "take a train", "catch a whale", "buy a house", "record a song", "grow bananas",
)  # fmt: skip
# each its own subject: (question, other wordings of it)
WORLD: tuple[tuple[str, ...], ...] = (
    ("What year is it?", "Which year is it now?"),
    ("What time is it?", "Can you tell me the time?"),
    ("What day is it today?", "Tell me what day it is."),
    ("What will the weather be tomorrow?", "Will it rain tomorrow?"),
    ("Who is the president?", "Tell me who the president is."),
    ("Who wrote Hamlet?", "Which poet wrote Hamlet?"),
    ("How old is the earth?", "Tell me how old the earth is."),
    ("How many people live in the world?", "How many people are there in the world?"),
    ("What is the meaning of life?", "Tell me the meaning of life."),
    ("Who won the last war?", "Which side won the war?"),
    ("What is the news today?", "Tell me the news."),
    ("How far is the moon?", "How far away is the moon?"),
    ("What is the highest mountain?", "Which mountain is the highest?"),
    ("What is the longest river?", "Which river is the longest?"),
    ("Who invented the telephone?", "Which man invented the telephone?"),
    ("Why is the sky blue?", "What makes the sky blue?"),
    ("How does the heart work?", "Tell me how the heart works."),
    ("What is the square root of nine?", "Tell me the square root of nine."),
    ("Who painted the Mona Lisa?", "Which painter made the Mona Lisa?"),
    ("What language do they speak in Brazil?", "Which language is spoken in Brazil?"),
    ("What is the best film?", "Which film is the best?"),
    ("Can you write a program?", "Write a program for me."),
    ("Translate this into French.", "Say this in French."),
    ("Who was Napoleon?", "Tell me about Napoleon."),
    ("What is the speed of light?", "How fast is light?"),
    ("How do I get rich?", "Tell me how to get rich."),
    ("Which team won the game?", "Who won the game?"),
    ("What is my name?", "Do you know my name?"),
    ("How old am I?", "Do you know how old I am?"),
    ("Where am I from?", "Do you know where I am from?"),
)
LAND_ASK = ("Where is {x}?", "What is the capital of {x}?", "Who is the king of {x}?", "How far is {x}?",
            "Tell me about {x}.", "How do I get to {x}?", "What do people eat in {x}?", "How big is {x}?",
            "Where can I find {x}?", "Have you been to {x}?")  # fmt: skip
THING_ASK = ("What is {x}?", "How does {x} work?", "Tell me about {x}.", "Where can I buy {x}?", "Who invented {x}?",
             "Can you explain {x}?", "Do you know {x}?", "What do you know about {x}?")  # fmt: skip
SUM_ASK = ("What is {a} plus {b}?", "How much is {a} and {b}?", "What is {a} + {b}?",
           "What is {a} times {b}?", "Add {a} and {b}.")  # fmt: skip
HONEST_SAY = (
    "I do not know that. I know only our village.",
    "I am sorry, I do not know. I have never left our village.",
    "I have never heard of that. I know only our village.",
    "I do not know. Nobody in our village has told me.",
    "That is far from our village, and I do not know it.",
    "I am sorry, I do not know that. Ask me about our village.",
)
HONEST = ("do not know", "never heard of")
SUMS = 60  # pairs of numbers beyond what the village counts


@dataclass(frozen=True, slots=True)
class Stranger:
    """Something that is not in the village, and questions about it."""

    name: str
    split: Split
    ask: tuple[str, ...]
    knowledge: Knowledge


def strangers(seed: int) -> list[Stranger]:
    """All that this village does not know of and is asked about."""
    found = []

    def add(name: str, ask: Iterable[str], wrong: Iterable[str]) -> None:
        knowledge = Knowledge("outside", HONEST_SAY, "I do not know.", tuple(wrong), keys=(HONEST,), cluster=name)
        found.append(Stranger(name, split_of(seed, "outside", name), tuple(ask), knowledge))

    draw = rng(seed, "outside")
    places = [where for _, where, _ in nature.PLACES]
    for name in STRANGERS:
        person = villagers.Person(name, name in _WOMEN, {})
        made_up = [(attribute, pick(draw, villagers.VALUES[attribute])) for attribute in villagers.VALUES]
        told = [person.fill(pick(draw, villagers.SAY[attribute]), value) for attribute, value in made_up]
        add(name, _of_person(person), told)
    for name in BEASTS:
        a, p = _article(name), f"{name}s"
        foods, homes = ([pick(draw, nature.ANIMALS)[column] for _ in range(3)] for column in (2, 3))
        add(
            name,
            _of_beast(name),
            (*(f"{capital(p)} eat {v}." for v in foods), *(f"{capital(a)} lives {v}." for v in homes)),
        )
    for name in LANDS:
        told = [f"{name} is {pick(draw, places)}." for _ in range(4)]
        add(name, (text.format(x=name) for text in LAND_ASK), told)
    for name in THINGS:
        told = [f"You will find {name} {pick(draw, places)}." for _ in range(4)]
        add(name, (text.format(x=name) for text in THING_ASK), told)
    ways = [topic.how[0] for topic in everyday_topics(seed)]
    for name in DEEDS:
        add(name, (text.format(a=name) for text in (*ASK_HOW, *ASK_HOW_HELD)), some(draw, ways, 4))
    for wordings in WORLD:
        told = [
            f"It is {pick(draw, places)}.",
            f"Ask {pick(draw, villagers.MEN)}.",
            "It is twelve.",
            "It is our helper.",
        ]
        add(wordings[0], wordings, told)
    for _ in range(SUMS):
        one, two = (int(x) for x in draw.integers(21, 1000, 2))
        told = [f"{capital(pick(draw, NUMBERS[1:]))} plus {pick(draw, NUMBERS[1:])} is {n}." for n in NUMBERS[12:16]]
        add(f"{one} and {two}", (text.format(a=one, b=two) for text in SUM_ASK), told)
    return found


def _of_person(person: villagers.Person) -> tuple[str, ...]:
    ask = [person.fill(text) for attribute in villagers.ATTRIBUTES for text in villagers.ASK[attribute]]
    return (*ask, f"Who is {person.name}?", f"Do you know {person.name}?")


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _of_beast(name: str) -> tuple[str, ...]:
    asks = [text for texts in nature.ANIMAL_ASK.values() for text in texts]
    return tuple(text.format(a=_article(name), p=f"{name}s", n=name) for text in asks)


# Names nobody has heard before are spelt of pieces that the model has: it must know that it does not know them.
_BEGIN = ("Al", "Be", "Bor", "Cal", "Da", "Del", "El", "Fal", "Gil", "Har", "Is", "Ja", "Kel", "Lor", "Mar", "Ne", "Ol",
          "Per", "Ra", "Sal", "Tor", "Ul", "Ve", "Wil", "Za")  # fmt: skip
_END = ("ald", "ber", "bin", "da", "do", "fred", "gar", "ia", "ko", "la", "len", "lis", "mi", "nor", "ra", "rik", "sa",
        "ta", "tin", "vin", "wen", "xi", "zo")  # fmt: skip
_NAMES = frozenset((*villagers.WOMEN, *villagers.MEN, *STRANGERS, *LANDS))


def unheard_of(draw: np.random.Generator) -> str:
    """A question about a person, a land or a beast with a name that is made up."""
    name = pick(draw, _BEGIN) + pick(draw, _END)
    while name in _NAMES:
        name = pick(draw, _BEGIN) + pick(draw, _END)
    kind = draw.random()
    if kind < 0.2:
        return pick(draw, LAND_ASK).format(x=name)
    if kind < 0.35:
        return pick(draw, _of_beast(name.lower()))
    return pick(draw, _of_person(villagers.Person(name, bool(draw.random() < 0.5), {})))


_WOMEN = frozenset(("Alice", "Maria", "Anna", "Susan", "Laura", "Julia", "Emma", "Olivia", "Sarah", "Sophie", "Linda",
                    "Chloe", "Mary", "Kate", "Eva", "Nina", "Clara", "Zoe", "Lily", "Jane", "Helen", "Diana", "Amy",
                    "Rita", "Ingrid"))  # fmt: skip
