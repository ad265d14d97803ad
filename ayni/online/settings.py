"""What the online loop needs to know, whatever the estimator and the loss."""

from __future__ import annotations

from typing import Annotated, Literal

from ayni.config import Config, Field, model_validator


class AdaptiveKl(Config):
    """β follows the KL (Ziegler et al. 2019, §2.2; the numbers are trlx's). β then starts at 0.15 there."""

    target: float = Field(6.0, gt=0, description="mean KL per answer to aim at, nats")
    horizon: int = Field(10_000, ge=1, description="answers in which β changes by a fifth at most")


class LoopSettings(Config):
    """Paper: 200–400 iterations of 512 answers, mini-batches of 64, one step each."""

    iterations: int = Field(200, ge=1, description="paper: 200–400")
    batch_size: int = Field(512, ge=1, le=1 << 20, description="answers per iteration, of all processes")
    n: int = Field(1, ge=1, le=1 << 16, description="answers per prompt; batch_size / n prompts an iteration")
    mini_batch: int = Field(64, ge=1, description="answers per optimiser step")
    epochs: int = Field(1, ge=1, description="passes over an iteration's answers")
    beta: float = Field(0.01, ge=0, description="weight of the KL to the reference; 0 switches it off")
    adaptive_kl: AdaptiveKl | None = Field(None, description="beta is a start, and follows the KL: {target, horizon}")
    temperature: float = Field(1.0, gt=0)
    max_tokens: int = Field(256, ge=1)
    # most code has a fixed −1; what −1 means depends on the reward model's scale
    truncated: Literal["worst", "scored"] | Annotated[float, Field(ge=-1e6, le=1e6)] = Field(
        "worst",
        description="reward of answers cut off at max_tokens: worst (below every finished answer of the iteration), "
        "scored (as the reward models have it), or a number, after any whitening",
    )
    reward_clip: float | None = Field(None, gt=0, description="rewards end at ±this, after any whitening")
    critic_warmup: int = Field(0, ge=0, description="iterations in which only the critic learns")
    validate_every: int = Field(0, ge=0, description="iterations between looks at the validation prompts; 0: never")
    patience: int = Field(3, ge=1, description="stop after so many looks without a better reward; the best is kept")
    kl_limit: float | None = Field(None, gt=0, description="alarm (exit 4) when the mean KL per answer passes it")
    kl_budget: float | None = Field(None, gt=0, description="mean KL per answer, nats, that no policy kept goes past")
    over_budget: Literal["stop", "rollback"] = Field(
        "stop",
        description="at the last policy within kl_budget; or back to it, and on with twice the beta or half the lr",
    )
    tokens_per_micro_batch: int = Field(8192, ge=1)
    snapshot_every: int = Field(
        0, ge=0, description="iterations between kept copies of the policy, for `study`; 0: none"
    )
    checkpoint_every: int = Field(10, ge=1, description="iterations between checkpoints")

    @model_validator(mode="after")
    def _whole_groups(self) -> LoopSettings:
        if self.batch_size % self.n:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of n {self.n}: answers per prompt")
        return self

    @model_validator(mode="after")
    def _beta_can_grow(self) -> LoopSettings:
        moved = "adaptive_kl" if self.adaptive_kl else "over_budget: rollback" if self._doubles else None
        if moved and not self.beta:
            raise ValueError(f"{moved} multiplies beta, which must be above 0")
        return self

    @property
    def _doubles(self) -> bool:
        return self.kl_budget is not None and self.over_budget == "rollback"

    @property
    def moves_beta(self) -> bool:
        return self.adaptive_kl is not None or self._doubles
