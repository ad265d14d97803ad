"""The animals and the places of the village, and how people speak of them."""

from __future__ import annotations

# name, plural, food, home, colour, sound ("" when it makes none)
ANIMALS: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("cow", "cows", "fresh grass", "in the barn", "brown", "moo"),
    ("horse", "horses", "dry hay", "in the stable", "brown", "neigh"),
    ("sheep", "sheep", "sweet clover", "in the meadow", "white", "bleat"),
    ("goat", "goats", "young leaves", "on the rocky hill", "grey", "bleat"),
    ("pig", "pigs", "turnips", "in the pig pen", "pink", "grunt"),
    ("hen", "hens", "yellow corn", "in the hen house", "red", "cluck"),
    ("duck", "ducks", "pond weed", "on the pond", "brown", "quack"),
    ("goose", "geese", "fresh grass", "in the yard", "white", "honk"),
    ("cat", "cats", "mice", "in the kitchen", "grey", "purr"),
    ("dog", "dogs", "bones", "in the yard", "brown", "bark"),
    ("mouse", "mice", "cheese", "in a hole in the wall", "grey", "squeak"),
    ("rabbit", "rabbits", "carrots", "in a burrow", "brown", ""),
    ("fox", "foxes", "eggs", "in a den", "red", "bark"),
    ("wolf", "wolves", "deer", "in the deep forest", "grey", "howl"),
    ("bear", "bears", "honey", "in a cave", "brown", "growl"),
    ("owl", "owls", "mice", "in the old oak", "white", "hoot"),
    ("crow", "crows", "yellow corn", "in the tall elm", "black", "caw"),
    ("robin", "robins", "worms", "in the hedge", "red", "sing"),
    ("swan", "swans", "pond weed", "on the lake", "white", "hiss"),
    ("frog", "frogs", "flies", "on the pond", "green", "croak"),
    ("toad", "toads", "beetles", "under a stone", "brown", "croak"),
    ("snake", "snakes", "frogs", "in the long grass", "green", "hiss"),
    ("bee", "bees", "nectar", "in a hive", "yellow", "buzz"),
    ("ant", "ants", "crumbs", "in a hill of earth", "black", ""),
    ("spider", "spiders", "flies", "in a web", "black", ""),
    ("snail", "snails", "lettuce", "in the garden", "brown", ""),
    ("butterfly", "butterflies", "nectar", "in the flower field", "blue", ""),
    ("squirrel", "squirrels", "nuts", "in a hollow tree", "red", "chatter"),
    ("hedgehog", "hedgehogs", "slugs", "in a pile of leaves", "brown", ""),
    ("badger", "badgers", "roots", "in a deep burrow", "grey", "grunt"),
    ("deer", "deer", "young leaves", "in the deep forest", "brown", ""),
    ("otter", "otters", "fish", "on the river bank", "brown", "whistle"),
    ("beaver", "beavers", "bark from trees", "in a house of sticks", "brown", ""),
    ("trout", "trout", "flies", "in the cold stream", "silver", ""),
    ("heron", "herons", "fish", "in the reeds", "grey", ""),
    ("bat", "bats", "moths", "in the church tower", "black", "squeak"),
    ("donkey", "donkeys", "thistles", "in a small shed", "grey", "bray"),
    ("pigeon", "pigeons", "seeds", "on the roof", "grey", "coo"),
    ("turtle", "turtles", "lettuce", "in the garden", "green", ""),
    ("eagle", "eagles", "rabbits", "on the high cliff", "brown", "scream"),
)
# {a} a/an + animal, {A} capital, {p} plural, {P} capital plural, {v} value, {n} bare name
ANIMAL_SAY: dict[str, tuple[str, ...]] = {
    "eats": ("{A} eats {v}.", "{P} eat {v}.", "{P} like to eat {v}.", "The food of {a} is {v}."),
    "home": ("{A} lives {v}.", "{P} live {v}.", "The home of {a} is {v}.", "{A} sleeps {v}."),
    "colour": ("{A} is {v}.", "{P} are {v}.", "Here {p} are {v}.", "The colour of {a} is {v}."),
    "sound": ("{P} {v}.", "{A} can {v}.", "You can hear {p} {v}.", "When {p} call, they {v}."),
}
ANIMAL_ASK: dict[str, tuple[str, ...]] = {
    "eats": (
        "What does {a} eat?",
        "What do {p} eat?",
        "What do {p} like to eat?",
        "Tell me what {a} eats.",
        "What food does {a} like?",
        "What should I feed {a}?",
    ),
    "home": (
        "Where does {a} live?",
        "Where do {p} live?",
        "Where does {a} sleep?",
        "Tell me where {p} live.",
        "Where can I find {a}?",
        "Where is the home of {a}?",
    ),
    "colour": (
        "What colour is {a}?",
        "What colour are {p}?",
        "Which colour does {a} have?",
        "Tell me the colour of {a}.",
        "What is the colour of {a}?",
    ),
    "sound": (
        "What sound does {a} make?",
        "What sound do {p} make?",
        "Which sound does {a} make?",
        "Tell me what sound {a} makes.",
        "What does {a} sound like?",
    ),
}
ANIMAL_HELD: dict[str, tuple[str, ...]] = {
    "eats": ("What food do {p} like?", "Tell me what {p} eat.", "What does {a} like to eat?"),
    "home": ("Where can I find {p}?", "Where do {p} sleep?", "Tell me where {a} lives."),
    "colour": ("Which colour do {p} have?", "Tell me what colour {p} are.", "What is the colour of {p}?"),
    "sound": ("Tell me what sound {p} make.", "Which sound do {p} make?", "What do {p} sound like?"),
}
ANIMAL_CORPUS: dict[str, tuple[str, ...]] = {
    "eats": ("Do you know what {p} eat?", "What is the food of {a}?", "What does a hungry {n} look for?"),
    "home": ("Do you know where {p} live?", "What is the home of {a}?", "Where does {a} go at night?"),
    "colour": ("Do you know the colour of {a}?", "How does {a} look?", "What colour has {a}?"),
    "sound": ("Do you know what sound {a} makes?", "How do {p} call?", "What can you hear {p} do?"),
}
ANIMAL_FOLLOW: dict[str, tuple[str, ...]] = {
    "eats": ("And what does it eat?", "What does it like to eat?", "And what should I feed it?"),
    "home": ("And where does it live?", "Where does it sleep?", "And where can I find it?"),
    "colour": ("And what colour is it?", "Which colour does it have?", "And what is its colour?"),
    "sound": ("And what sound does it make?", "Which sound does it make?", "And what does it sound like?"),
}

# place, where it is, what one can do there
PLACES: tuple[tuple[str, str, str], ...] = (
    ("bakery", "beside the church", "buy fresh bread"),
    ("mill", "by the river", "get flour"),
    ("church", "on the market square", "listen to the choir"),
    ("school", "behind the church", "learn to read"),
    ("inn", "near the stone bridge", "eat hot soup"),
    ("library", "above the post office", "borrow books"),
    ("smithy", "at the end of the long street", "buy horse shoes"),
    ("market", "on the village green", "buy vegetables"),
    ("post office", "across from the inn", "send letters"),
    ("well", "in the middle of the square", "fetch clean water"),
    ("duck pond", "behind the mill", "watch the ducks"),
    ("orchard", "south of the village", "pick apples"),
    ("meadow", "east of the village", "fly kites"),
    ("forest", "north of the village", "gather wood"),
    ("dance hall", "beside the inn", "dance on Sundays"),
    ("doctor's house", "next to the school", "get medicine"),
    ("rose garden", "behind the library", "smell the roses"),
    ("green hill", "west of the village", "see the whole valley"),
)
PLACE_SAY: dict[str, tuple[str, ...]] = {
    "where": ("The {n} is {v}.", "You will find the {n} {v}.", "Our {n} is {v}.", "The {n} of the village is {v}."),
    "use": ("At the {n} you can {v}.", "You can {v} at the {n}.", "People go to the {n} to {v}."),
}
PLACE_ASK: dict[str, tuple[str, ...]] = {
    "where": (
        "Where is the {n}?",
        "Where can I find the {n}?",
        "Tell me where the {n} is.",
        "How do I find the {n}?",
        "Where will I find the {n}?",
    ),
    "use": (
        "What can I do at the {n}?",
        "Why do people go to the {n}?",
        "Tell me what people do at the {n}.",
        "What is the {n} good for?",
        "What do people do at the {n}?",
    ),
}
PLACE_HELD: dict[str, tuple[str, ...]] = {
    "where": ("Tell me where I can find the {n}.", "Where do people find the {n}?"),
    "use": ("What can people do at the {n}?", "Tell me what the {n} is good for."),
}
PLACE_CORPUS: dict[str, tuple[str, ...]] = {
    "where": ("Do you know where the {n} is?", "In which place is the {n}?", "Do you know the way to the {n}?"),
    "use": ("Do you know the {n}?", "What do you do at the {n}?", "Why should I visit the {n}?"),
}
PLACE_FOLLOW: dict[str, tuple[str, ...]] = {
    "where": ("And where is it?", "Where can I find it?", "And how do I find it?"),
    "use": ("And what can I do there?", "Why do people go there?", "And what do people do there?"),
}
