"""From rewards to advantages without a learned critic, and n steps with one.

Rewards are one number per answer (N,). Answers of one prompt lie side by side, `n` each, so that row i is of prompt
i // n. Columns (T,) are those of advantages.py. Everything here is of one whole batch: gather rewards and values of
all processes first. Nothing carries a gradient: detach what goes in.

The policy gradient is E[Σ_t ∇log π(a_t|s_t) (R − b)] for any b independent of the action. What is biased and what
each costs in variance is measured in docs/policy-gradients.md.
"""

from __future__ import annotations

import torch
from torch import Tensor


def moving_baseline(rewards: Tensor, baseline: float | None, *, decay: float) -> tuple[Tensor, float]:
    """A_i = r_i − b with a moving average of rewards: (N,) → advantages (N,), the next batch's b.

    b' = decay·b + (1 − decay)·mean r. Williams 1992 (reinforcement comparison). `baseline` is b from before this
    batch, so it knows nothing of its actions. None, on the first batch: every answer is compared to the mean of the
    batch's others, which is as independent of its own actions; the only answer of a batch, to 0.
    """
    mean = float(rewards.mean())
    if baseline is None:
        return (leave_one_out(rewards, len(rewards)) if len(rewards) > 1 else rewards.clone()), mean
    return rewards - baseline, decay * baseline + (1 - decay) * mean


def greedy_advantages(rewards: Tensor, greedy: Tensor, n: int) -> Tensor:
    """A = r(y) − r(greedy answer of its prompt): rewards (N,), greedy (N/n,) → (N,). ReMax, Li et al. 2023.

    ValueError where `greedy` is not one per prompt.
    """
    if len(rewards) != len(greedy) * n:
        raise ValueError(f"{len(rewards)} rewards are not {n} for each of {len(greedy)} greedy answers")
    return rewards - greedy.repeat_interleave(n)


def leave_one_out(rewards: Tensor, n: int) -> Tensor:
    """A_i = r_i − mean of the other n − 1 = n/(n−1) · (r_i − mean): (N,) → (N,). RLOO, Ahmadian et al. 2024.

    ValueError for n < 2.
    """
    groups = _groups(rewards, n)
    # the mean contains r_i itself, a share of 1/n: this takes it out
    return ((groups - groups.mean(1, keepdim=True)) * (n / (n - 1))).view(-1)


def group_normalised(rewards: Tensor, n: int, *, by_std: bool) -> Tensor:
    """A_i = (r_i − mean)/(std + 1e-4), std with n − 1 below: (N,) → (N,). GRPO, Shao et al. 2024, §4.1.2.

    Not `by_std`: r_i − mean, as in Dr. GRPO (Liu et al. 2025). The mean contains r_i itself, which shortens the
    expected gradient to (n−1)/n of the true one. Dividing by the std weighs groups anew and turns its direction.
    ValueError for n < 2.
    """
    groups = _groups(rewards, n)
    centred = groups - groups.mean(1, keepdim=True)
    # 1e-4 as in TRL: a group of equal rewards teaches nothing, and gives 0 instead of 0/0
    return (centred / (groups.std(1, keepdim=True) + 1e-4) if by_std else centred).view(-1)


def _groups(rewards: Tensor, n: int) -> Tensor:
    """(N,) → (N/n, n)."""
    if n < 2:
        raise ValueError(f"an answer is compared to others of its prompt: n must be 2 or more, not {n}")
    if len(rewards) % n:
        raise ValueError(f"{len(rewards)} rewards are not {n} for each prompt")
    return rewards.view(-1, n)


def n_step_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, steps: int | None
) -> tuple[Tensor, Tensor]:
    """Advantage actor-critic: (T,) each → advantages, returns = A + V (T,). Mnih et al. 2016, §4.

    R_t = Σ_{k<steps} γ^k r_{t+k} + γ^steps V_{t+steps};  A_t = R_t − V_t;  V and r after the last masked column are 0,
    and both results are 0 where mask is False. `steps` None: to the end. Every column looks the same number of steps
    ahead (A3C's segments look from 1 to t_max). 1 step is GAE with λ = 0, to the end λ = 1. ValueError for steps < 1.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be 1 or more, not {steps}")
    nothing = values.new_zeros(())
    # whether the next column is the same answer's: V after the last is 0
    following = torch.cat([mask[1:], mask.new_zeros(1)])
    # where, not a product: 0 · NaN is NaN
    inside = torch.where(mask, rewards, nothing)
    longest = _longest(mask)
    returns = torch.where(mask, values, nothing)
    # each round looks one step further in all columns at once
    for _ in range(longest if steps is None else min(steps, longest)):
        ahead = torch.cat([returns[1:], returns.new_zeros(1)])
        returns = inside + gamma * torch.where(following & mask, ahead, nothing)
    return torch.where(mask, returns - values, nothing), returns


def _longest(mask: Tensor) -> int:
    """The length of the longest run of True."""
    edges = torch.cat([mask.new_zeros(1), mask, mask.new_zeros(1)]).int().diff()
    # +1 where a run begins, −1 one after its end
    lengths = (edges == -1).nonzero() - (edges == 1).nonzero()
    return int(lengths.max()) if len(lengths) else 0


def spread(per_answer: Tensor, mask: Tensor, offsets: Tensor) -> Tensor:
    """An answer's number at each of its masked columns, 0 elsewhere: (N,), offsets (N+1,) → (T,)."""
    return torch.where(mask, per_answer[_owners(offsets)], per_answer.new_zeros(()))


def sum_per_answer(per_column: Tensor, mask: Tensor, offsets: Tensor) -> Tensor:
    """Σ_t over an answer's masked columns: (T,), offsets (N+1,) → (N,). The transpose of `spread`.

    Of `kl_k1(logprobs, ref_logprobs)` it is log π(y)/π_ref(y), and r − β times that is the reward of RLOO, ReMax and
    REINFORCE under a KL penalty: the gradient of E[r] − β KL(π‖π_ref) needs no other term.
    """
    inside = torch.where(mask, per_column, per_column.new_zeros(()))
    return inside.new_zeros(len(offsets) - 1).index_add(0, _owners(offsets), inside)


def _owners(offsets: Tensor) -> Tensor:
    """The sequence of every column: (T,)."""
    return torch.repeat_interleave(torch.arange(len(offsets) - 1, device=offsets.device), offsets.diff())
