"""The policy that gives the best of n samples: how far it is from the one that draws them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def best_of_bound(n: int) -> float:
    """ln n − (n − 1)/n nats: KL(best of n‖π) at most, and exactly where no answer comes twice. n ≥ 1."""
    return math.log(n) - (n - 1) / n


def best_of_kl(logprobs: Tensor, n: int) -> Tensor:
    """KL(best of n‖π) as each chosen answer tells it: log π of it (N,) → (N,), in fp64. Beirami et al. 2024, §4.

    With ε = π(y): (1−ε)ⁿ (ln n + (n−1) ln(1−ε) − (n−1)/n) + (1 − (1−ε)ⁿ) ln((1 − (1−ε)ⁿ)/ε). That is the KL where y is
    the best answer there is and all others are unlikely, one by one: ε → 0 gives the bound, ε = 1 nothing.
    """
    logprobs = logprobs.double()
    # of a certain answer ln(1−ε) is −∞, and times 0
    rest = torch.log(-torch.expm1(logprobs)).clamp(min=-1e9)  # ln(1−ε)
    none = (n * rest).exp()  # (1−ε)ⁿ: y is not among n samples
    some = -torch.expm1(n * rest)
    # (1 − (1−ε)ⁿ)/ε is n for the least ε
    ratio = torch.where(some > 0, some.log() - logprobs, torch.full_like(some, math.log(n)))
    return none * (math.log(n) + (n - 1) * rest - (n - 1) / n) + some * ratio
