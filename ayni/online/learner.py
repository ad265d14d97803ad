"""How a role learns from experience: by an objective and AdamW, by an adaptive penalty, or inside a trust region.

The loop hands every learner mini-batches of trajectories and asks for nothing but numbers to log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from ayni.maths.losses import adapted_beta
from ayni.model.role import Role
from ayni.train.batch import Trajectory
from ayni.train.objectives import Objective, PolicyPenalty
from ayni.train.trainer import Trainer

State = tuple[dict[str, Tensor], dict[str, Any]]  # tensors and numbers, as a checkpoint keeps them


class Learner(Protocol):
    """One role and how it is moved."""

    @property
    def role(self) -> Role: ...

    def learn(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        """One step on a mini-batch of all ranks; what to log. Raises BadNumbers."""
        ...

    def end_iteration(self) -> dict[str, float]:
        """After an iteration's last mini-batch; what to log."""
        ...

    def state(self, prefix: str) -> State: ...

    def load(self, tensors: dict[str, Tensor], numbers: dict[str, Any], prefix: str) -> None: ...


class GradientLearner:
    """An objective's gradient and the trainer's AdamW: PPO-clip, the plain policy gradient, the critic."""

    def __init__(self, trainer: Trainer, objective: Objective) -> None:
        self.trainer, self.objective = trainer, objective

    @property
    def role(self) -> Role:
        return self.trainer.role

    def learn(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        return self.trainer.update(trajectories, self.objective)

    def end_iteration(self) -> dict[str, float]:
        return {}

    def state(self, prefix: str) -> State:
        return self.trainer.state(prefix)

    def load(self, tensors: dict[str, Tensor], numbers: dict[str, Any], prefix: str) -> None:
        self.trainer.load(tensors, numbers, prefix)


class PenaltyLearner(GradientLearner):
    """PPO-penalty: the KL to the sampling policy is charged at a β that doubles or halves around a target after
    every iteration (Schulman et al. 2017, §4)."""

    objective: PolicyPenalty

    def __init__(self, trainer: Trainer, objective: PolicyPenalty, target: float) -> None:
        super().__init__(trainer, objective)
        self.target, self.kl = target, 0.0

    def learn(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        found = super().learn(trajectories)
        # nats per token
        self.kl = found["approx_kl"]
        return found

    def end_iteration(self) -> dict[str, float]:
        # the last mini-batch was measured furthest from the policy that sampled
        self.objective = self.objective.at(adapted_beta(self.objective.beta, self.kl, self.target))
        return {"penalty": self.objective.beta}

    def state(self, prefix: str) -> State:
        tensors, numbers = super().state(prefix)
        return tensors, numbers | {f"{prefix}penalty": self.objective.beta}

    def load(self, tensors: dict[str, Tensor], numbers: dict[str, Any], prefix: str) -> None:
        super().load(tensors, numbers, prefix)
        self.objective = self.objective.at(numbers[f"{prefix}penalty"])
