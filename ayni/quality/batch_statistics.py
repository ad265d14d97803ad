"""What a batch of judgements consists of: the paper's statistics of preference data (Table 6), and repeated prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from ayni.feedback.entries import Item, Judged
from ayni.text.dedup import without_duplicates

TokenCounter = Callable[[str], int]  # tokens of a text


@dataclass(frozen=True, slots=True)
class TextStatistics:
    """Table 6's columns: comparisons, and means of turns per dialogue and tokens per example, prompt and response.

    None where there is nothing to count. `unit` says what was counted.
    """

    comparisons: int
    turns: float | None
    example: float | None
    prompt: float | None
    response: float | None
    unit: Literal["tokens", "words"]


def text_statistics(rows: Iterable[Judged], count: TokenCounter | None = None) -> TextStatistics:
    """Of the judgements a reward model would learn from: gold checks, skipped and flagged items are left out.

    A turn is a user's message. A prompt is one such message, a response one of the two answers, an example the whole
    dialogue with one answer, the mean of both: so with one turn example = prompt + response, as in the paper's rows of
    one turn (the paper defines none of the three). Without `count`, words between white space are counted.
    """
    counting = count or (lambda text: len(text.split()))
    sizes: dict[str, tuple[list[int], float, float]] = {}
    turns, prompts = list[int](), list[int]()
    examples, responses = list[float](), list[float]()
    for row in rows:
        item = row.item
        if row.entry.kind != "judged" or item.gold is not None:
            continue
        if item.id not in sizes:
            sizes[item.id] = _sizes(item, counting)
        asked, dialogue, answer = sizes[item.id]
        turns.append(len(asked))
        prompts += asked
        responses.append(answer)
        examples.append(dialogue + answer)
    unit: Literal["tokens", "words"] = "words" if count is None else "tokens"
    return TextStatistics(len(turns), _mean(turns), _mean(examples), _mean(prompts), _mean(responses), unit)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _sizes(item: Item, count: TokenCounter) -> tuple[list[int], float, float]:
    """Of each user's message, of the whole dialogue before the answers, and of an answer (the mean of both)."""
    sizes = [(message.role, count(message.content)) for message in item.prompt.dialog]
    asked = [size for role, size in sizes if role == "user"]
    answer = (count(item.answer_a) + count(item.answer_b)) / 2
    return asked, float(sum(size for _, size in sizes)), answer


@dataclass(frozen=True, slots=True)
class Repeats:
    """Of `prompts` dialogues, the ids of items that ask again what an earlier item asks.

    `exact` but for case, punctuation and white space; `near`: of at least 20 words, about 80% of the word shingles.
    """

    prompts: int
    exact: tuple[str, ...]
    near: tuple[str, ...]


def repeated_prompts(items: Sequence[Item]) -> Repeats:
    """In order. Left out: later turns of a dialogue and other pairs of one prompt, which repeat it by their nature."""
    first = dict[str, Item]()
    for item in items:
        if item.turn is None or item.turn == 1:
            first.setdefault(item.prompt.id, item)
    asked = list(first.values())
    texts = ["\n".join(message.content for message in item.prompt.dialog) for item in asked]
    exact = _dropped(texts, without_duplicates(texts, near=False))
    near = _dropped(texts, without_duplicates(texts)) - exact
    return Repeats(len(asked), *(tuple(asked[i].id for i in sorted(which)) for which in (exact, near)))


def _dropped(texts: Sequence[str], kept: Sequence[str]) -> set[int]:
    """Which texts are not in `kept`, a part of them in the same order that has of equal texts the first."""
    dropped, matched = set[int](), 0
    for i, text in enumerate(texts):
        if matched < len(kept) and text == kept[matched]:
            matched += 1
        else:
            dropped.add(i)
    return dropped
