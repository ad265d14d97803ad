"""Choosing the next token: temperature, nucleus, and random numbers that belong to the sample, not to the batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ayni.model.heads import at_least_fp32


@dataclass(frozen=True, slots=True)
class Sampling:
    """temperature 0 is greedy; a token is kept while the mass strictly before it is ≤ top_p (Meta's rule)."""

    temperature: float = 0.6
    top_p: float = 0.9
    max_tokens: int = 256


def uniforms(seeds: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """One number in [0, 1) per (seed, step), both uint64 (B,): splitmix64 as a counter, so order never matters."""
    with np.errstate(over="ignore"):
        x = seeds + (steps + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def choose(logits: Tensor, uniform: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Next tokens and their log-probs, both (B,): logits (B, V), uniform (B,).

    Log-probs are natural, after temperature and before top-p; of temperature 1 when greedy.
    """
    logits = at_least_fp32(logits)
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        logits = logits / sampling.temperature
        probabilities = torch.softmax(logits, -1)
        if sampling.top_p < 1:
            ordered, order = torch.sort(probabilities, dim=-1, descending=True, stable=True)
            ordered[ordered.cumsum(-1) - ordered > sampling.top_p] = 0
            tokens = order.gather(-1, _invert(ordered, uniform)).squeeze(-1)
        else:
            tokens = _invert(probabilities, uniform).squeeze(-1)
    picked = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return tokens, picked - logits.logsumexp(-1)


def _invert(weights: Tensor, uniform: Tensor) -> Tensor:
    """The index at which the running sum passes uniform·total: (B, 1). Never one of weight zero."""
    running = weights.cumsum(-1)
    total = running[:, -1:]
    index = torch.searchsorted(running, uniform.to(running.dtype).unsqueeze(-1) * total, right=True)
    last = (weights > 0).long().cumsum(-1).argmax(-1, keepdim=True)
    return torch.minimum(index, last)
