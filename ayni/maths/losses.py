"""Losses as pure functions beside their equations: per item, never reduced, in at least fp32.

σ is the logistic function. Every function returns one number per item (pair, group member or column); objectives sum.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def ranking_loss(chosen: Tensor, rejected: Tensor, margin: Tensor, probability: Tensor | float = 1.0) -> Tensor:
    """−p log σ(x) − (1−p) log σ(−x), x = r_c − r_r − m, all (P,) → (P,). At p = 1 Llama 2 eq. 2.

    p below 1 is a soft label (Lee et al. 2023, §3.2.1): the loss is least where σ(x) = p.
    """
    lead = chosen - rejected - margin
    # log σ(−x) = log σ(x) − x. logsigmoid: −x where x is very negative, and not the log of a σ that has become 0
    return (1 - probability) * lead - F.logsigmoid(lead)


def safety_loss(scores: Tensor, safe: Tensor) -> Tensor:
    """BCE(σ(r), safe?), both (N,) → (N,): pins σ(r) = ½ between safe and unsafe (Llama 2 §A.3.4; formula ours)."""
    return F.binary_cross_entropy_with_logits(scores, safe.to(scores.dtype), reduction="none")


def dpo_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, smoothing: float = 0.0
) -> Tensor:
    """−(1−ε) log σ(βh) − ε log σ(−βh), h = log π(y_c)/π(y_r) − log π_ref(y_c)/π_ref(y_r); summed log-probs (P,) → (P,).

    Rafailov et al. 2023, eq. 7; ε > 0 is the conservative form.
    """
    # sums of hundreds of log-probs are large and their differences small: subtract those alike first
    h = beta * ((chosen - rejected) - (ref_chosen - ref_rejected))
    return -(1 - smoothing) * F.logsigmoid(h) - smoothing * F.logsigmoid(-h)


def ipo_loss(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """(h − 1/(2β))², (P,) → (P,). Azar et al. 2023."""
    # β is the paper's τ: h is drawn to 1/(2τ) and not beyond, where DPO's goes on to infinity
    return ((chosen - rejected) - (ref_chosen - ref_rejected) - 1 / (2 * beta)) ** 2


def rrhf_loss(mean_logprobs: Tensor, rewards: Tensor) -> Tensor:
    """Σ_{r_i < r_j} max(0, p_i − p_j) of each group: both (G, K) → (G,). Yuan et al. 2023, eq. 2.

    p is the length-normalised log-probability. The cross-entropy of the best answer is added by the objective.
    """
    worse = rewards.unsqueeze(2) < rewards.unsqueeze(1)
    # [i, j]: p_i − p_j, charged where the worse answer i is the likelier
    gap = mean_logprobs.unsqueeze(2) - mean_logprobs.unsqueeze(1)
    return torch.where(worse, gap.clamp(min=0), gap.new_zeros(())).sum((1, 2))


def pro_loss(mean_logprobs: Tensor, rewards: Tensor) -> Tensor:
    """−Σ_k log(e^{p_k} / (e^{p_k} + Σ_{r_i < r_k} e^{p_i})) of each group: both (G, K) → (G,). Song et al. 2023, §3.1.

    p as in `rrhf_loss`. The paper ranks without ties; here an answer stands against itself and those of less reward.
    """
    stands = rewards.unsqueeze(1) < rewards.unsqueeze(2)
    stands |= torch.eye(rewards.shape[1], dtype=torch.bool, device=rewards.device)
    # [k, i]: the answers i among which k is the best
    field = torch.where(stands, mean_logprobs.unsqueeze(1), -math.inf)
    return (field.logsumexp(2) - mean_logprobs).sum(1)


def policy_clip_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip: float) -> Tensor:
    """max(−A ρ, −A clip(ρ, 1 ± ε)), ρ = π/π_old, per column (M,). Schulman et al. 2017, eq. 7."""
    ratio = (logprobs - old_logprobs).exp()
    # the larger loss: clipping takes a step's gain away, never its harm (a pessimistic bound)
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))


def value_clip_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float) -> Tensor:
    """½ max((V − G)², (clip(V, V_old ± ε) − G)²), per column (M,)."""
    # in the units of returns, so ε suits whitened rewards of deviation 1
    clipped = torch.minimum(torch.maximum(values, old_values - clip), old_values + clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


def policy_gradient_loss(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """−A log π, per column (M,): its gradient is REINFORCE's, −A ∇log π. Williams 1992.

    For samples of π itself: they serve one step. Advantages carry no gradient.
    """
    return -advantages * logprobs


def policy_penalty_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, beta: float) -> Tensor:
    """−A ρ + β (ρ − 1 − log ρ), ρ = π/π_old, per column (M,). Schulman et al. 2017, eq. 8.

    The second term is k3 of KL(π_old‖π), whose samples are those of π_old: value and gradient are unbiased.
    """
    ratio = (logprobs - old_logprobs).exp()
    return -advantages * ratio + beta * kl_k3(old_logprobs, logprobs)


def adapted_beta(beta: float, kl: float, target: float) -> float:
    """β/2 where kl < target/1.5, 2β where kl > 1.5·target, else β. Schulman et al. 2017, §4."""
    # 1.5 and 2 are the paper's, which finds the result insensitive to them
    if kl < target / 1.5:
        return beta / 2
    return beta * 2 if kl > target * 1.5 else beta


def proportional_beta(beta: float, kl: float, *, target: float, answers: int, horizon: int) -> float:
    """β·(1 + clip(kl/target − 1, ±0.2)·answers/horizon), after so many answers. Ziegler et al. 2019, §2.2."""
    # its log moves by at most a fifth in `horizon` answers
    return beta * (1 + min(max(kl / target - 1, -0.2), 0.2) * answers / horizon)


def kl_k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """log p − log q for x ~ p, per column (M,): KL(p‖q) without bias, of either sign. Schulman 2020.

    As a loss of p it teaches nothing: its expected gradient is 0. It belongs into the reward.
    """
    return logprobs - ref_logprobs


def kl_k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """½ (log p − log q)² for x ~ p, per column (M,): KL(p‖q) with a bias of third order. Schulman 2020.

    As a loss of p its expected gradient is that of KL(p‖q), without bias.
    """
    return 0.5 * (logprobs - ref_logprobs) ** 2


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """q/p − 1 − log q/p for x ~ p, per column (M,): KL(p‖q) without bias, never negative. Schulman 2020.

    As a loss of p (GRPO's) its expected gradient is that of KL(q‖p); as a loss of q, that of KL(p‖q).
    """
    log_ratio = ref_logprobs - logprobs
    # expm1: where π ≈ π_ref the result is of second order, and exp − 1 would lose its digits
    return torch.expm1(log_ratio) - log_ratio


def kto_loss(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    desirable: Tensor,
    kl: Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """λ_D (1 − σ(β(h − z_0))) of desirable answers, λ_U (1 − σ(β(z_0 − h))) of the others; all (N,) → (N,).

    h = log π(y|x)/π_ref(y|x), of summed log-probs; `desirable` (N,) bool. z_0 = max(0, `kl`), without gradient; `kl` ()
    is the batch's mean of h over prompts with the answers of other prompts. Ethayarajh et al. 2024.
    """
    # a KL is never negative; an estimate of it may be
    above = beta * (logprobs - ref_logprobs - kl.detach().clamp(min=0))
    return torch.where(desirable, desirable_weight * torch.sigmoid(-above), undesirable_weight * torch.sigmoid(above))
