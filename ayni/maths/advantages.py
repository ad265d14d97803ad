"""From log-probs and scores to advantages, on the flat axis (paper §3.2.3; Schulman et al. 2016).

Columns are those of a Batch: `mask` marks the sampled tokens of every sequence, one contiguous run each. A value at
column t is V before target t is sampled; V after the last masked column is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kl_rewards(
    logprobs: Tensor, ref_logprobs: Tensor, scores: Tensor, mask: Tensor, last: Tensor, *, beta: float
) -> Tensor:
    """r_t = −β(log π − log π_ref), plus the score at each sequence's last masked column: (T,).

    `last` (N,) are those columns (`ends − 1`), scores (N,). Zero wherever mask is False.
    """
    # nats; k1: inside the reward its expected gradient is the KL's (docs/policy-gradients.md)
    rewards = torch.where(mask, -beta * (logprobs - ref_logprobs), torch.zeros_like(logprobs))
    return rewards.index_add(0, last, scores.to(rewards.dtype))


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over every masked run: (T,) each → advantages, returns = A + V (T,).

    δ_t = r_t + γV_{t+1} − V_t;  A_t = δ_t + γλA_{t+1};  zero where mask is False. Runs of neighbouring sequences are
    told apart by the unmasked column between them. All runs are swept together, from their ends.
    """
    inside = mask.to(rewards.dtype)
    following = torch.cat([mask[1:], mask.new_zeros(1)])
    # 0 after the last column: an answer that was cut off ends there like any other
    next_values = torch.where(following, torch.cat([values[1:], values.new_zeros(1)]), values.new_zeros(()))
    delta = (rewards + gamma * next_values - values) * inside
    # Column t's distance to its run's end: sweep by distance, so that one step serves every run at once.
    runs = _runs(mask)
    padded = delta.new_zeros(len(runs), int((runs[:, 1] - runs[:, 0]).max()) if len(runs) else 0)
    columns = mask.nonzero().squeeze(-1)
    lengths = runs[:, 1] - runs[:, 0]
    row = torch.repeat_interleave(torch.arange(len(runs), device=mask.device), lengths)
    from_end = torch.repeat_interleave(runs[:, 1] - 1, lengths) - columns
    padded[row, from_end] = delta[columns]
    for i in range(1, padded.shape[1]):
        padded[:, i] += gamma * lam * padded[:, i - 1]
    advantages = torch.zeros_like(rewards)
    advantages[columns] = padded[row, from_end]
    return advantages, (advantages + values) * inside


def _runs(mask: Tensor) -> Tensor:
    """[start, end) of every run of True: (N, 2)."""
    edges = torch.cat([mask.new_zeros(1), mask, mask.new_zeros(1)]).int().diff()
    return torch.stack([(edges == 1).nonzero().squeeze(-1), (edges == -1).nonzero().squeeze(-1)], 1)


def whiten(x: Tensor, mask: Tensor | None = None, *, keep_mean: bool = False) -> Tensor:
    """(x − mean)/√(var + 1e-8) over the masked entries, biased variance; the mean added back if `keep_mean`."""
    valid = x if mask is None else x[mask]
    # biased: the deviation of these numbers is wanted, not an estimate of others'
    mean, variance = valid.mean(), valid.var(unbiased=False)
    whitened = (x - mean) * torch.rsqrt(variance + 1e-8) + (mean if keep_mean else 0)
    return whitened if mask is None else torch.where(mask, whitened, torch.zeros_like(x))
