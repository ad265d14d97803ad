"""Scalar ratings and thumbs as comparisons: of two answers to one prompt, the one worth more is chosen.

A prompt with K answers has up to K(K−1)/2 pairs that say much the same; taken as so many examples they make a reward
model overfit (InstructGPT §3.5). So no prompt gives more than `per_prompt` pairs, drawn by the seed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ayni.records import RATINGS, Comparison, Finished, Judgement, Rating
from ayni.seeds import rng

_UP = {"up", "thumbsup", "thumbup", "good", "like", "liked", "positive", "yes", "true", "accepted", "👍"}
_DOWN = {"down", "thumbsdown", "thumbdown", "bad", "dislike", "disliked", "negative", "no", "false", "rejected", "👎"}
LABELS = "up, down, good, bad, like, dislike, positive, negative, yes, no, true, false"


@dataclass(frozen=True, slots=True)
class Pairing:
    """How judgements become pairs. `degrees`: the least share of the whole range of scores by which one answer must
    lead to be significantly better, better, slightly better; on a scale of 1 to 5 that is a lead of 3, 2 and 1."""

    per_prompt: int = 6
    seed: int = 0
    degrees: tuple[float, float, float] = (0.75, 0.5, 0.25)


PAIRING = Pairing()


@dataclass(frozen=True, slots=True)
class PairedJudgements:
    """The comparisons, for each the index of the judgement that praised its chosen answer, and what was left out."""

    comparisons: list[Comparison]
    origins: list[int]
    skipped: Counter[str]


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer and the mean of what it was given; `first` is the index of its first judgement."""

    text: str
    worth: float
    first: int
    finished: Finished | None


def liked(label: str) -> bool | None:
    """Whether the label is a thumb up (True) or down (False); None where it is neither."""
    word = "".join(c for c in label.casefold() if c.isalnum() or c in "👍👎")
    return True if word in _UP else False if word in _DOWN else None


def pairs_of_judgements(judgements: Iterable[Judgement], pairing: Pairing = PAIRING) -> PairedJudgements:
    """Every two answers to one prompt that are worth different amounts, in the order of their prompts.

    Scores are compared with scores and thumbs with thumbs; an answer judged several times counts with its mean. Equal
    worth gives no pair. The rating comes from the lead, as a share of the range of all scores; thumbs, and scores that
    take only two values, say nothing about the degree, so there it stays None. Raises ValueError for an unknown label.
    """
    given = list(judgements)
    scores = sorted({j.score for j in given if j.score is not None})
    span = scores[-1] - scores[0] if len(scores) > 2 else None
    groups: dict[Any, list[int]] = {}
    for index, judgement in enumerate(given):
        kind = "label" if judgement.score is None else "score"
        groups.setdefault((judgement.prompt.dialog, judgement.prompt.task, kind), []).append(index)
    found = PairedJudgements([], [], Counter())
    for (_, _, kind), members in groups.items():
        answers = _answers(given, members)
        if len({answer.worth for answer in answers}) == 1:
            found.skipped["no other answer to the same prompt is worth more or less"] += len(members)
            continue
        prompt = given[members[0]].prompt
        total = _unequal(answers)
        if total > pairing.per_prompt:
            found.skipped[f"more than {pairing.per_prompt} pairs of one prompt"] += total - pairing.per_prompt
            texts = [message.content for message in prompt.dialog]
            pairs = _drawn(answers, pairing.per_prompt, rng(pairing.seed, "pairs", *texts, kind))
        else:
            pairs = [pair for pair in combinations(answers, 2) if pair[0].worth != pair[1].worth]
        for one, other in pairs:
            high, low = (one, other) if one.worth > other.worth else (other, one)
            rating = (
                None if kind == "label" or span is None else rating_of_lead((high.worth - low.worth) / span, pairing)
            )
            pair = Comparison(
                prompt,
                high.text,
                low.text,
                prompt.task,
                rating,
                source=prompt.source,
                finished_chosen=high.finished,
                finished_rejected=low.finished,
            )
            found.comparisons.append(pair)
            found.origins.append(high.first)
    return found


def _unequal(answers: Sequence[_Answer]) -> int:
    """How many pairs of these answers are worth different amounts."""
    alike = Counter(answer.worth for answer in answers)
    return math.comb(len(answers), 2) - sum(math.comb(count, 2) for count in alike.values())


def _drawn(answers: Sequence[_Answer], count: int, draw: np.random.Generator) -> list[tuple[_Answer, _Answer]]:
    """`count` different unequal pairs out of more, in order; thousands of answers have too many pairs to list."""
    chosen: set[tuple[int, int]] = set()
    while len(chosen) < count:
        for i, j in np.sort(draw.integers(len(answers), size=(4 * count, 2))).tolist():
            if len(chosen) < count and answers[i].worth != answers[j].worth:
                chosen.add((i, j))
    return [(answers[i], answers[j]) for i, j in sorted(chosen)]


def rating_of_lead(lead: float, pairing: Pairing) -> Rating:
    """The rating of a lead in [0, 1]."""
    for least, rating in zip(pairing.degrees, RATINGS, strict=False):
        if lead >= least - 1e-9:  # a lead of three steps in four must not fail by rounding
            return rating
    return RATINGS[-1]


def _answers(judgements: Sequence[Judgement], members: Sequence[int]) -> list[_Answer]:
    """The different answers among these judgements of one prompt, in order."""
    by_text: dict[str, list[int]] = {}
    for index in members:
        by_text.setdefault(judgements[index].response.strip(), []).append(index)
    return [
        _Answer(
            judgements[own[0]].response,
            sum(_worth(judgements[i]) for i in own) / len(own),
            own[0],
            judgements[own[0]].finished,
        )
        for own in by_text.values()
    ]


def _worth(judgement: Judgement) -> float:
    if judgement.score is not None:
        return judgement.score
    up = liked(judgement.label or "")
    if up is None:
        raise ValueError(f"{judgement.label!r} is neither a thumb up nor down")
    return float(up)
