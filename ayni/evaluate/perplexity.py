"""How well a model foresees held-out text: bits per byte, which no choice of tokenizer can flatter, and perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ayni.errors import BadInput
from ayni.evaluate.parts import LEAST
from ayni.evaluate.results import Result, result
from ayni.maths.clustered import clustered_ratio
from ayni.maths.statistics import Estimate
from ayni.records import Demonstration, TokenSequence, root_of
from ayni.rollout.local import LocalEngine
from ayni.text.chat import render
from ayni.text.tokenizer import Tokenizer
from ayni.train.reference import logprob_sums


def perplexity(logprob: float, tokens: int) -> float:
    """exp of the mean negative natural log-probability of `tokens` tokens; `logprob` is their sum."""
    if tokens < 1:
        raise ValueError("there are no tokens")
    return math.exp(-logprob / tokens)


def bits_per_byte(logprob: float, byte_count: int) -> float:
    """−log₂ p(text) / bytes, from the summed natural log-probability; bytes are the text's in UTF-8."""
    if byte_count < 1:
        raise ValueError("there are no bytes")
    return -logprob / (math.log(2) * byte_count)


def bits_over(bits: ArrayLike, byte_counts: ArrayLike, level: float = 0.95) -> Estimate:
    """The same over documents, from their bits (N,) and bytes (N,): what was drawn is the document."""
    values = np.asarray(bits, np.float64)
    return clustered_ratio(values, byte_counts, range(values.size), level)


def unigram_logprob(train_counts: ArrayLike, heldout_counts: ArrayLike) -> float:
    """Σ over held-out tokens of log p(token), p from train counts (V,) plus one; the bar a model must clear.

    The counts are of the same tokenizer's ids; both (V,). Raises ValueError when they are not.
    """
    train, heldout = np.asarray(train_counts, np.float64), np.asarray(heldout_counts, np.float64)
    if train.shape != heldout.shape or train.ndim != 1:
        raise ValueError(f"train counts {train.shape} and held-out counts {heldout.shape} differ in shape")
    logprobs = np.log(train + 1) - np.log((train + 1).sum())
    return float((heldout * logprobs).sum())


def unigram_bits_per_byte(train_counts: ArrayLike, heldout_counts: ArrayLike, byte_count: int) -> float:
    """Bits per byte of held-out text under the add-one unigram model of the train counts (V,)."""
    return bits_per_byte(unigram_logprob(train_counts, heldout_counts), byte_count)


def perplexities(
    engine: LocalEngine,
    texts: Sequence[str],
    train: Sequence[str],
    where: Mapping[str, Any],
    budget: int,
    against: LocalEngine | None = None,
) -> list[Result]:
    """Rows `bits_per_byte` on held-out text, and by the length of the texts; of `against` too and, text by text,
    `bits_per_byte_difference`. Beside them a unigram model's of the same tokens where there is a `train` text.

    `where` are the rows' other fields; `budget`: tokens of one forward pass.
    """
    sizes = np.array([len(text.encode()) for text in texts])
    ours = bits_by_text(engine, texts, budget)
    rows = by_length("bits_per_byte", ours, sizes, where)
    if against is not None:
        theirs, name = bits_by_text(against, texts, budget), against.name
        rows += by_length("bits_per_byte", theirs, sizes, {**where, "model": name})
        rows += by_length("bits_per_byte_difference", ours - theirs, sizes, {**where, "against": name})
    if train:
        counts = [token_counts(part, engine.tokenizer) for part in (train, texts)]
        value = unigram_bits_per_byte(counts[0], counts[1], int(sizes.sum()))
        rows.append(Result("bits_per_byte", value=value, n=len(texts), **{**where, "model": "unigram"}))
    return rows


def bits_by_text(engine: LocalEngine, texts: Sequence[str], budget: int) -> np.ndarray:
    """−log₂ p of every text: (N,). One longer than the context is read in pieces that know nothing of each other."""
    tokenizer, context = engine.tokenizer, engine.context
    sequences, owners = [], []
    for number, text in enumerate(texts):
        ids = [*tokenizer.encode(text), tokenizer.eos]
        for start in range(0, len(ids), context - 1):
            row = [tokenizer.bos, *ids[start : start + context - 1]]
            sequences.append(TokenSequence(row, [False] + [True] * (len(row) - 1)))
            owners.append(number)
    found = np.zeros(len(texts))
    np.add.at(found, owners, logprob_sums(engine.role, sequences, budget).double().numpy())
    return found / -math.log(2)


def foreseen(
    engine: LocalEngine,
    demonstrations: Sequence[Demonstration],
    where: Mapping[str, Any],
    budget: int,
    against: LocalEngine | None = None,
    say: Callable[[str], None] = print,
) -> list[Result]:
    """Rows `perplexity` of the demonstrations' answers, of `against` too, and `perplexity_ratio`: the one over the
    other, for tuning may forget what it should still find likely. Over tokens; conversations stand or fall together.

    Raises BadInput where no demonstration fits in the models' contexts, or their tokens are not the same.
    """
    engines = [engine, *([against] if against is not None else [])]
    if len({each.tokenizer.fingerprint for each in engines}) > 1:
        raise BadInput(
            "two tokenizers' perplexities do not compare", field="demonstrations", fix="compare bits per byte of texts"
        )
    rows = [render(d.dialog, engine.tokenizer, d.train, d.finished) for d in demonstrations]
    longest = min(each.context for each in engines)
    kept = [i for i, row in enumerate(rows) if len(row.tokens) <= longest]
    if not kept:
        raise BadInput(f"no demonstration fits in {longest} tokens", field="demonstrations")
    say(f"{len(kept)} demonstrations, {len(rows) - len(kept)} left out as longer than {longest} tokens")
    sequences, owners = [rows[i] for i in kept], [root_of(demonstrations[i].dialog) for i in kept]
    counts = [sum(sequence.mask) for sequence in sequences]
    nats = [-logprob_sums(each.role, sequences, budget).double().numpy() for each in engines]
    found = [
        result("perplexity", _exponential(clustered_ratio(each, counts, owners)), **{**where, "model": speaker.name})
        for speaker, each in zip(engines, nats, strict=True)
    ]
    if against is not None:
        ratio = _exponential(clustered_ratio(nats[0] - nats[1], counts, owners))
        found.append(result("perplexity_ratio", ratio, **{**where, "against": against.name}))
    return found


def _exponential(mean: Estimate) -> Estimate:
    """Of e to that power, at whose ends the interval has its ends."""
    if mean.value is None:
        return mean
    ends = mean.interval and (math.exp(mean.interval[0]), math.exp(mean.interval[1]))
    return replace(mean, value=math.exp(mean.value), interval=ends)


def by_length(metric: str, bits: np.ndarray, sizes: np.ndarray, where: Mapping[str, Any]) -> list[Result]:
    """The row of all texts, from their bits and bytes (N,), and rows METRIC:FEWEST-MOST of those of so many bytes,
    where there are texts of several lengths and LEAST of one."""
    rows = [result(metric, bits_over(bits, sizes), **where)]
    octaves = np.log2(np.maximum(sizes, 1)).astype(int)
    for octave in np.unique(octaves) if len(np.unique(octaves)) > 1 else ():
        of = octaves == octave
        if of.sum() >= LEAST:
            name = f"{metric}:{1 << octave}-{(2 << octave) - 1}"
            rows.append(result(name, bits_over(bits[of], sizes[of]), **where))
    return rows


def token_counts(texts: Sequence[str], tokenizer: Tokenizer) -> np.ndarray:
    """How often each id occurs: (V,)."""
    counts = np.zeros(tokenizer.vocab_size)
    for text in texts:
        ids = [*tokenizer.encode(text), tokenizer.eos]
        counts += np.bincount(ids, minlength=tokenizer.vocab_size)
    return counts
