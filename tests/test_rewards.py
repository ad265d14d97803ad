"""Two reward models as one reward (paper §3.2.3), against the equation written with σ, logit and loops."""

from __future__ import annotations

import math

import numpy as np
import torch
from tiny import policy, prompts, reward_model, tokenizer

from ayni.maths.advantages import whiten
from ayni.maths.rewards import combine_rewards
from ayni.model.role import Role
from ayni.reward.combine import CombinedReward
from ayni.reward.model import RewardModel
from ayni.rollout.engine import rollout
from ayni.rollout.sampling import Sampling


def papers(helpfulness: np.ndarray, safety: np.ndarray, tagged: np.ndarray) -> np.ndarray:
    """whiten(logit(R_c)) with R = σ(raw), as printed."""
    chosen = []
    for h, s, tag in zip(helpfulness, safety, tagged, strict=True):
        r_h, r_s = 1 / (1 + math.exp(-h)), 1 / (1 + math.exp(-s))
        r_c = r_s if tag or r_s < 0.15 else r_h
        chosen.append(math.log(r_c / (1 - r_c)))
    x = np.array(chosen)
    return (x - x.mean()) / np.sqrt(x.var() + 1e-8)


def test_the_combination_is_the_papers() -> None:
    draw = np.random.default_rng(0)
    helpfulness, safety = draw.normal(0, 2, 400), draw.normal(0, 2, 400)
    tagged = draw.random(400) < 0.3
    ours = whiten(combine_rewards(*map(torch.from_numpy, (helpfulness, safety, tagged))))
    np.testing.assert_allclose(ours.numpy(), papers(helpfulness, safety, tagged), rtol=1e-9, atol=1e-9)


def test_who_decides_by_hand() -> None:
    edge = math.log(0.15 / 0.85)
    safety = torch.tensor([edge - 0.01, edge + 0.01, 9.0, -9.0, 9.0])
    tagged = torch.tensor([False, False, False, False, True])
    helpful = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    chosen = combine_rewards(helpful, safety, tagged)
    torch.testing.assert_close(chosen, torch.tensor([edge - 0.01, 2.0, 3.0, -9.0, 9.0]))
    # thresholds 0 and 1: helpfulness alone, and safety alone, on untagged prompts
    torch.testing.assert_close(combine_rewards(helpful, safety, tagged, 0.0)[:4], helpful[:4])
    torch.testing.assert_close(combine_rewards(helpful, safety, tagged, 1.0), safety)


def test_extreme_scores_need_no_clamp() -> None:
    scores = torch.tensor([90.0, -90.0])
    combined = whiten(combine_rewards(scores, torch.tensor([5.0, 5.0]), torch.tensor([False, False])))
    torch.testing.assert_close(combined, torch.tensor([1.0, -1.0]))


def test_judges_tag_by_the_prompts_task_and_keep_order() -> None:
    helpful, safe = (RewardModel(Role(reward_model(seed)), tokenizer()) for seed in (1, 2))
    asked = [*prompts(3, seed=1), *prompts(2, seed=2, task="safety")]
    groups = rollout(policy(), asked, n=2, sampling=Sampling(1.0, 1.0, 6), seed=0)
    scores = CombinedReward(helpful, safe, tokenizer())(asked, groups)
    alone = CombinedReward(helpful, None, tokenizer())(asked, groups)
    assert scores.safety is not None
    torch.testing.assert_close(alone.combined, scores.helpfulness)
    assert alone.safety is None
    for i in range(10):
        tagged = asked[i // 2].task == "safety" or 1 / (1 + math.exp(-scores.safety[i])) < 0.15
        assert scores.combined[i] == (scores.safety if tagged else scores.helpfulness)[i]
    assert len({round(x, 4) for x in scores.combined.tolist()}) > 5
