"""How well a model foresees held-out text: bits per byte, which no choice of tokenizer can flatter, and perplexity."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ayni.maths.statistics import Estimate, bootstrap_ratio


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


def bits_per_byte_estimate(logprobs: ArrayLike, byte_counts: ArrayLike, *, seed: int, level: float = 0.95) -> Estimate:
    """The same over documents (N,), with a bootstrap over documents for the interval."""
    bits = -np.asarray(logprobs, np.float64) / math.log(2)
    return bootstrap_ratio(bits, byte_counts, seed=seed, level=level)


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
