"""How a role learns from experience: by an objective and AdamW, by an adaptive penalty, or inside a trust region.

The loop hands every learner mini-batches of trajectories and asks for nothing but numbers to log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ayni.maths.losses import adapted_beta
from ayni.maths.moments import Moments
from ayni.model.role import Role
from ayni.model.score_scale import Normalisation
from ayni.train.batch import Trajectory
from ayni.train.objectives import Objective, PolicyPenalty, ValueClip
from ayni.train.trainer import Trainer

LEAST_SCALE = 1e-4  # of returns, as in PopArt
State = tuple[dict[str, Tensor], dict[str, Any]]  # tensors and numbers, as a checkpoint keeps them


class Learner(Protocol):
    """One role and how it is moved."""

    @property
    def role(self) -> Role: ...

    def pace(self, factor: float) -> None:
        """From now on steps are so many times as long as the settings say."""
        ...

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

    def pace(self, factor: float) -> None:
        self.trainer.pace = factor

    def learn(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        return self.trainer.update(trajectories, self.objective)

    def end_iteration(self) -> dict[str, float]:
        return {}

    def state(self, prefix: str) -> State:
        return self.trainer.state(prefix)

    def load(self, tensors: dict[str, Tensor], numbers: dict[str, Any], prefix: str) -> None:
        self.trainer.load(tensors, numbers, prefix)


class NormalisedCritic(GradientLearner):
    """A critic that learns returns in deviations of all returns so far. Its values stay what they are when that scale
    moves, as its head and what normalises it move against it (PopArt, van Hasselt et al. 2016).

    So a learning rate and a clip mean the same for any scale of returns. Their mean needs no place: errors are
    differences, and a head without bias has none to keep.
    """

    objective: ValueClip

    def __init__(self, trainer: Trainer, objective: ValueClip) -> None:
        super().__init__(trainer, objective)
        self.moments = Moments()

    def learn(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        sampled = [torch.tensor([*t.sequence.mask[1:], False]) for t in trajectories]
        found = [t.returns[mask] for t, mask in zip(trajectories, sampled, strict=True) if t.returns is not None]
        self.moments = self.moments.joined(torch.cat(found))
        # equal returns have no scale to go by
        self._rescale(max(self.moments.deviation, LEAST_SCALE) if self.moments.deviation else 1.0)
        return super().learn(trajectories) | {"return_deviation": self.moments.deviation}

    def _rescale(self, scale: float) -> None:
        """V = (w·h − mean)/deviation, all three times old/new: V stays, and a step of w moves it by `scale` more."""
        role, factor = self.role, self.objective.scale / scale
        before = role.normalisation or Normalisation(0.0, 1.0, 0)
        with torch.no_grad():
            role.model.head.mul_(factor)
        self._normalise(before.mean * factor, before.deviation * factor, before.answers)
        self.objective = self.objective.at(scale)

    def _normalise(self, mean: float, deviation: float, answers: int) -> None:
        self.trainer.role = replace(self.role, normalisation=Normalisation(mean, deviation, answers))

    def state(self, prefix: str) -> State:
        tensors, numbers = super().state(prefix)
        known = {"moments": self.moments, "normalisation": self.role.normalisation}
        kept = {f"{prefix}{name}": list(astuple(of)) for name, of in known.items() if of is not None}
        return tensors, numbers | kept | {f"{prefix}scale": self.objective.scale}

    def load(self, tensors: dict[str, Tensor], numbers: dict[str, Any], prefix: str) -> None:
        super().load(tensors, numbers, prefix)
        self.moments = Moments(*numbers[f"{prefix}moments"])
        if (said := numbers.get(f"{prefix}normalisation")) is not None:
            self._normalise(*said)
        self.objective = self.objective.at(numbers[f"{prefix}scale"])


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
