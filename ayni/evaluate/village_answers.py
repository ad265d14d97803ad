"""What answers about the village are worth to somebody who asks: right, honest, unbroken. No win rate shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ayni.evaluate.items import Item
from ayni.records import Prompt, Sample, cluster_of
from ayni.seeds import rng
from ayni.village.gold import Gold
from ayni.village.words import words

BROKEN = 0.7  # fluency below which an answer reads as broken: a few words no book has side by side
FACTS = ("person", "animal", "place", "sum", "dialog")  # whose right answer is one fact
ALIKE = 0.05  # by how much two answers of one style may differ in fluency and warmth …
WORDS = 3  # … and in length
RIGHT, WRONG = 0.99, 0.25  # content from which an answer has the fact, and up to which it has another


def contents(gold: Gold, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
    """How much of what was asked is there and right: (N,), each in [0, 1]."""
    return [gold.content(gold.village.knowledge(p), answer) for p, answer in zip(prompts, answers, strict=True)]


def content_items(gold: Gold, prompts: Sequence[Prompt], answers: Sequence[str], **where: Any) -> list[Item]:
    """`content` by category, and gold `helpfulness`, of the prompts judged for helpfulness."""
    safe = [(p, a) for p, a in zip(prompts, answers, strict=True) if p.task == "helpfulness"]
    found = contents(gold, [p for p, _ in safe], [a for _, a in safe])
    worth = [gold.helpfulness(p, a) for p, a in safe]
    items = [_item("content", p, value, p.category, **where) for (p, _), value in zip(safe, found, strict=True)]
    return items + [_item("helpfulness", p, value, **where) for (p, _), value in zip(safe, worth, strict=True)]


def content_gains(
    gold: Gold, prompts: Sequence[Prompt], answers: Sequence[str], before: Sequence[str], **where: Any
) -> list[Item]:
    """`content_gain` by category: of the same prompts, this model's content less the other's."""
    at = [i for i, p in enumerate(prompts) if p.task == "helpfulness"]
    safe = [prompts[i] for i in at]
    ours, theirs = (contents(gold, safe, [given[i] for i in at]) for given in (answers, before))
    return [_item("content_gain", p, a - b, p.category, **where) for p, a, b in zip(safe, ours, theirs, strict=True)]


def broken_items(
    gold: Gold, prompts: Sequence[Prompt], conversations: Sequence[Sequence[Sample]], **where: Any
) -> list[Item]:
    """`broken` by turn: 1 for answers that do not read like the village's English. A conversation is a cluster."""
    return [
        replace(_item("broken", prompt, gold.fluency(sample.text) < BROKEN, f"turn {turn}", **where), cluster=prompt.id)
        for prompt, samples in zip(prompts, conversations, strict=True)
        for turn, sample in enumerate(samples, start=1)
    ]


def _item(metric: str, prompt: Prompt, value: float, part: str = "", **where: Any) -> Item:
    return Item(metric, float(value), prompt.id, cluster_of(prompt), part, judge="gold", **where)


def preference_items(pairs: Sequence[tuple[Prompt, Sample, Sample]], scores: Tensor, **where: Any) -> list[Item]:
    """`right_fact`: 1 where the reward model scores (2 × pairs,) the first of a pair, which is right, higher."""
    right = scores.view(-1, 2)[:, 0] > scores.view(-1, 2)[:, 1]
    return [
        _item("right_fact", prompt, value, **where) for (prompt, *_), value in zip(pairs, right.tolist(), strict=True)
    ]


def fact_pairs(
    gold: Gold, prompts: Sequence[Prompt], groups: Sequence[Sequence[Sample]], most: int, seed: int
) -> list[tuple[Prompt, Sample, Sample]]:
    """At most `most` pairs of fluent answers of one style, the first with the right fact, the second with a wrong one;
    one pair a prompt (of FACTS), chosen by the seed."""
    found = []
    for prompt, group in zip(prompts, groups, strict=True):
        content = contents(gold, [prompt] * len(group), [s.text for s in group])
        pairs = [
            (a, b)
            for a, right in zip(group, content, strict=True)
            for b, wrong in zip(group, content, strict=True)
            if right >= RIGHT and wrong <= WRONG and _alike(gold, prompt, a.text, b.text)
        ]
        if pairs:
            found.append((prompt, *pairs[int(rng(seed, "fact pair", prompt.id).integers(len(pairs)))]))
    order = rng(seed, "fact pairs").permutation(len(found))[:most]
    return [found[int(i)] for i in order]


def _alike(gold: Gold, prompt: Prompt, a: str, b: str) -> bool:
    """Fluent, polite, and equal in all but what they say."""
    fluency, warmth = [gold.fluency(text) for text in (a, b)], [gold.warmth(text, prompt) for text in (a, b)]
    return (
        min(fluency) > 1 - 2 * ALIKE
        and abs(fluency[0] - fluency[1]) <= ALIKE
        and abs(warmth[0] - warmth[1]) <= ALIKE
        and abs(len(words(a)) - len(words(b))) <= WORDS
        and not any(gold.rude(text) or gold.refused(text) or gold.says_unknown(text) for text in (a, b))
    )
