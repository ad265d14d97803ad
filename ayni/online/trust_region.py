"""TRPO: the natural gradient's step of the largest surrogate gain within a KL bound (Schulman et al. 2015).

    g = ∇E[ρ A];  x ≈ F⁻¹ g by conjugate gradients;  step = √(2δ / xᵀFx) x;  halved until KL ≤ δ and E[ρ A] rises

F is the Fisher matrix of the whole next-token distribution at every sampled token. Its products come from differences
of first derivatives, as the attention and the heads have no second ones: that takes fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ayni.maths.natural_gradient import finite_difference_product, line_search, trust_region_step
from ayni.model.role import Role
from ayni.model.trainable import frozen_copy
from ayni.online.learner import State
from ayni.parallel import Ranks
from ayni.train.batch import Experience, Trajectory
from ayni.train.gradient import accumulate, measure, micro_batches
from ayni.train.objectives import Metrics, OnTokens, PolicyPenalty

EPSILON = 1e-2  # ‖θ' − θ‖ of the differences
SHRINK, TRIES = 0.5, 10


@dataclass(frozen=True)
class Divergence(OnTokens):
    """KL(π_old‖π) over the whole vocabulary at every sampled token."""

    old: Role
    temperature: float

    def loss(self, role: Role, batch: Experience) -> tuple[Tensor, Metrics]:
        return role.divergence(batch, self.old, self.temperature).sum(), {}


class TrustRegionLearner:
    """One step a call, on all that it is given; it keeps nothing between steps."""

    def __init__(
        self,
        role: Role,
        ranks: Ranks,
        *,
        temperature: float,
        max_kl: float,
        damping: float,
        iterations: int,
        tokens_per_micro_batch: int,
    ) -> None:
        self.role, self.ranks, self.temperature = role, ranks, temperature
        self.bound, self.damping, self.iterations = max_kl, damping, iterations
        self.max_kl = max_kl
        self.tokens_per_micro_batch = tokens_per_micro_batch
        self.parameters = list(role.trainable().values())

    def pace(self, factor: float) -> None:
        # a step's length goes with the root of its KL
        self.max_kl = factor**2 * self.bound

    def learn(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        surrogate = PolicyPenalty(0.0, self.temperature)  # −A ρ
        # π_old is where this step begins: the bound is on each step, not on the iteration
        divergence = Divergence(Role(frozen_copy(self.role.model)), self.temperature)
        batches = micro_batches(self.role, trajectories, surrogate, self.ranks, self.tokens_per_micro_batch)
        start = [p.detach().clone() for p in self.parameters]
        found = accumulate(self.role, batches, surrogate, self.ranks)
        # up: accumulate leaves that of the loss −ρA
        gradient = -self._gradient()

        def kl_gradient(step: Tensor) -> Tensor:
            self._move(start, step)
            accumulate(self.role, batches, divergence, self.ranks)
            return self._gradient()

        def gain_and_kl(step: Tensor) -> tuple[float, float]:
            self._move(start, step)
            gain = found["loss"] - measure(self.role, batches, surrogate, self.ranks)
            return gain, measure(self.role, batches, divergence, self.ranks)

        product = finite_difference_product(kl_gradient, epsilon=EPSILON)
        full = trust_region_step(
            gradient, product, max_kl=self.max_kl, damping=self.damping, iterations=self.iterations
        )
        step = line_search(gain_and_kl, full, max_kl=self.max_kl, shrink=SHRINK, tries=TRIES)
        gain, kl = gain_and_kl(step)  # moves there
        return found | {"norm": float(gradient.norm()), "step_norm": float(step.norm()), "gain": gain, "step_kl": kl}

    def end_iteration(self) -> dict[str, float]:
        return {}

    def _gradient(self) -> Tensor:
        """The gradient on the parameters, laid end to end; the parameters keep none."""
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        flat = torch.cat([gradient.flatten() for gradient in found])
        for p in self.parameters:
            p.grad = None
        return flat

    def _move(self, start: Sequence[Tensor], step: Tensor) -> None:
        """The parameters at θ + step."""
        with torch.no_grad():
            parts = step.split([p.numel() for p in self.parameters])
            for p, before, part in zip(self.parameters, start, parts, strict=True):
                p.copy_(before + part.view_as(p))

    def state(self, prefix: str) -> State:
        return {f"{prefix}model.{name}": p for name, p in self.role.trainable().items()}, {}

    def load(self, tensors: dict[str, Tensor], numbers: dict[str, Any], prefix: str) -> None:
        with torch.no_grad():
            for name, p in self.role.trainable().items():
                p.copy_(tensors[f"{prefix}model.{name}"])
