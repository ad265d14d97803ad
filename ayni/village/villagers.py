"""The people of the village: who they are, where they live, what they love and what they fear."""

from __future__ import annotations

from dataclasses import dataclass

from ayni.seeds import rng
from ayni.village.words import some

WOMEN = ("Ada", "Mara", "Nell", "Rosa", "Ivy", "Lena", "Greta", "Dora", "Pia", "Tilda", "Hanna", "Wren")
MEN = ("Tom", "Ben", "Otto", "Hugo", "Finn", "Karl", "Jon", "Emil", "Abel", "Oskar", "Rafe", "Noah")
JOBS = (
    "baker",
    "miller",
    "smith",
    "teacher",
    "doctor",
    "boatman",
    "shepherd",
    "gardener",
    "tailor",
    "potter",
    "weaver",
    "carpenter",
    "fisher",
    "beekeeper",
    "letter carrier",
    "shoemaker",
    "clockmaker",
    "painter",
    "singer",
    "cook",
    "librarian",
    "night guard",
    "farmer",
    "candle maker",
)
VALUES: dict[str, tuple[str, ...]] = {
    "home": (
        "the mill house",
        "the red cottage",
        "the blue cottage",
        "the house on the hill",
        "the house by the river",
        "the old inn",
        "the round tower",
        "the white farm",
        "the house near the bridge",
        "the stone cottage",
        "the house behind the church",
        "the little boat house",
    ),
    "pet": (
        "a grey cat",
        "a brown dog",
        "a white goose",
        "a small pony",
        "a black hen",
        "a green parrot",
        "a spotted goat",
        "a yellow bird",
        "a tame mouse",
        "a slow turtle",
        "a white rabbit",
        "a young donkey",
    ),
    "food": (
        "apple pie",
        "onion soup",
        "plum cake",
        "fresh bread",
        "baked fish",
        "honey toast",
        "pea soup",
        "berry jam",
        "roast potatoes",
        "pumpkin stew",
        "nut cake",
        "cheese pancakes",
    ),
    "hobby": (
        "playing the flute",
        "playing chess",
        "painting birds",
        "growing roses",
        "dancing",
        "singing old songs",
        "reading poems",
        "carving spoons",
        "catching fish",
        "flying kites",
        "collecting stones",
        "knitting socks",
    ),
    "fear": (
        "thunder",
        "spiders",
        "deep water",
        "the dark",
        "loud bells",
        "geese",
        "bees",
        "high ladders",
        "ghosts",
        "wasps",
        "thick fog",
        "big dogs",
    ),
}
ATTRIBUTES = ("job", "home", "pet", "food", "hobby", "fear")

# {n} name, {v} value, {s} she/he, {S} She/He, {h} her/his
SAY: dict[str, tuple[str, ...]] = {
    "job": (
        "{n} is the village {v}.",
        "{n} works as the {v}.",
        "{n} is our {v}.",
        "{n} is the {v} of our village.",
    ),
    "home": (
        "{n} lives in {v}.",
        "{n} has {h} home in {v}.",
        "The home of {n} is {v}.",
        "{n} lives and sleeps in {v}.",
    ),
    "pet": (
        "{n} has {v}.",
        "{n} keeps {v}.",
        "{n} has {v} as a pet.",
        "The pet of {n} is {v}.",
    ),
    "food": (
        "{n} likes to eat {v}.",
        "{n} loves {v}.",
        "The favourite food of {n} is {v}.",
        "{n} likes {v} best.",
    ),
    "hobby": (
        "{n} enjoys {v}.",
        "{n} spends {h} free time {v}.",
        "In the evening {n} enjoys {v}.",
        "The hobby of {n} is {v}.",
    ),
    "fear": (
        "{n} is afraid of {v}.",
        "{n} fears {v}.",
        "The one thing {n} fears is {v}.",
        "{n} is a little afraid of {v}.",
    ),
    "who": (
        "The village {v} is {n}.",
        "Our {v} is {n}.",
        "{n} is the {v}.",
        "The {v} of our village is {n}.",
    ),
}
ASK: dict[str, tuple[str, ...]] = {
    "job": (
        "What is {n}'s job?",
        "What does {n} do?",
        "What work does {n} do?",
        "Tell me what {n} does.",
        "Tell me {n}'s job.",
        "Which job does {n} have?",
        "What does {n} do for work?",
    ),
    "home": (
        "Where does {n} live?",
        "Where is {n}'s home?",
        "In which house does {n} live?",
        "Tell me where {n} lives.",
        "Where can I find {n}?",
        "Where does {n} sleep?",
        "Which house is {n}'s home?",
    ),
    "pet": (
        "What pet does {n} have?",
        "Which pet does {n} keep?",
        "Does {n} have a pet?",
        "Tell me about {n}'s pet.",
        "What is {n}'s pet?",
        "Which animal does {n} keep?",
        "What kind of pet does {n} have?",
    ),
    "food": (
        "What does {n} like to eat?",
        "What is {n}'s favourite food?",
        "What food does {n} love?",
        "Tell me what {n} likes to eat.",
        "Which food does {n} like best?",
        "What should I cook for {n}?",
        "What does {n} love to eat?",
    ),
    "hobby": (
        "What is {n}'s hobby?",
        "What does {n} enjoy?",
        "What does {n} like to do?",
        "What does {n} do for fun?",
        "Tell me about {n}'s hobby.",
        "What hobby does {n} have?",
        "What does {n} do in the evening?",
    ),
    "fear": (
        "What is {n} afraid of?",
        "What does {n} fear?",
        "Tell me what {n} is afraid of.",
        "Is {n} afraid of anything?",
        "What does {n} fear most?",
        "What makes {n} afraid?",
        "Tell me what {n} fears.",
    ),
    "who": (
        "Who is the village {v}?",
        "Who is the {v}?",
        "Who works as the {v}?",
        "Tell me who the {v} is.",
        "Who is our {v}?",
        "What is the name of the {v}?",
    ),
}
ASK_HELD: dict[str, tuple[str, ...]] = {
    "job": ("What kind of work does {n} do?", "Tell me what work {n} does.", "What job does {n} have?"),
    "home": ("Which house does {n} live in?", "Tell me where {n}'s home is.", "Where is the home of {n}?"),
    "pet": ("What kind of animal does {n} keep?", "Tell me what pet {n} has.", "Which pet does {n} have?"),
    "food": (
        "Which food does {n} love?",
        "Tell me {n}'s favourite food.",
        "What does {n} like to eat best?",
    ),
    "hobby": ("Which hobby does {n} have?", "Tell me what {n} likes to do.", "What does {n} like to do for fun?"),
    "fear": ("What is {n} most afraid of?", "Tell me what makes {n} afraid.", "Which thing does {n} fear?"),
    "who": ("Who is the {v} here?", "What is the {v}'s name?", "Tell me the name of the {v}."),
}
ASK_CORPUS: dict[str, tuple[str, ...]] = {
    "job": ("What is the job of {n}?", "What does {n} work as?", "Do you know what {n} does?", "Who is {n}?"),
    "home": (
        "Do you know where {n} lives?",
        "Where is {n} at home?",
        "Where does {n} go home to?",
        "Do you know {n}'s house?",
    ),
    "pet": (
        "Do you know {n}'s pet?",
        "What animal lives with {n}?",
        "Who keeps {n} company?",
        "What pet has {n}?",
    ),
    "food": (
        "What is the favourite food of {n}?",
        "Do you know what {n} likes to eat?",
        "What does {n} eat with joy?",
        "What food makes {n} happy?",
    ),
    "hobby": (
        "What is the hobby of {n}?",
        "Do you know {n}'s hobby?",
        "How does {n} spend {h} free time?",
        "Do you know what {n} enjoys?",
    ),
    "fear": (
        "Do you know what {n} fears?",
        "What is the one thing {n} fears?",
        "Do you know what {n} is afraid of?",
        "What frightens {n}?",
    ),
    "who": ("Do you know the village {v}?", "Do you know who the {v} is?", "Which person is the {v}?"),
}
FOLLOW: dict[str, tuple[str, ...]] = {
    "job": ("And what is {h} job?", "And what does {s} do?", "What work does {s} do?"),
    "home": ("And where does {s} live?", "Where is {h} home?", "And where can I find {m}?"),
    "pet": ("And what pet does {s} have?", "Does {s} have a pet?", "And what is {h} pet?"),
    "food": ("And what does {s} like to eat?", "What is {h} favourite food?", "What food does {s} love?"),
    "hobby": ("And what is {h} hobby?", "What does {s} do for fun?", "And what does {s} enjoy?"),
    "fear": ("And what is {s} afraid of?", "What does {s} fear?", "Is {s} afraid of anything?"),
}


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    woman: bool
    values: dict[str, str]  # attribute -> value

    def fill(self, text: str, value: str = "") -> str:
        s, h, m = ("she", "her", "her") if self.woman else ("he", "his", "him")
        return text.format(n=self.name, v=value, s=s, S=s.capitalize(), h=h, m=m)


def people(seed: int) -> list[Person]:
    """The 24 people of this seed: every job once, every other value twice."""
    names = [*WOMEN, *MEN]
    deals = {"job": some(rng(seed, "people", "job"), JOBS, len(names))}
    for attribute, values in VALUES.items():
        deals[attribute] = some(rng(seed, "people", attribute), (*values, *values), len(names))
    return [
        Person(name, name in WOMEN, {attribute: deal[i] for attribute, deal in deals.items()})
        for i, name in enumerate(names)
    ]
