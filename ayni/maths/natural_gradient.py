"""Natural gradients of trust-region policy optimisation, on flat vectors (Schulman et al. 2015, appendix C).

Signs: `gradient` points UP, it is of the surrogate E[ρ A] that is to be increased (minus a loss's gradient), and a step
is ADDED to the parameters. F is the Fisher matrix, the Hessian of KL(π_old‖π) at π_old, known only by its products with
vectors. Vectors are (P,), of one dtype; fp32 or more.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


def conjugate_gradient(product: Product, b: Tensor, *, iterations: int, tolerance: float) -> Tensor:
    """x with F x ≈ b, from x = 0: (P,). Stops at ‖b − F x‖ ≤ tolerance·‖b‖.

    `product` is x ↦ F x, F symmetric and positive semi-definite; where rounding finds no curvature along the next
    direction, x is returned as it is. Hestenes & Stiefel 1952.
    """
    x, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    square = residual.dot(residual)
    # relative to b: how large a gradient is says nothing about how far it is solved
    enough = tolerance**2 * square
    for _ in range(iterations):
        if square <= enough:
            break
        along = product(direction)
        curvature = direction.dot(along)
        # rounding makes flat directions look like this; dividing by it would leap
        if not curvature > 0:
            break
        length = square / curvature
        x = x + length * direction
        residual = residual - length * along
        previous, square = square, residual.dot(residual)
        # Fletcher–Reeves: the next direction is F-conjugate to all before
        direction = residual + (square / previous) * direction
    return x


def trust_region_step(
    gradient: Tensor,
    product: Product,
    *,
    max_kl: float,
    damping: float = 0.1,
    iterations: int = 10,
    tolerance: float = 1e-5,
) -> Tensor:
    """√(2δ / xᵀHx) x, H x ≈ gradient, H = F + damping·I: the step up whose KL is δ = `max_kl` to second order: (P,).

    `product` is x ↦ F x, without the damping. Damping makes the step shorter than δ allows (by F alone) and bounds it
    where F is flat: ‖step‖ ≤ √(2δ/damping). Zero where the gradient is zero or H has no curvature along it.
    """

    def damped(v: Tensor) -> Tensor:
        return product(v) + damping * v

    x = conjugate_gradient(damped, gradient, iterations=iterations, tolerance=tolerance)
    # KL ≈ ½ xᵀHx, so the step that reaches δ is √(2δ / xᵀHx) times x
    curvature = x.dot(damped(x))
    return (2 * max_kl / curvature).sqrt() * x if curvature > 0 else torch.zeros_like(x)


def line_search(
    evaluate: Callable[[Tensor], tuple[float, float]], step: Tensor, *, max_kl: float, shrink: float, tries: int
) -> Tensor:
    """The first of step, shrink·step, shrink²·step … that raises the surrogate within the bound, else zero: (P,).

    `evaluate` says of a step (surrogate after − before, KL(π_old‖π)); accepted where the first is > 0 and the second
    ≤ `max_kl`. Numbers that are not finite are not accepted.
    """
    for i in range(tries):
        candidate = shrink**i * step
        improvement, kl = evaluate(candidate)
        # a NaN is not greater than 0, so it is refused too
        if 0 < improvement < float("inf") and kl <= max_kl:
            return candidate
    return torch.zeros_like(step)


def finite_difference_product(kl_gradient: Callable[[Tensor], Tensor], *, epsilon: float) -> Product:
    """x ↦ F x from first derivatives: (g(ηx) − g(−ηx)) / 2η, η = epsilon/‖x‖.

    `kl_gradient` is g, from a step away from θ_old to ∇KL(π_old‖π) there; its derivative at 0 is F. For models whose
    attention, recomputation or heads have no second derivative. The error is O(epsilon²), plus rounding over epsilon.
    """

    def product(x: Tensor) -> Tensor:
        norm = x.norm()
        if not norm > 0:
            return torch.zeros_like(x)
        # of length epsilon, whatever the length of x: those of conjugate directions differ by orders
        step = epsilon / norm * x
        # both ways: the second-order term of the gradient cancels
        return (kl_gradient(step) - kl_gradient(-step)) * (norm / (2 * epsilon))

    return product
