"""From two raw scores to one reward (paper §3.2.3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ayni.maths.advantages import whiten


def combine_rewards(helpfulness: Tensor, safety: Tensor, is_safety: Tensor, threshold: float = 0.15) -> Tensor:
    """logit(R_c), R_c = R_s if the prompt is tagged or R_s < 0.15, else R_h (paper §3.2.3). All (N,); PPO whitens it.

    Raw scores go in: the logit of σ(raw) is the raw score itself, so nothing is squashed and nothing needs a clamp.
    """
    # σ only here: scores are logits of a Bradley–Terry model, 0.15 is a probability
    return torch.where(is_safety | (torch.sigmoid(safety) < threshold), safety, helpfulness)


Join = Literal["mean", "worst", "cautious"]


def join_scores(scores: Tensor, join: Join) -> Tensor:
    """Normalised scores of K models of N answers: (K, N) → (N,). worst: the least; cautious: mean − deviation.

    Both are lower where the models disagree, which is where one of them is being fooled (Coste et al. 2023, WCO and
    UWO; that has the variance in the deviation's place).
    """
    if join == "worst":
        return scores.min(0).values
    return scores.mean(0) - (scores.std(0, correction=0) if join == "cautious" else 0)


def penalise_cut(rewards: Tensor, cut: Tensor) -> Tensor:
    """Answers that were cut off get the least reward of the others, less one standard deviation of theirs: (N,), (N,).

    So a cut answer is worse than any finished one, and not by more than that, whatever the reward model's scale. Where
    none is finished the least is that of all: none of them is better than another.
    """
    finished = rewards if bool(cut.all()) else rewards[~cut]
    deviation = finished.std(unbiased=False)
    # of a single answer, or of equal ones, there is no scale to go by
    step = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    return torch.where(cut, finished.min() - step, rewards)


def shaped(
    combined: Tensor, cut: Tensor, *, whitened: bool, bound: float | None, truncated: float | Literal["worst", "scored"]
) -> Tensor:
    """What is optimised of an iteration's rewards: whitened, within ±`bound`, and of answers that were cut off what
    `truncated` says in place of their own: (N,), (N,) → (N,)."""
    if whitened:
        # paper §3.2.3: so that β weighs alike for any reward model's scale; scores that will not count must not set it
        replaced = truncated != "scored" and not bool(cut.all())
        combined = whiten(combined, ~cut if replaced else None)
    if bound is not None:
        combined = combined.clamp(-bound, bound)
    if truncated == "scored":
        return combined
    # after whitening: a number is in deviations of the iteration's finished answers
    return penalise_cut(combined, cut) if truncated == "worst" else combined.masked_fill(cut, truncated)
