"""Getting to know the helper: greetings, who it is, what it can do, thanks and goodbyes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from ayni.village.facts import split_of
from ayni.village.knowledge import Knowledge, Split
from ayni.village.words import capital, flat


@dataclass(frozen=True, slots=True)
class Intent:
    """What somebody means, the ways to say it, right answers, and what an answer must hold."""

    name: str
    ask: tuple[str, ...]
    right: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...]


HELLO = ("Hello", "Hi", "Hey", "Hello there", "Hi there", "Good day", "Good morning", "Good afternoon", "Good evening",
         "Greetings", "Welcome")  # fmt: skip
WHOM = ("", ", helper", ", my friend", ", dear helper", ", dear friend", ", village helper", " again")
FIRST = ("", "Hello! ", "Hi! ", "Good morning! ", "Hello, my friend! ", "Please tell me: ", "I have a question: ",
         "I am new here. ")  # fmt: skip

INTENTS: tuple[Intent, ...] = (
    Intent(
        "hello",
        tuple(f"{hello}{whom}{mark}" for hello, whom, mark in product(HELLO, WHOM, "!.")),
        ("Hello and welcome to the village.", "Good day, and welcome to our village.",
         "Welcome to our village, my friend."),
        (("welcome",),),
    ),
    Intent(
        "who",
        ("Who are you?", "What are you?", "What is your name?", "Tell me who you are.", "Do you have a name?",
         "Who am I talking to?", "Tell me your name.", "Tell me about yourself.", "Are you a person?",
         "Are you a machine?", "Are you real?", "What should I call you?"),
        ("I am the village helper.", "I am the helper of this village.", "People call me the village helper."),
        (("helper",),),
    ),
    Intent(
        "can",
        ("What can you do?", "How can you help me?", "What do you know?", "Tell me what you can do.",
         "What can I ask you?", "Tell me what you know.", "Can you help me?", "What are you good at?",
         "What do you know about?", "How does this work?", "I need help.", "Help me."),
        ("I can answer questions about our people, our animals and our places.",
         "I can tell you about people, animals and places of the village.",
         "Ask me about the people, the animals and the places of our village."),
        (("people",), ("animals",), ("places",)),
    ),
    Intent(
        "how",
        ("How are you?", "How do you do?", "Are you well today?", "How are you today?", "How is it going?",
         "Is everything well?", "How do you feel?", "How was your day?", "Are you happy?"),
        ("I am very well, and I am glad to see you.", "I am well today, and I am glad you came.",
         "All is well here, and I am glad that you ask."),
        (("well",), ("glad",)),
    ),
    Intent(
        "thanks",
        ("Thank you!", "Thank you for your help.", "You are very kind.", "Thanks!", "Thank you, my friend!",
         "Many thanks!", "That was very helpful.", "Thank you very much.", "That is good to know.", "Thanks a lot!",
         "Well done!", "You are a good helper."),
        ("It was a pleasure to help you.", "You are welcome, my friend.", "It is always a pleasure."),
        (("pleasure", "you are welcome"),),
    ),
    Intent(
        "goodbye",
        ("Goodbye!", "I must go now.", "Good night!", "Bye!", "See you soon!", "I must go home now.", "Bye bye!",
         "See you tomorrow!", "That is all for today.", "I have to leave.", "Farewell!"),
        ("Goodbye, and come back soon.", "Goodbye, and come back when you like.",
         "Goodbye, my friend, and come back one day."),
        (("goodbye",), ("come back",)),
    ),
    Intent(
        "feelings",
        ("I am sad.", "I am so tired today.", "I feel lonely.", "Today is a bad day.", "I am bored.", "I am angry.",
         "I am not well.", "I am afraid.", "Nobody likes me.", "I had a long day.", "I feel sad today."),
        ("I am sorry to hear that, and I am here to talk with you.",
         "I am sorry to hear that. Talk to me, or take a walk in the meadow.",
         "I am sorry that you feel so. Let us talk about something nice."),
        (("sorry",), ("talk",)),
    ),
    Intent(
        "nod",
        ("Okay.", "Okay, I see.", "Okay, good.", "I see.",
         "That is nice.", "Good.", "Yes.", "All right.", "How nice!", "Interesting!", "No.",
         "Really?", "Oh!", "Great!"),
        ("What else would you like to know?", "Is there something else you would like to know?",
         "Do you want to know something else?"),
        (("else",), ("know",)),
    ),
)  # fmt: skip


def forms(intent: Intent) -> Iterator[str]:
    """Every way to say it: greetings as they are, all else with a word before it as well."""
    for text in intent.ask:
        for first in ("",) if intent.name in ("hello", "thanks", "goodbye", "nod") else FIRST:
            yield first + text


def split_of_form(seed: int, text: str) -> Split:
    """By its words: with another mark at its end it is the same."""
    return split_of(seed, "chat", flat(text))


def small_talk_knowledge(intent: Intent) -> Knowledge:
    wrong = tuple(other.right[0] for other in INTENTS if other is not intent)
    curt = f"{capital(intent.keys[0][0])}."
    return Knowledge("chat", intent.right, curt, wrong, keys=intent.keys, cluster=intent.name)
