"""Losses against closed forms, hand numbers, and the papers' equations written out again in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ayni.maths.losses import (
    adapted_beta,
    dpo_loss,
    ipo_loss,
    kl_k1,
    kl_k2,
    kl_k3,
    kto_loss,
    policy_clip_loss,
    policy_gradient_loss,
    policy_penalty_loss,
    pro_loss,
    proportional_beta,
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


def test_a_soft_label_is_cross_entropy_with_two_targets() -> None:
    chosen, rejected, margin, p = random(99, 1, 5), random(99, 2, 5), random(99, 3).abs(), random(99, 4).sigmoid()
    x = (chosen - rejected - margin).numpy()
    soft = p.numpy() * np.logaddexp(0, -x) + (1 - p.numpy()) * np.logaddexp(0, x)
    assert_close(ranking_loss(chosen, rejected, margin, p), soft)
    # by hand: at 3 : 1 it is least where the lead is log 3, and there it is the entropy
    lead = f64(math.log(3)).requires_grad_()
    loss = ranking_loss(lead, f64(0), f64(0), f64(0.75))
    loss.sum().backward()
    assert lead.grad is not None
    assert_close(loss, [0.75 * math.log(4 / 3) + 0.25 * math.log(4)])
    assert abs(lead.grad.item()) < 1e-15
    # and a sure label is what it was, to the bit
    assert torch.equal(ranking_loss(chosen, rejected, margin, torch.ones(99)), ranking_loss(chosen, rejected, margin))


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


# Four pairs as TRL has them: summed log-probs of chosen and rejected, policy then reference, and the answers' lengths.
PAIRS = f64(-10, -42.5, -7.25, -30), f64(-12, -40, -9, -55.5), f64(-13, -41, -7.25, -33), f64(-11, -44, -8, -50)
LENGTHS = f64(5, 17, 3, 11), f64(6, 20, 4, 19)


@pytest.mark.parametrize(
    ("beta", "smoothing", "losses"),
    [
        (0.1, 0.0, [0.5130152524, 1.005492481463, 0.644396660074, 0.355865068442]),
        (0.1, 0.1, [0.5530152524, 0.950492481463, 0.654396660074, 0.440865068442]),
        (0.5, 0.2, [0.526928011043, 2.261967589003, 0.57407698418, 0.864163456932]),
    ],
)
def test_dpo_and_its_conservative_form_equal_trl(beta: float, smoothing: float, losses: list[float]) -> None:
    """TRL's `sigmoid` with `label_smoothing`, which is Mitchell's conservative DPO: its lines in plain Python."""
    found = dpo_loss(*PAIRS, beta=beta, smoothing=smoothing)
    np.testing.assert_allclose(found.numpy(), losses, rtol=1e-10)


def test_ipo_equals_trl_on_its_means_and_the_paper_on_sums() -> None:
    chosen, rejected = LENGTHS
    means = (PAIRS[0] / chosen, PAIRS[1] / rejected, PAIRS[2] / chosen, PAIRS[3] / rejected)
    theirs = [17.921111111111, 27.965432525952, 22.5625, 19.694060346604]
    np.testing.assert_allclose(ipo_loss(*means, beta=0.1).numpy(), theirs, rtol=1e-10)
    assert_close(ipo_loss(*PAIRS, beta=0.1), [1.0, 110.25, 16.0, 12.25])


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


def test_pro_by_hand() -> None:
    # two answers: the logistic loss of the lead, as ranking_loss has it
    p = torch.tensor([[-1.0, -1 - math.log(3)]], dtype=torch.float64)
    assert_close(pro_loss(p, f64(2, 1).view(1, 2)), [math.log(4 / 3)])
    assert_close(pro_loss(p, f64(1, 2).view(1, 2)), [math.log(4)])
    # three, in the right order and in the wrong one: −Σ_k log(e^{p_k} / Σ_{i≥k} e^{p_i}) in plain Python
    p = f64(-1, -2, -4).view(1, 3)
    np.testing.assert_allclose(pro_loss(p, f64(3, 2, 1).view(1, 3)).numpy(), [0.47594022781115897], rtol=1e-14)
    np.testing.assert_allclose(pro_loss(p, f64(1, 2, 3).view(1, 3)).numpy(), [4.662273904286409], rtol=1e-14)
    # equal rewards rank nothing: neither of the two stands against the other
    assert_close(pro_loss(p, f64(1, 1, 1).view(1, 3)), [0])
    tied = math.log(1 + math.exp(-3)) + math.log(1 + math.exp(-2))
    assert_close(pro_loss(p, f64(5, 5, 0).view(1, 3)), [tied])


def test_pro_is_the_papers_loop_over_sorted_answers() -> None:
    p, r = random(60, 1).view(12, 5), random(60, 2).view(12, 5)
    expected = []
    for ps, rs in zip(p.numpy(), r.numpy(), strict=True):
        ordered = ps[np.argsort(-rs)]
        expected.append(-sum(ordered[k] - np.log(np.exp(ordered[k:]).sum()) for k in range(4)))
    assert_close(pro_loss(p, r), expected)
    # of answers that are far apart, nothing overflows
    assert torch.isfinite(pro_loss(1e4 * p.float(), r)).all()


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


def categorical(seed: int, spread: float = 1.5) -> Tensor:
    """log-probs of a categorical over 6 (6,)."""
    return torch.log_softmax(random(6, seed, spread), 0)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p‖q), exactly."""
    return (p.exp() * (p - q)).sum()


def test_policy_gradient_by_hand() -> None:
    logprobs = f64(-1, -2).requires_grad_()
    out = policy_gradient_loss(logprobs, f64(3, -0.5))
    assert_close(out, [3, -1])
    out.sum().backward()
    assert logprobs.grad is not None
    assert_close(logprobs.grad, [-3, 0.5])


def test_policy_penalty_by_hand() -> None:
    # ρ = 1: −A; ρ = 2, A = 1, β = 3: −2 + 3 (2 − 1 − log 2); ρ = ½, A = −1: ½ + 3 (log 2 − ½)
    new, old = f64(-1, -1 + math.log(2), -1 - math.log(2)), f64(-1, -1, -1)
    loss = policy_penalty_loss(new, old, f64(4, 1, -1), beta=3.0)
    assert_close(loss, [-4, 1 - 3 * math.log(2), -1 + 3 * math.log(2)])


@pytest.mark.parametrize("seed", range(5))
def test_the_penalty_is_the_kl_from_the_old_policy_to_the_new(seed: int) -> None:
    """Over samples of π_old, value and gradient are those of β KL(π_old‖π), not of its reverse."""
    old, logits = categorical(seed), random(6, seed + 50).requires_grad_()
    new = torch.log_softmax(logits, 0)
    nothing = torch.zeros(6, dtype=torch.float64)
    penalty = (old.exp() * policy_penalty_loss(new, old, nothing, beta=0.7)).sum()
    exact = 0.7 * divergence(old, new)
    assert_close(penalty, exact.detach())
    assert (exact - 0.7 * divergence(new, old)).abs() > 0.01
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (penalty, exact))
    assert_close(ours, theirs)


def test_beta_is_doubled_and_halved_outside_the_target() -> None:
    found = [adapted_beta(0.4, kl, 0.03) for kl in (0.0, 0.019, 0.0201, 0.03, 0.0449, 0.046, 1.0)]
    assert found == [0.2, 0.2, 0.4, 0.4, 0.4, 0.8, 0.8]


@pytest.mark.parametrize("seed", range(5))
def test_k1_and_k3_are_unbiased_and_k3_is_never_negative(seed: int) -> None:
    p, q = categorical(seed), categorical(seed + 50)
    exact = divergence(p, q)
    assert_close((p.exp() * kl_k1(p, q)).sum(), exact)
    assert_close((p.exp() * kl_k3(p, q)).sum(), exact)
    assert (kl_k3(p, q) >= 0).all()
    assert (kl_k2(p, q) >= 0).all()
    assert (kl_k1(p, q) < 0).any()


def test_k3_varies_less_and_k2_errs_in_the_third_order() -> None:
    p, towards = categorical(1), f64(3, 0, 0, -1, 0, 0)
    errors = []
    for size in (0.1, 0.01):
        q = torch.log_softmax(p + size * towards, 0)
        exact = divergence(p, q)
        k1, k3 = (float((p.exp() * (k - exact) ** 2).sum()) for k in (kl_k1(p, q), kl_k3(p, q)))
        assert k3 < 0.1 * k1
        errors.append(abs(float((p.exp() * kl_k2(p, q)).sum() - exact)))
    assert 800 < errors[0] / errors[1] < 1250


def test_k3_of_nearly_equal_policies_is_exact_and_not_negative() -> None:
    apart = torch.logspace(-9, 0, 200)
    for log_ratio in (apart, -apart):
        found = kl_k3(torch.zeros(200), log_ratio)  # fp32
        assert (found >= 0).all()
        exact = torch.expm1(log_ratio.double()) - log_ratio.double()
        torch.testing.assert_close(found.double(), exact, rtol=1e-2, atol=1e-10)


def test_the_gradients_of_the_estimators_as_losses() -> None:
    """For samples of p and a loss of p: k1 teaches nothing, k2 descends KL(p‖q), k3 descends KL(q‖p)."""
    logits, q = random(6, 1).requires_grad_(), categorical(2)
    p = torch.log_softmax(logits, 0)
    samples = p.detach().exp()
    k1, k2, k3, forward, reverse = (
        torch.autograd.grad(loss, logits, retain_graph=True)[0]
        for loss in (
            (samples * kl_k1(p, q)).sum(),
            (samples * kl_k2(p, q)).sum(),
            (samples * kl_k3(p, q)).sum(),
            divergence(p, q),
            divergence(q, p),
        )
    )
    assert_close(k1, torch.zeros(6))
    assert_close(k2, forward)
    assert_close(k3, reverse)
    assert (forward - reverse).abs().max() > 0.1


def test_kto_by_hand() -> None:
    # z_0 = 2, β = ½. desirable, h = 2 + 2 log 3: 1 − σ(log 3) = ¼; undesirable, the same h: 1 − σ(−log 3) = ¾
    h = 2 + 2 * math.log(3)
    desirable = torch.tensor([True, False, True, False])
    loss = kto_loss(f64(h - 5, h, -4, 2), f64(-5, 0, -6, 0), desirable, f64(2)[0], beta=0.5)
    assert_close(loss, [1 / 4, 3 / 4, 1 / 2, 1 / 2])
    knobs = {"beta": 0.5, "desirable_weight": 2.0, "undesirable_weight": 4.0}
    weighed = kto_loss(f64(h - 5, h, -4, 2), f64(-5, 0, -6, 0), desirable, f64(2)[0], **knobs)
    assert_close(weighed, [1 / 2, 3, 1, 2])
    # a negative estimate of the KL counts as 0: h = 2 log 3
    assert_close(kto_loss(f64(2 * math.log(3)), f64(0), torch.tensor([True]), f64(-7)[0], beta=0.5), [1 / 4])


def test_kto_equals_trl() -> None:
    """TRL 1.16.0: the lines of KTOTrainer from `kl` to `losses`, run on these numbers with loss_type "kto"."""
    policy, reference = f64(-10, -12, -20, -8), f64(-13, -11, -15, -9.5)
    kl = (f64(-30, -31, -29, -40) - f64(-32, -30, -30, -44)).mean()
    loss = kto_loss(
        policy, reference, torch.tensor([1, 1, 0, 0]) > 0, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.33
    )
    np.testing.assert_allclose(loss.numpy(), [0.462570154656, 0.562176500886, 0.456176084644, 0.665], rtol=1e-11)


def test_the_gradient_of_kto_is_beta_sigma_one_minus_sigma() -> None:
    policy, reference, kl = random(30, 1).requires_grad_(), random(30, 2), f64(0.4)[0].requires_grad_()
    desirable = torch.arange(30) % 3 > 0
    kto_loss(policy, reference, desirable, kl, beta=0.3, undesirable_weight=1.5).sum().backward()
    s = sigmoid(0.3 * (policy - reference - 0.4).detach().numpy())
    expected = np.where(desirable.numpy(), -0.3, 0.3 * 1.5) * s * (1 - s)
    assert policy.grad is not None
    assert_close(policy.grad, expected)
    assert kl.grad is None


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
            policy_gradient_loss(a, b),
            policy_penalty_loss(a, b, b, beta=0.1),
            kl_k1(a, b),
            kl_k2(a, b),
            kl_k3(a, b),
            kto_loss(a, b, a > 0, b[0], beta=0.1),
        )
        assert {loss.dtype for loss in found} == {dtype}
        assert {loss.shape for loss in found} == {(3,)}


def test_proportional_beta_is_ziegler_s_controller() -> None:
    """Against the formula as public code has it (np.clip), over a whole run; and a closed form at the bound."""
    kls, beta, theirs = np.random.default_rng(0).normal(6, 8, 200), 0.15, 0.15
    for kl in kls.tolist():
        beta = proportional_beta(beta, kl, target=6.0, answers=256, horizon=10_000)
        theirs *= 1 + np.clip(kl / 6.0 - 1, -0.2, 0.2) * 256 / 10_000
        assert beta == pytest.approx(theirs, rel=1e-12)
    assert proportional_beta(0.15, 6.0, target=6.0, answers=256, horizon=10_000) == 0.15
    # however far the KL is: a fifth, in `horizon` answers
    assert proportional_beta(1.0, 1e9, target=6.0, answers=100, horizon=100) == pytest.approx(1.2)
    assert proportional_beta(1.0, -5.0, target=6.0, answers=50, horizon=100) == pytest.approx(0.9)
