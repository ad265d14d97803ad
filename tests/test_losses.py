"""Losses against closed forms, hand numbers, and the papers' equations written out again in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ayni.maths.losses import (
    dpo_loss,
    ipo_loss,
    policy_clip_loss,
    ranking_loss,
    rrhf_loss,
    safety_loss,
    value_clip_loss,
)


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sigmoid(x: np.ndarray | float) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x, dtype=np.float64)))


def random(count: int, seed: int = 0, spread: float = 3.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, spread, count))


def assert_close(ours: Tensor, theirs: object) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), np.asarray(theirs), rtol=1e-12, atol=1e-12)


def test_ranking_by_hand() -> None:
    # equal scores: log 2; a lead of log 3: σ = ¾; a margin of 1 takes 1 of the lead away
    loss = ranking_loss(f64(0, math.log(3), 2), f64(0, 0, 1), f64(0, 0, 1))
    assert_close(loss, [math.log(2), math.log(4 / 3), math.log(2)])


def test_ranking_is_llama_2_equation_2() -> None:
    chosen, rejected, margin = random(500, 1, 10), random(500, 2, 10), random(500, 3).abs()
    assert_close(ranking_loss(chosen, rejected, margin), np.logaddexp(0, -(chosen - rejected - margin).numpy()))
    shifted = ranking_loss(chosen + 7, rejected + 7, margin)  # only differences count
    torch.testing.assert_close(ranking_loss(chosen, rejected, margin), shifted, rtol=1e-9, atol=1e-12)


def test_the_gradient_of_ranking_is_sigma_of_what_is_missing() -> None:
    chosen, rejected, margin = random(9, 1).requires_grad_(), random(9, 2), random(9, 3).abs()
    ranking_loss(chosen, rejected, margin).sum().backward()
    assert chosen.grad is not None
    assert_close(chosen.grad, -sigmoid(-(chosen - rejected - margin).detach().numpy()))


def test_ranking_stays_finite_where_sigma_underflows() -> None:
    loss = ranking_loss(torch.tensor([-200.0]), torch.tensor([200.0]), torch.tensor([3.0]))
    assert loss.item() == 403.0


def test_safety_is_binary_cross_entropy() -> None:
    raw, safe = random(50, 4), torch.arange(50) % 2
    p = sigmoid(raw.numpy())
    assert_close(safety_loss(raw, safe), np.where(safe.numpy() == 1, -np.log(p), -np.log(1 - p)))


def test_dpo_by_hand() -> None:
    # the policy is the reference: h = 0, loss log 2 whatever the log-probs
    assert_close(dpo_loss(f64(-10), f64(-3), f64(-10), f64(-3), beta=0.1), [math.log(2)])
    # chosen gained log 3 / β against the reference, rejected nothing: σ(log 3) = ¾
    gained = math.log(3) / 0.1
    assert_close(dpo_loss(f64(-10 + gained), f64(-3), f64(-10), f64(-3), beta=0.1), [-math.log(3 / 4)])
    # half of the labels are wrong: the mean of both directions
    smoothed = dpo_loss(f64(-10 + gained), f64(-3), f64(-10), f64(-3), beta=0.1, smoothing=0.5)
    assert_close(smoothed, [-0.5 * math.log(3 / 4) - 0.5 * math.log(1 / 4)])


@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
def test_dpo_is_equation_7_and_agrees_with_trl(beta: float) -> None:
    """TRL 1.16.0, dpo_trainer.py, `sigmoid` and `robust`, written out; the library itself is no dependency.

    Its robust form (Chowdhury et al. 2024) is the conservative one with the second term's sign turned, over 1 − 2ε.
    """
    pi_c, pi_r, ref_c, ref_r = (random(200, seed, 15) for seed in range(4))
    delta = (pi_c - ref_c).numpy() - (pi_r - ref_r).numpy()
    clean, flipped = np.logaddexp(0, -beta * delta), np.logaddexp(0, beta * delta)
    assert_close(dpo_loss(pi_c, pi_r, ref_c, ref_r, beta=beta), clean)
    for smoothing in (0.1, 0.3):
        ours = dpo_loss(pi_c, pi_r, ref_c, ref_r, beta=beta, smoothing=smoothing)
        assert_close(ours, (1 - smoothing) * clean + smoothing * flipped)
        robust = ((1 - smoothing) * clean - smoothing * flipped) / (1 - 2 * smoothing)
        np.testing.assert_allclose((ours.numpy() - 2 * smoothing * flipped) / (1 - 2 * smoothing), robust, rtol=1e-9)


def test_the_gradient_of_dpo_is_the_papers() -> None:
    """∇ = −β σ(r̂_rejected − r̂_chosen) [∇ log π(y_c) − ∇ log π(y_r)] (Rafailov et al. 2023, §4)."""
    pi_c, pi_r = random(20, 1).requires_grad_(), random(20, 2).requires_grad_()
    ref_c, ref_r = random(20, 3), random(20, 4)
    dpo_loss(pi_c, pi_r, ref_c, ref_r, beta=0.3).sum().backward()
    implicit = 0.3 * ((pi_r - ref_r) - (pi_c - ref_c)).detach().numpy()
    assert pi_c.grad is not None
    assert pi_r.grad is not None
    assert_close(pi_c.grad, -0.3 * sigmoid(implicit))
    assert_close(pi_r.grad, 0.3 * sigmoid(implicit))


def test_ipo_is_a_square_around_half_over_beta() -> None:
    """Azar et al. 2023, eq. 17 with τ = β. TRL divides both log-probs by their answers' lengths first."""
    assert_close(ipo_loss(f64(-5), f64(-5), f64(-5), f64(-5), beta=0.1), [25.0])
    assert_close(ipo_loss(f64(-2), f64(-9), f64(-5), f64(-7), beta=0.1), [0.0])  # h = 3 + 2 = 1/(2β)
    pi_c, pi_r, ref_c, ref_r = (random(50, seed) for seed in range(4))
    h = ((pi_c - pi_r) - (ref_c - ref_r)).numpy()
    assert_close(ipo_loss(pi_c, pi_r, ref_c, ref_r, beta=0.4), (h - 1.25) ** 2)


def test_rrhf_by_hand() -> None:
    # best first: p = −1, −2, −4 in the right order costs nothing
    assert_close(rrhf_loss(torch.tensor([[-1.0, -2, -4]]), torch.tensor([[3.0, 2, 1]])), [0])
    # in the wrong order: (4 − 1) + (4 − 2) + (2 − 1); ties rank nothing
    assert_close(rrhf_loss(torch.tensor([[-1.0, -2, -4]]), torch.tensor([[1.0, 2, 3]])), [3 + 2 + 1])
    assert_close(rrhf_loss(torch.tensor([[-1.0, -2, -4]]), torch.tensor([[1.0, 1, 1]])), [0])
    assert_close(rrhf_loss(torch.tensor([[-1.0, -2, -4]]), torch.tensor([[1.0, 1, 3]])), [3 + 2])


def test_rrhf_is_equation_2_as_a_loop() -> None:
    p, r = random(60, 1).view(12, 5), random(60, 2).view(12, 5).round()
    expected = [
        sum(max(0.0, float(row[i] - row[j])) for i in range(5) for j in range(5) if rewards[i] < rewards[j])
        for row, rewards in zip(p, r, strict=True)
    ]
    assert_close(rrhf_loss(p, r), expected)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [
        (1.0, 2.0, -2.0),  # inside: −A ρ
        (1.1, 2.0, -2.2),
        (1.5, 2.0, -2.4),  # a good action is worth at most 1 + ε
        (0.5, 2.0, -1.0),  # but losing one is charged in full
        (0.5, -2.0, 1.6),  # a bad action is worth no less than 1 − ε
        (1.5, -2.0, 3.0),
        (1.5, 0.0, 0.0),
    ],
)
def test_policy_clip_by_hand(ratio: float, advantage: float, loss: float) -> None:
    new = f64(-1 + math.log(ratio)).requires_grad_()
    out = policy_clip_loss(new, f64(-1), f64(advantage), clip=0.2)
    assert_close(out, [loss])
    out.sum().backward()
    flat = (ratio > 1.2 and advantage > 0) or (ratio < 0.8 and advantage < 0)
    assert new.grad is not None
    assert_close(new.grad, [0.0 if flat else -advantage * ratio])  # d(−Aρ)/d log π = −Aρ


def test_at_ratio_one_the_policy_gradient_is_reinforce() -> None:
    logprobs, advantages = random(30, 1).requires_grad_(), random(30, 2)
    policy_clip_loss(logprobs, logprobs.detach().clone(), advantages, clip=0.2).sum().backward()
    assert logprobs.grad is not None
    assert_close(logprobs.grad, -advantages)


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "slope"),
    [
        (1.0, 1.0, 3.0, 2.0, -2.0),  # ½·2²
        (1.1, 1.0, 3.0, 0.5 * 1.9**2, -1.9),
        (2.0, 1.0, 3.0, 0.5 * 1.8**2, 0.0),  # moved too far already: the clipped error is larger and has no slope
        (0.0, 1.0, 3.0, 4.5, -3.0),  # moved the wrong way: the plain error is larger
        (4.0, 1.0, 3.0, 0.5 * 1.8**2, 0.0),
    ],
)
def test_value_clip_by_hand(value: float, old: float, target: float, loss: float, slope: float) -> None:
    values = f64(value).requires_grad_()
    out = value_clip_loss(values, f64(old), f64(target), clip=0.2)
    assert_close(out, [loss])
    out.sum().backward()
    assert values.grad is not None
    assert_close(values.grad, [slope])


def test_losses_keep_their_precision() -> None:
    for dtype in (torch.float32, torch.float64):
        a, b = random(3, 1).to(dtype), random(3, 2).to(dtype)
        found = (
            ranking_loss(a, b, b),
            safety_loss(a, torch.ones(3)),
            dpo_loss(a, b, a, b, beta=0.1),
            ipo_loss(a, b, a, b, beta=0.1),
            policy_clip_loss(a, b, b, clip=0.2),
            value_clip_loss(a, b, b, clip=0.2),
        )
        assert {loss.dtype for loss in found} == {dtype}
        assert {loss.shape for loss in found} == {(3,)}
