"""Several reward models as one: what one of them gets wrong, the others may not (Coste et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ayni.errors import BadInput
from ayni.maths.rewards import Join, join_scores
from ayni.model.placement import Placement
from ayni.model_directory import Trunks
from ayni.records import Prompt, Sample
from ayni.reward.model import Reward, RewardModel, load_reward
from ayni.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Ensemble:
    """Scores less their mean, over their deviation, each model's own on answers of its start policy (departure 30);
    joined, and brought back to the first model's scale, so that what is said of that one's scores holds for these.
    """

    models: tuple[RewardModel, ...]
    join: Join = "mean"

    def score_samples(self, prompts: Sequence[Prompt], groups: Sequence[Sequence[Sample]], policy: Tokenizer) -> Tensor:
        """(N·n,) in order, in the raw units of the first model."""
        scales = [model.scale.normalisation for model in self.models]
        assert None not in scales  # ensemble_of has looked
        scores = [model.score_samples(prompts, groups, policy) for model in self.models]
        normal = torch.stack([scale(x) for scale, x in zip(scales, scores, strict=True) if scale is not None])
        first = scales[0]
        assert first is not None
        return join_scores(normal, self.join) * first.deviation + first.mean


def ensemble_of(
    first: Reward, others: Sequence[Path], join: Join, placement: Placement = Placement(), trunks: Trunks | None = None
) -> Reward:
    """`first` with the reward models in these directories; alone where there are none.

    Raises BadInput where one of them is no reward model, or does not say mean and deviation of its scores.
    """
    if not others:
        return first
    if not isinstance(first, RewardModel):
        raise BadInput(
            "reward models are joined, not functions", field="reward_ensemble", fix="join them in the function"
        )
    models = (first, *(load_reward(path, placement, trunks) for path in others))
    for model in models:
        if model.scale.normalisation is None:
            what = f"{model.name} does not say mean and deviation of its scores, so it cannot be joined with others"
            raise BadInput(what, field="reward_ensemble", fix="train it with start_answers above 0")
    return Ensemble(models, join)


def members(reward: Reward) -> tuple[RewardModel, ...]:
    """The reward models in it, the one whose scale its scores have first; of a function none."""
    if isinstance(reward, Ensemble):
        return reward.models
    return (reward,) if isinstance(reward, RewardModel) else ()
