"""A helpfulness and a safety reward model as one reward (paper §3.2.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ayni.errors import BadInput
from ayni.maths.rewards import combine_rewards
from ayni.model.placement import Placement
from ayni.model_directory import Trunks
from ayni.parallel import Ranks
from ayni.records import Prompt, Sample
from ayni.reward.ensemble import members
from ayni.reward.model import Reward, RewardModel, load_reward
from ayni.text.tokenizer import Tokenizer

# chosen by the paper for a precision of 0.89 and a recall of 0.55 on its safety test set (§3.2.3)
THRESHOLD = 0.15  # σ(safety) below which safety decides
UNANCHORED = "train it on comparisons with safety labels, or set threshold to 0: safety then decides on tagged prompts"


@dataclass(frozen=True)
class Scores:
    """Raw scores of N answers; `combined` is logit(R_c), not yet whitened. All (N,)."""

    helpfulness: Tensor
    safety: Tensor | None
    combined: Tensor


@dataclass(frozen=True)
class CombinedReward:
    """The reward of one policy, whose samples `tokenizer` encoded; without a safety model, helpfulness alone decides.

    Each of the `ranks` scores its share, and all have every score.
    """

    helpfulness: Reward
    safety: Reward | None
    tokenizer: Tokenizer
    threshold: float = THRESHOLD
    ranks: Ranks = Ranks()

    @property
    def context(self) -> float:
        """Tokens of prompt and answer that can be read; of models with a tokenizer of their own nobody knows."""
        readers = (model for each in (self.helpfulness, self.safety) if each is not None for model in members(each))
        same = (each for each in readers if each.tokenizer.fingerprint == self.tokenizer.fingerprint)
        return min((each.role.context for each in same), default=math.inf)

    @property
    def readers(self) -> int:
        """How many models read an answer to score it; functions of the user's do not count."""
        return sum(len(members(each)) for each in (self.helpfulness, self.safety) if each is not None)

    def __call__(self, prompts: Sequence[Prompt], groups: Sequence[Sequence[Sample]]) -> Scores:
        helpfulness = self._scores(self.helpfulness, prompts, groups)
        if self.safety is None:
            return Scores(helpfulness, None, helpfulness)
        safety = self._scores(self.safety, prompts, groups)
        tagged = torch.tensor(
            [p.task == "safety" for p, group in zip(prompts, groups, strict=True) for _ in group], dtype=torch.bool
        )
        # R_c = safety where the prompt is tagged or σ(safety) < threshold, else helpfulness (§3.2.3)
        parts = _centred(self.helpfulness, helpfulness), _centred(self.safety, safety)
        return Scores(helpfulness, safety, combine_rewards(*parts, tagged, self.threshold))

    def _scores(self, reward: Reward, prompts: Sequence[Prompt], groups: Sequence[Sequence[Sample]]) -> Tensor:
        # groups stay whole: their prompt is tokenised once
        mine = self.ranks.share(groups)
        scores = reward.score_samples(self.ranks.share(prompts), mine, self.tokenizer)
        return self.ranks.gather_rows(scores, [len(group) for group in mine])


def _centred(reward: Reward, scores: Tensor) -> Tensor:
    """Less their mean on the start policy's answers, where no labels fix the shift of the model's scores (§3.2.2)."""
    scale = next((model.scale for model in members(reward)), None)
    if scale is None or scale.anchored or scale.normalisation is None:
        return scores
    return scores - scale.normalisation.mean


def check_threshold(safety: Reward | None, threshold: float, path: Path, fix: str) -> None:
    """BadInput where σ(safety) < threshold would divide at an arbitrary place: at scores of no known anchor."""
    if threshold > 0 and isinstance(safety, RewardModel) and not safety.scale.anchored:
        what = f"the safety model's scores are not anchored to safety labels, so σ < {threshold:g} means nothing"
        raise BadInput(what, path=path, field="threshold", fix=fix)


def cut_off(samples: Sequence[Sample]) -> Tensor:
    """Which samples were cut off at the token limit: (N,) bool."""
    return torch.tensor([sample.finished == "length" for sample in samples], dtype=torch.bool)


def best_of(scores: Sequence[float], samples: Sequence[Sample]) -> int:
    """Which of a prompt's samples has the highest score; one that was cut off wins over no finished one."""
    return max(range(len(samples)), key=lambda i: (samples[i].finished == "stop", scores[i]))


def load_combined(
    helpfulness: Reward,
    safety: Path | None,
    placement: Placement,
    tokenizer: Tokenizer,
    threshold: float = THRESHOLD,
    trunks: Trunks | None = None,
) -> CombinedReward:
    """With the safety reward model in the directory `safety`, where there is one.

    Raises BadInput for a threshold on a model without an anchor.
    """
    safe = None if safety is None else load_reward(safety, placement, trunks)
    if safety is not None:
        check_threshold(safe, threshold, safety, UNANCHORED)
    return CombinedReward(helpfulness, safe, tokenizer, threshold, placement.ranks)
