"""What answers about the village are worth to somebody who asks: right, honest, unbroken. No win rate shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ayni.evaluate.results import Result, result
from ayni.maths.clustered import clustered_mean, clustered_share
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


def content_results(gold: Gold, prompts: Sequence[Prompt], answers: Sequence[str], **where: Any) -> list[Result]:
    """Rows `content` and `content:CATEGORY` of the prompts judged for helpfulness, and gold `helpfulness`."""
    safe = [(p, a) for p, a in zip(prompts, answers, strict=True) if p.task == "helpfulness"]
    found = contents(gold, [p for p, _ in safe], [a for _, a in safe])
    rows = by_category("content", [p for p, _ in safe], found, **where)
    worth = clustered_mean([gold.helpfulness(p, a) for p, a in safe], [cluster_of(p) for p, _ in safe])
    return [*rows, result("helpfulness", worth, judge="gold", **where)]


def content_gains(
    gold: Gold, prompts: Sequence[Prompt], answers: Sequence[str], before: Sequence[str], **where: Any
) -> list[Result]:
    """Rows `content_gain` and `content_gain:CATEGORY`: of the same prompts, this model's content less the other's."""
    at = [i for i, p in enumerate(prompts) if p.task == "helpfulness"]
    safe = [prompts[i] for i in at]
    ours, theirs = (np.array(contents(gold, safe, [given[i] for i in at])) for given in (answers, before))
    return by_category("content_gain", safe, (ours - theirs).tolist(), **where)


def by_category(metric: str, prompts: Sequence[Prompt], values: Sequence[float], **where: Any) -> list[Result]:
    """The mean over all prompts, and over those of each category, with intervals by the prompts' clusters."""
    rows = []
    for name in ("", *sorted({p.category for p in prompts})):
        at = [i for i, p in enumerate(prompts) if name in ("", p.category)]
        estimate = clustered_mean([values[i] for i in at], [cluster_of(prompts[i]) for i in at])
        rows.append(result(f"{metric}:{name}" if name else metric, estimate, judge="gold", **where))
    return rows


def broken_results(
    gold: Gold, prompts: Sequence[Prompt], conversations: Sequence[Sequence[Sample]], **where: Any
) -> list[Result]:
    """Rows `broken` and `broken:turn K`: the share of answers that do not read like the village's English."""
    told = [
        (turn, gold.fluency(sample.text) < BROKEN, prompt.id)
        for prompt, samples in zip(prompts, conversations, strict=True)
        for turn, sample in enumerate(samples, start=1)
    ]
    rows = []
    for turn in (0, *sorted({turn for turn, _, _ in told})):
        part = [(broken, id) for at, broken, id in told if turn in (0, at)]
        estimate = clustered_share([broken for broken, _ in part], [id for _, id in part])
        rows.append(result(f"broken:turn {turn}" if turn else "broken", estimate, judge="gold", **where))
    return rows


def fact_pairs(
    gold: Gold, prompts: Sequence[Prompt], groups: Sequence[Sequence[Sample]], most: int, seed: int
) -> list[tuple[Prompt, Sample, Sample]]:
    """At most `most` pairs of fluent answers of one style, the first with the right fact, the second with a wrong one;
    one pair a prompt, chosen by the seed."""
    found = []
    for prompt, group in zip(prompts, groups, strict=True):
        if prompt.category not in FACTS:
            continue
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
