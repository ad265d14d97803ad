"""How varied answers are: distinct n-grams, and Self-BLEU (paper Fig. 21), which rises as answers grow alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ayni.evaluate.results import Result

COMPARED = 100


def distinct(texts: Sequence[str], n: int = 2) -> float | None:
    """Different n-grams of words over all n-grams, in (0, 1]; None when no text is n words long."""
    grams = [gram for text in texts for gram in _ngrams(text.split(), n)]
    return len(set(grams)) / len(grams) if grams else None


def self_bleu(texts: Sequence[str], n: int = 4) -> float:
    """The mean BLEU of each text against all the others, in [0, 1] (Zhu et al. 2018).

    BLEU up to `n`-grams with add-one smoothing above unigrams and the brevity penalty against the nearest length.
    Raises ValueError with fewer than two texts.
    """
    if len(texts) < 2:
        raise ValueError("Self-BLEU needs at least two texts")
    words = [text.split() for text in texts]
    scores = [_bleu(words[i], words[:i] + words[i + 1 :], n) for i in range(len(words))]
    return sum(scores) / len(scores)


def diversity_results(texts: Sequence[str], **where: Any) -> list[Result]:
    """Rows `distinct_2` of all texts and `self_bleu` of the first `COMPARED`, the pairs being many."""
    rows = [Result("distinct_2", value=distinct(texts), n=len(texts), **where)]
    if len(texts) > 1:
        rows.append(Result("self_bleu", value=self_bleu(texts[:COMPARED]), n=len(texts[:COMPARED]), **where))
    return rows


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _bleu(words: Sequence[str], references: Sequence[Sequence[str]], n: int) -> float:
    if not words:
        return 0.0
    total = 0.0
    for order in range(1, n + 1):
        mine = Counter(_ngrams(words, order))
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= Counter(_ngrams(reference, order))
        smooth = 0 if order == 1 else 1
        met = sum((mine & most).values()) + smooth
        if met == 0:
            return 0.0
        total += math.log(met / (sum(mine.values()) + smooth))
    nearest = min((len(reference) for reference in references), key=lambda size: (abs(size - len(words)), size))
    penalty = min(0.0, 1 - nearest / len(words))
    return math.exp(total / n + penalty)
