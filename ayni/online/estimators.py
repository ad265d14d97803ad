"""What every sampled token was worth: from the rewards of whole answers to advantages.

An estimator says what it needs. The KL charge, at the answers' β, goes into the token rewards where there is a critic,
into the answer's reward where there is none; GRPO alone charges it in the loss (ayni.train.objectives.PolicyClip).
Numbers that an estimator keeps between iterations travel in `memory`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ayni.maths.advantages import gae, kl_rewards, whiten
from ayni.maths.estimators import (
    greedy_advantages,
    group_normalised,
    leave_one_out,
    moving_baseline,
    n_step_advantages,
    spread,
)
from ayni.online.experience import ScoredAnswers

Memory = dict[str, float]


@dataclass(frozen=True)
class AdvantageEstimate:
    """advantages (T,), and the returns (T,) that a critic learns to expect."""

    advantages: Tensor
    returns: Tensor | None = None
    memory: Memory = field(default_factory=dict)


class Estimator(ABC):
    """(answers, memory) → an estimate."""

    critic: ClassVar[bool] = False  # whether it reads values
    greedy: ClassVar[bool] = False  # whether it compares with the greedy answer
    group: ClassVar[int] = 1  # least number of answers per prompt
    whitened: ClassVar[bool] = False  # whether an iteration's rewards are brought to mean 0, deviation 1 first

    @abstractmethod
    def __call__(self, answers: ScoredAnswers, memory: Memory) -> AdvantageEstimate: ...


@dataclass(frozen=True)
class GAE(Estimator):
    """Generalised advantages of token rewards, whitened over the iteration: the paper's PPO (Schulman et al. 2016)."""

    critic = True
    whitened = True
    gamma: float = 1.0
    lam: float = 0.95

    def __call__(self, answers: ScoredAnswers, memory: Memory) -> AdvantageEstimate:
        mask = answers.batch.mask
        advantages, returns = gae(token_rewards(answers), _values(answers), mask, gamma=self.gamma, lam=self.lam)
        # whitened again: their scale moves with the critic, and the clipped loss has one step size (departure 30)
        return AdvantageEstimate(whiten(advantages, mask), returns)


@dataclass(frozen=True)
class ActorCritic(Estimator):
    """R_t − V_t with returns to the answer's end (A2C, Mnih et al. 2016)."""

    critic = True
    whitened = True
    gamma: float = 1.0

    def __call__(self, answers: ScoredAnswers, memory: Memory) -> AdvantageEstimate:
        # one KL charge a token, in nats; the score on the last one
        rewards, mask = token_rewards(answers), answers.batch.mask
        return AdvantageEstimate(*n_step_advantages(rewards, _values(answers), mask, gamma=self.gamma, steps=None))


@dataclass(frozen=True)
class Reinforce(Estimator):
    """r − b with a moving average b of earlier iterations' rewards (Williams 1992)."""

    decay: float = 0.9

    def __call__(self, answers: ScoredAnswers, memory: Memory) -> AdvantageEstimate:
        # of the iterations before: a baseline that contained r itself would bias the gradient
        before = memory.get("baseline")
        advantages, baseline = moving_baseline(charged_rewards(answers), before, decay=self.decay)
        return AdvantageEstimate(_everywhere(advantages, answers), memory={"baseline": baseline})


@dataclass(frozen=True)
class ReMax(Estimator):
    """r − r(greedy answer) (Li et al. 2023). The greedy answer is deterministic, so its KL charge is left out."""

    greedy = True

    def __call__(self, answers: ScoredAnswers, memory: Memory) -> AdvantageEstimate:
        assert answers.greedy is not None
        advantages = greedy_advantages(charged_rewards(answers), answers.greedy, answers.n)
        return AdvantageEstimate(_everywhere(advantages, answers))


@dataclass(frozen=True)
class LeaveOneOut(Estimator):
    """r_i − mean of the prompt's other answers (RLOO, Ahmadian et al. 2024)."""

    group = 2

    def __call__(self, answers: ScoredAnswers, memory: Memory) -> AdvantageEstimate:
        return AdvantageEstimate(_everywhere(leave_one_out(charged_rewards(answers), answers.n), answers))


@dataclass(frozen=True)
class GroupNormalised(Estimator):
    """(r_i − mean)/std within a prompt's answers (GRPO, Shao et al. 2024); without the std, Dr. GRPO's."""

    group = 2
    by_std: bool = True

    def __call__(self, answers: ScoredAnswers, memory: Memory) -> AdvantageEstimate:
        # no KL here: GRPO charges it in the loss
        return AdvantageEstimate(_everywhere(group_normalised(answers.rewards, answers.n, by_std=self.by_std), answers))


def token_rewards(answers: ScoredAnswers) -> Tensor:
    """−β log π/π_ref at every token, the answer's reward at its last: (T,)."""
    outputs, batch = answers.outputs, answers.batch
    reference = outputs.logprobs if outputs.ref_logprobs is None else outputs.ref_logprobs
    return kl_rewards(
        outputs.logprobs, reference, answers.rewards, batch.mask, batch.layout.ends - 1, beta=answers.beta
    )


def charged_rewards(answers: ScoredAnswers) -> Tensor:
    """r − β Σ_t log π/π_ref: (N,)."""
    return answers.rewards - answers.beta * answers.kl().to(answers.rewards.dtype)


def _everywhere(per_answer: Tensor, answers: ScoredAnswers) -> Tensor:
    batch = answers.batch
    return spread(per_answer, batch.mask, batch.layout.offsets)


def _values(answers: ScoredAnswers) -> Tensor:
    values = answers.outputs.values
    assert values is not None  # the loop gives a critic to who asks for one
    return values
