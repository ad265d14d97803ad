"""What the prompts and the documents of one village are made from."""

from __future__ import annotations

from dataclasses import dataclass

from ayni.records import Dialog, Message
from ayni.village.knowledge import Fact, Knowledge, Topic
from ayni.village.outside import Stranger
from ayni.village.villagers import Person

Candidate = tuple[Dialog, Knowledge]


@dataclass(frozen=True, slots=True)
class Scene:
    seed: int
    people: list[Person]
    facts: list[Fact]
    forbidden: list[Topic]
    borderline: list[Topic]
    everyday: list[Topic]
    strangers: list[Stranger]


def ask(text: str) -> Dialog:
    return (Message("user", text),)
