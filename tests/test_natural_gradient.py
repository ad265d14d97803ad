"""Conjugate gradients against a dense solve, and trust-region steps on tabular softmax problems solved exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from ayni.maths.natural_gradient import (
    Product,
    conjugate_gradient,
    finite_difference_product,
    line_search,
    trust_region_step,
)

STATES, ACTIONS = 4, 5


@dataclass(frozen=True)
class Problem:
    """A softmax policy in a table: visits d (S,), advantages (S, A), and where it stands, flat logits (S·A,)."""

    visits: Tensor
    advantages: Tensor
    logits: Tensor

    def policy(self, step: Tensor) -> Tensor:
        return torch.log_softmax((self.logits + step).view(STATES, ACTIONS), -1)

    def surrogate(self, step: Tensor) -> Tensor:
        """Σ_s d(s) Σ_a π_old(a|s) ρ(a|s) A(s, a)."""
        return (self.visits[:, None] * self.policy(step).exp() * self.advantages).sum()

    def kl(self, step: Tensor) -> Tensor:
        """Σ_s d(s) KL(π_old‖π)."""
        old, new = self.policy(torch.zeros_like(step)), self.policy(step)
        return (self.visits[:, None] * old.exp() * (old - new)).sum()

    def gradient(self) -> Tensor:
        return slope(self.surrogate, torch.zeros_like(self.logits))

    def fisher(self) -> Tensor:
        """Blocks d(s) (diag π − ππᵀ): (S·A, S·A)."""
        policy = self.policy(torch.zeros_like(self.logits)).exp()
        blocks = [d * (p.diag() - p.outer(p)) for d, p in zip(self.visits, policy, strict=True)]
        return torch.block_diag(*blocks)

    def evaluate(self, step: Tensor) -> tuple[float, float]:
        return float(self.surrogate(step) - self.surrogate(torch.zeros_like(step))), float(self.kl(step))


def slope(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    at = at.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(at), at)
    return gradient


def problem(seed: int) -> Problem:
    draw = np.random.default_rng(seed)
    visits = torch.from_numpy(draw.dirichlet(np.ones(STATES)))
    logits = torch.from_numpy(draw.normal(0, 1, STATES * ACTIONS))
    advantages = torch.from_numpy(draw.normal(0, draw.choice([0.1, 1, 10]), (STATES, ACTIONS)))
    policy = torch.softmax(logits.view(STATES, ACTIONS), -1)
    return Problem(visits, advantages - (policy * advantages).sum(1, keepdim=True), logits)


def by_double_backward(function: Callable[[Tensor], Tensor], size: int) -> Product:
    """x ↦ ∇(∇f·x) at 0."""

    def product(x: Tensor) -> Tensor:
        at = torch.zeros(size, dtype=x.dtype, requires_grad=True)
        (first,) = torch.autograd.grad(function(at), at, create_graph=True)
        (second,) = torch.autograd.grad(first.dot(x), at)
        return second

    return product


PROBLEMS = [problem(seed) for seed in range(50)]


def test_conjugate_gradient_is_a_solve() -> None:
    draw = np.random.default_rng(0)
    root = torch.from_numpy(draw.normal(0, 1, (12, 12)))
    matrix, b = root @ root.t() + torch.eye(12, dtype=torch.float64), torch.from_numpy(draw.normal(0, 1, 12))
    x = conjugate_gradient(lambda v: matrix @ v, b, iterations=30, tolerance=1e-12)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, b), rtol=1e-9, atol=1e-9)


def test_conjugate_gradient_by_hand() -> None:
    # diag(1, 4), b = (1, 4): the first step goes b·b/(bᵀFb) = 17/65 along b, two steps solve it
    matrix, b = torch.tensor([1.0, 4.0]).diag(), torch.tensor([1.0, 4.0])
    once = conjugate_gradient(lambda v: matrix @ v, b, iterations=1, tolerance=0)
    torch.testing.assert_close(once, 17 / 65 * b)
    twice = conjugate_gradient(lambda v: matrix @ v, b, iterations=2, tolerance=0)
    torch.testing.assert_close(twice, torch.ones(2))


def test_conjugate_gradient_stops_at_its_tolerance() -> None:
    calls = []
    matrix = torch.linspace(1, 100, 50, dtype=torch.float64).diag()
    b = torch.ones(50, dtype=torch.float64)

    def product(v: Tensor) -> Tensor:
        calls.append(v)
        return matrix @ v

    x = conjugate_gradient(product, b, iterations=100, tolerance=0.1)
    assert (b - matrix @ x).norm() <= 0.1 * b.norm()
    assert 1 < len(calls) < 30


def test_conjugate_gradient_without_curvature_stays() -> None:
    b = torch.ones(3)
    assert conjugate_gradient(torch.zeros_like, b, iterations=5, tolerance=0).tolist() == [0, 0, 0]
    assert conjugate_gradient(lambda v: v, 0 * b, iterations=5, tolerance=0).tolist() == [0, 0, 0]


def test_the_products_are_those_of_the_fisher_matrix() -> None:
    for p in PROBLEMS[:10]:
        x, exact = torch.from_numpy(np.random.default_rng(1).normal(0, 1, STATES * ACTIONS)), p.fisher()
        torch.testing.assert_close(by_double_backward(p.kl, len(x))(x), exact @ x, rtol=1e-10, atol=1e-12)
        first_only = finite_difference_product(lambda step, p=p: slope(p.kl, step), epsilon=1e-4)
        torch.testing.assert_close(first_only(x), exact @ x, rtol=1e-6, atol=1e-8)
        assert first_only(0 * x).abs().max() == 0


def test_the_natural_gradient_of_a_softmax_table_is_its_advantages() -> None:
    """F A = g whatever d and π are, up to a constant per state, which changes no policy (Kakade 2001)."""
    for p in PROBLEMS:
        fisher = p.fisher()
        x = conjugate_gradient(lambda v, fisher=fisher: fisher @ v, p.gradient(), iterations=200, tolerance=1e-13)
        expected = p.advantages - p.advantages.mean(1, keepdim=True)
        torch.testing.assert_close(x.view(STATES, ACTIONS), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("max_kl", [0.01, 0.3])
@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_accepted_steps_keep_the_bound_and_raise_the_surrogate(max_kl: float, damping: float) -> None:
    shortened = 0
    for p in PROBLEMS:
        product = by_double_backward(p.kl, STATES * ACTIONS)
        step = trust_region_step(p.gradient(), product, max_kl=max_kl, damping=damping, iterations=20)
        accepted = line_search(p.evaluate, step, max_kl=max_kl, shrink=0.8, tries=20)
        improvement, kl = p.evaluate(accepted)
        assert 0 < kl <= max_kl
        assert improvement > 0
        shortened += not torch.equal(accepted, step)
    assert shortened < 50
    assert damping or shortened > 0  # or the search was never needed


def test_the_step_reaches_the_bound_to_second_order() -> None:
    """|KL(step)/δ − 1| = O(√δ): the bound's quadratic model is the KL itself as δ shrinks."""
    for p in PROBLEMS:
        product = by_double_backward(p.kl, STATES * ACTIONS)
        errors = []
        for max_kl in (1e-2, 1e-4, 1e-6, 1e-8):
            step = trust_region_step(p.gradient(), product, max_kl=max_kl, damping=0.0, iterations=60, tolerance=1e-10)
            errors.append(abs(float(p.kl(step)) / max_kl - 1))
        assert errors[-1] < 1e-3
        assert errors[1] < 0.2
        assert errors[2] < 0.02
        assert errors[3] < max(errors[1] / 50, 1e-6)


def test_damping_shortens_the_step_and_bounds_it_where_nothing_curves() -> None:
    p = PROBLEMS[0]
    product, gradient = by_double_backward(p.kl, STATES * ACTIONS), p.gradient()
    kls = [
        float(p.kl(trust_region_step(gradient, product, max_kl=1e-6, damping=d, iterations=60)))
        for d in (0.0, 0.01, 0.1)
    ]
    assert kls[0] == pytest.approx(1e-6, rel=0.01)
    assert kls[0] > kls[1] > kls[2] > 0
    flat = trust_region_step(gradient, torch.zeros_like, max_kl=0.01, damping=0.1)
    assert float(flat.norm()) == pytest.approx((2 * 0.01 / 0.1) ** 0.5)
    torch.testing.assert_close(flat / flat.norm(), gradient / gradient.norm())


def test_a_zero_gradient_is_a_zero_step() -> None:
    zero = torch.zeros(3)
    assert trust_region_step(zero, lambda v: v, max_kl=0.01).tolist() == [0, 0, 0]
    assert trust_region_step(zero + 1, torch.zeros_like, max_kl=0.01, damping=0.0).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("said", "accepted"),
    [
        ({1.0: (1.0, 0.005)}, 1.0),
        ({1.0: (1.0, 0.02), 0.5: (0.4, 0.01)}, 0.5),  # too far, then just within
        ({1.0: (-1.0, 0.005), 0.5: (0.0, 0.001), 0.25: (0.1, 0.0001)}, 0.25),  # no better, then better
        ({1.0: (float("nan"), 0.0), 0.5: (1.0, float("nan")), 0.25: (float("inf"), 0.0)}, 0.0),
        ({1.0: (1.0, 1.0), 0.5: (1.0, 1.0), 0.25: (1.0, 1.0)}, 0.0),
    ],
)
def test_line_search_by_hand(said: dict[float, tuple[float, float]], accepted: float) -> None:
    step = torch.tensor([4.0, -8.0])
    found = line_search(lambda s: said[float(s[0]) / 4], step, max_kl=0.01, shrink=0.5, tries=3)
    assert found.tolist() == (accepted * step).tolist()
