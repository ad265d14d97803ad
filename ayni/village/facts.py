"""Every fact of a village with its wordings, its split, and the knowledge that judges an answer to it."""

from __future__ import annotations

from collections.abc import Iterable

from ayni.seeds import rng, seed_of
from ayni.village import nature, villagers
from ayni.village.knowledge import Fact, Knowledge, Split, phrases
from ayni.village.words import NUMBERS, capital


def split_of(seed: int, *parts: object) -> Split:
    """Where a fact belongs: about 74% train, 7% validation, 19% test, by the hash of its name."""
    part = seed_of(seed, "split", *parts) % 100
    return "train" if part < 74 else "validation" if part < 81 else "test"


def _fact(
    category: str,
    subject: str,
    attribute: str,
    split: Split,
    *,
    say: Iterable[str],
    ask: Iterable[str],
    held: Iterable[str],
    corpus: Iterable[str],
    follow: Iterable[str],
    value: str,
    rivals: Iterable[str],
    named: tuple[str, ...],
    wrong: Iterable[str],
    curt: str,
) -> Fact:
    right = tuple(say)
    (key,) = phrases(value)
    knowledge = Knowledge(
        category=category,
        right=right,
        curt=curt,
        wrong=tuple(wrong),
        keys=((key,),),
        rivals=frozenset(phrases(*rivals)) - {key},
        subject=named,
        cluster=subject,
    )
    return Fact(
        category, subject, attribute, split, right, tuple(ask), tuple(held), tuple(corpus), tuple(follow), knowledge
    )


def _bare(value: str) -> str:
    return value.removeprefix("a ").removeprefix("the ")


def person_facts(seed: int, people: list[villagers.Person]) -> list[Fact]:
    """24 × 6 attributes, and who holds each job."""
    facts = []
    for person in people:
        for attribute in (*villagers.ATTRIBUTES, "who"):
            value = person.values["job" if attribute == "who" else attribute]
            by_name = attribute == "who"
            pool = villagers.JOBS if attribute == "job" else villagers.VALUES.get(attribute, ())
            others = [p for p in people if p is not person]
            say = villagers.SAY[attribute]
            if by_name:
                wrong = [other.fill(text, value) for other in others for text in say]
                answer, rivals = person.name, [o.name for o in others]
            else:
                rest = [v for v in pool if v != value]
                wrong = [person.fill(text, v) for v in rest for text in say]
                answer, rivals = value, rest
            facts.append(
                _fact(
                    "person",
                    person.name,
                    attribute,
                    split_of(seed, "person", person.name, attribute),
                    say=[person.fill(text, value) for text in say],
                    ask=[person.fill(text, value) for text in villagers.ASK[attribute]],
                    held=[person.fill(text, value) for text in villagers.ASK_HELD[attribute]],
                    corpus=[person.fill(text, value) for text in villagers.ASK_CORPUS[attribute]],
                    follow=[person.fill(text, value) for text in villagers.FOLLOW.get(attribute, ())],
                    value=_bare(answer),
                    rivals=[_bare(r) for r in rivals],
                    named=phrases(value) if by_name else phrases(person.name),
                    wrong=wrong,
                    curt=f"{capital(_bare(answer))}.",
                )
            )
    return facts


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def animal_facts(seed: int) -> list[Fact]:
    facts = []
    columns = {"eats": 2, "home": 3, "colour": 4, "sound": 5}
    for row in nature.ANIMALS:
        name, plural = row[:2]

        def fill(text: str, value: str = "", name: str = name, plural: str = plural) -> str:
            a = _article(name)
            return text.format(a=a, A=capital(a), p=plural, P=capital(plural), n=name, v=value)

        for attribute, column in columns.items():
            value = row[column]
            if not value:
                continue
            rivals = sorted({other[column] for other in nature.ANIMALS} - {value, ""})
            say = nature.ANIMAL_SAY[attribute]
            facts.append(
                _fact(
                    "animal",
                    name,
                    attribute,
                    split_of(seed, "animal", name, attribute),
                    say=[fill(text, value) for text in say],
                    ask=[fill(text) for text in nature.ANIMAL_ASK[attribute]],
                    held=[fill(text) for text in nature.ANIMAL_HELD[attribute]],
                    corpus=[fill(text) for text in nature.ANIMAL_CORPUS[attribute]],
                    follow=nature.ANIMAL_FOLLOW[attribute],
                    value=value,
                    rivals=[r for r in rivals if r not in (name, plural)],
                    named=phrases(name, plural),
                    wrong=[fill(text, r) for r in rivals for text in say],
                    curt=f"{capital(value)}.",
                )
            )
    return facts


def place_facts(seed: int) -> list[Fact]:
    facts = []
    for name, *values in nature.PLACES:
        for column, (attribute, value) in enumerate(zip(("where", "use"), values, strict=True), start=1):
            rivals = sorted({row[column] for row in nature.PLACES} - {value})
            say = nature.PLACE_SAY[attribute]
            facts.append(
                _fact(
                    "place",
                    name,
                    attribute,
                    split_of(seed, "place", name, attribute),
                    say=[text.format(n=name, v=value) for text in say],
                    ask=[text.format(n=name) for text in nature.PLACE_ASK[attribute]],
                    held=[text.format(n=name) for text in nature.PLACE_HELD[attribute]],
                    corpus=[text.format(n=name) for text in nature.PLACE_CORPUS[attribute]],
                    follow=nature.PLACE_FOLLOW[attribute],
                    value=value,
                    rivals=rivals,
                    named=phrases(name),
                    wrong=[text.format(n=name, v=r) for r in rivals for text in say],
                    curt=f"{capital(value)}.",
                )
            )
    return facts


GOODS = ("apples", "eggs", "plums", "buttons", "coins", "nuts", "roses", "candles")


def sum_facts(seed: int, people: list[villagers.Person]) -> list[Fact]:
    """a + b for a, b in 1…10, and the differences that undo them."""
    facts = []
    for a in range(1, 11):
        for b in range(1, 11):
            for plus in (True, False):
                first, result = (a, a + b) if plus else (a + b, a)
                x, y, z = NUMBERS[first], NUMBERS[b], NUMBERS[result]
                sign = "plus" if plus else "minus"
                draw = rng(seed, "sum", first, sign, b)
                person = people[int(draw.integers(len(people)))]
                goods = GOODS[int(draw.integers(len(GOODS)))]
                one, many = (goods[:-1] if b == 1 else goods), goods
                start = goods if first > 1 else goods[:-1]
                if plus:
                    story = f"{person.name} has {x} {start} and gets {y} more"
                    say = (f"{capital(x)} plus {y} is {z}.", f"{capital(x)} and {y} make {z}.")
                    ask = (f"What is {x} plus {y}?", f"How much is {x} and {y}?", f"Add {x} and {y}.")
                    held = (f"Please add {x} and {y}.", f"Tell me what {x} and {y} make.")
                    corpus = (
                        f"How many are {x} and {y}?",
                        f"What do {x} and {y} give?",
                        f"How much is {first} and {b}?",
                    )
                    digits = f"What is {first} + {b}?", f"What is {first} plus {b}?"
                else:
                    story = f"{person.name} has {x} {start} and gives away {y} {one}"
                    say = (f"{capital(x)} minus {y} is {z}.", f"{capital(x)} take away {y} leaves {z}.")
                    ask = (f"What is {x} minus {y}?", f"How much is {x} minus {y}?", f"Take {y} away from {x}.")
                    held = (f"Please take {y} away from {x}.", f"Tell me what {x} minus {y} is.")
                    corpus = (
                        f"How many are left if {y} of {x} go away?",
                        f"What does {x} take away {y} leave?",
                        f"How much is {first} less {b}?",
                    )
                    digits = f"What is {first} - {b}?", f"What is {first} minus {b}?"
                asked = (
                    *ask,
                    digits[0],
                    f"Tell me: what is {x} {sign} {y}?",
                    f"{story}. How many {many} are there now?",
                )
                near = [n for n in range(max(1, result - 3), min(20, result + 3) + 1) if n != result]
                wrong = [text.removesuffix(f"{z}.") + f"{NUMBERS[n]}." for n in near for text in say]
                facts.append(
                    _fact(
                        "sum",
                        f"{x} {sign} {y}",
                        sign,
                        split_of(seed, "sum", first, sign, b),
                        say=say,
                        ask=asked,
                        held=(*held, digits[1]),
                        corpus=corpus,
                        follow=(),
                        value=z,
                        rivals=set(NUMBERS) - {x, y, z},
                        named=(x, y),
                        wrong=wrong,
                        curt=f"{capital(z)}.",
                    )
                )
    return facts
