"""Which estimator, which loss: the settings that make PPO or one of its relatives, and the parts they stand for."""

from __future__ import annotations

from typing import Literal

from ayni.config import Config, Field, model_validator
from ayni.model.adapters import Lora
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.model.role import Role
from ayni.online.estimators import GAE, ActorCritic, Estimator, GroupNormalised, LeaveOneOut, Reinforce, ReMax
from ayni.online.learner import GradientLearner, Learner, NormalisedCritic, PenaltyLearner
from ayni.online.settings import LoopSettings
from ayni.online.trust_region import TrustRegionLearner
from ayni.train.objectives import Objective, PolicyClip, PolicyGradient, PolicyPenalty, ValueClip
from ayni.train.trainer import Optimiser, Trainer, steps_per_epoch


class Grpo(Config):
    """GRPO's two normalisations (Shao et al. 2024); Dr. GRPO has neither (Liu et al. 2025)."""

    by_std: bool = Field(True, description="divide by the standard deviation of the prompt's rewards")
    by_answer: bool = Field(True, description="with loss clip: every answer counts alike, however long")


class TrustRegion(Config):
    """How TRPO finds its step (Schulman et al. 2015, appendix C)."""

    damping: float = Field(0.1, ge=0, description="added to the Fisher matrix")
    steps: int = Field(10, ge=1, description="of conjugate gradients")


class Algorithm(LoopSettings):
    """Paper: β 0.01 (7B, 13B) or 0.005, batch 512, mini-batch 64, one step each, clip 0.2, constant LR 1e-6."""

    estimator: Literal["gae", "actor_critic", "reinforce", "remax", "rloo", "grpo"] = Field(
        "gae", description="what a token was worth: with a critic (gae, actor_critic) or by comparing answers"
    )
    loss: Literal["clip", "penalty", "gradient", "trust_region"] = Field(
        "clip", description="how the policy moves: PPO-clip, PPO-penalty, the plain policy gradient, TRPO"
    )
    clip: float = Field(0.2, gt=0)
    value_clip: float = Field(0.2, gt=0)
    value_normalisation: bool = Field(
        False, description="the critic learns returns in running deviations of theirs (PopArt); value_clip is in them"
    )
    gamma: float = Field(1.0, gt=0, le=1)
    # as most code has it; the paper (§3.2.3) names neither λ nor a critic
    lam: float = Field(0.95, ge=0, le=1, description="gae: 1 trusts the rewards, 0 the critic")
    step_kl: float = Field(
        0.01,
        gt=0,
        description="KL to the sampling policy per token, nats: penalty aims at it, trust_region keeps below",
    )
    grpo: Grpo = Field(Grpo(), description="grpo: {by_std, by_answer}; both false is Dr. GRPO")
    trust_region: TrustRegion = Field(TrustRegion(), description="trust_region: {damping, steps}")
    # paper §3.2.3: constant 1e-6, β₂ 0.95, weight decay 0.1, clipping at 1.0
    optimiser: Optimiser = Field(Optimiser(lr=1e-6, schedule="constant", warmup=0), description="the policy's")
    critic_optimiser: Optimiser = Field(Optimiser(lr=1e-6, schedule="constant", warmup=0), description="the critic's")
    lora: Lora | None = Field(None, description="policy and critic learn adapters: {rank, alpha, layers, targets}")
    dtype: Dtype = "auto"

    @model_validator(mode="after")
    def _fits(self) -> Algorithm:
        if self.n < self.estimated().group:
            raise ValueError(f"{self.estimator} compares the answers of a prompt: n must be at least 2")
        if self.loss == "trust_region" and self.dtype == "bf16":
            raise ValueError("trust_region measures small differences: dtype must be fp32, or auto")
        if self.estimator == "grpo" and self.loss != "clip" and self.beta:
            raise ValueError("grpo charges its KL in the loss clip: with another loss, set beta: 0")
        if self.estimator == "grpo" and self.moves_beta:
            raise ValueError("grpo charges its KL in the loss, at a constant beta: no adaptive_kl, no rollback")
        if self.loss == "penalty" and self.epochs * steps_per_epoch(self.batch_size, self.mini_batch) == 1:
            # its KL is that before the last step: of the only step it is 0, and the weight would fall for ever
            raise ValueError("penalty moves its weight by the KL of earlier steps: lower mini_batch or raise epochs")
        return self

    def precision(self) -> Dtype:
        """The number format to ask for: TRPO's differences of gradients need fp32."""
        return "fp32" if self.loss == "trust_region" else self.dtype

    def estimated(self) -> Estimator:
        choices: dict[str, Estimator] = {
            "gae": GAE(self.gamma, self.lam),
            "actor_critic": ActorCritic(self.gamma),
            "reinforce": Reinforce(),
            "remax": ReMax(),
            "rloo": LeaveOneOut(),
            "grpo": GroupNormalised(self.grpo.by_std),
        }
        return choices[self.estimator]

    def policy(self, role: Role, placement: Placement) -> Learner:
        """How the policy moves."""
        if self.loss == "trust_region":
            return TrustRegionLearner(
                role,
                placement.ranks,
                temperature=self.temperature,
                max_kl=self.step_kl,
                damping=self.trust_region.damping,
                iterations=self.trust_region.steps,
                tokens_per_micro_batch=self.tokens_per_micro_batch,
            )
        trainer = self.trainer(role, self.optimiser, placement)
        if self.loss == "penalty":
            # β from 1: it finds its target by doubling and halving (Schulman et al. 2017, §4)
            return PenaltyLearner(trainer, PolicyPenalty(1.0, self.temperature), self.step_kl)
        clip = PolicyClip(self.clip, self.temperature)
        # GRPO charges the KL in the loss, where others have it in the reward (Shao et al. 2024, §4.1.1)
        if self.estimator == "grpo":
            clip = PolicyClip(self.clip, self.temperature, kl=self.beta, by_answer=self.grpo.by_answer)
        objective: Objective = PolicyGradient(self.temperature) if self.loss == "gradient" else clip
        return GradientLearner(trainer, objective)

    def trainer(self, role: Role, optimiser: Optimiser, placement: Placement) -> Trainer:
        # the schedule must end with the last step
        steps = self.iterations * self.epochs * steps_per_epoch(self.batch_size, self.mini_batch)
        return Trainer(
            role, optimiser, steps=steps, ranks=placement.ranks, tokens_per_micro_batch=self.tokens_per_micro_batch
        )

    def critic(self, role: Role, placement: Placement) -> Learner:
        """How the critic moves."""
        trainer = self.trainer(role, self.critic_optimiser, placement)
        learner = NormalisedCritic if self.value_normalisation else GradientLearner
        return learner(trainer, ValueClip(self.value_clip))
