"""What the online loop needs to know, whatever the estimator and the loss."""

from __future__ import annotations

from typing import Annotated, Literal

from ayni.config import Config, Field, model_validator


class LoopSettings(Config):
    """Paper: 200–400 iterations of 512 answers, mini-batches of 64, one step each."""

    iterations: int = Field(200, ge=1, description="paper: 200–400")
    batch_size: int = Field(512, ge=1, le=1 << 20, description="answers per iteration, of all processes")
    n: int = Field(1, ge=1, le=1 << 16, description="answers per prompt; batch_size / n prompts an iteration")
    mini_batch: int = Field(64, ge=1, description="answers per optimiser step")
    epochs: int = Field(1, ge=1, description="passes over an iteration's answers")
    temperature: float = Field(1.0, gt=0)
    max_tokens: int = Field(256, ge=1)
    # RECIPE §7 has a fixed −1, as most code; what −1 means depends on the reward model's scale
    truncated: Literal["worst", "scored"] | Annotated[float, Field(ge=-1e6, le=1e6)] = Field(
        "worst",
        description="reward of answers cut off at max_tokens: worst (below every finished answer of the iteration), "
        "scored (as the reward models have it), or a number, after any whitening",
    )
    critic_warmup: int = Field(0, ge=0, description="iterations in which only the critic learns")
    validate_every: int = Field(0, ge=0, description="iterations between looks at the validation prompts; 0: never")
    patience: int = Field(3, ge=1, description="stop after so many looks without a better reward; the best is kept")
    kl_limit: float | None = Field(None, gt=0, description="alarm (exit 4) when the mean KL per answer passes it")
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
