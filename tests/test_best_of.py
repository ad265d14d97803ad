"""The best of n: its distribution by enumeration, its KL under the bound, and what choosing costs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from tiny import policy, prompts, reward_model, tokenizer

from ayni.evaluate.choices import choice_results
from ayni.maths.best_of import best_of_bound, best_of_kl
from ayni.model.role import Role
from ayni.reward.choosing import Chooser
from ayni.reward.combine import CombinedReward
from ayni.reward.model import RewardModel
from ayni.rollout.engine import rollout
from ayni.rollout.sampling import Sampling


def distribution(probabilities: np.ndarray, n: int) -> np.ndarray:
    """Of the best of n answers, which are ordered from the worst to the best: F(y)ⁿ − F(y − 1)ⁿ."""
    below = np.concatenate([[0.0], np.cumsum(probabilities)])
    return below[1:] ** n - below[:-1] ** n


def divergence(probabilities: np.ndarray, n: int) -> float:
    best = distribution(probabilities, n)
    return float(np.sum(best * np.log(best / probabilities)))


def small_policy(seed: int, answers: int, spread: float = 1.0) -> np.ndarray:
    x = np.exp(np.random.default_rng(seed).normal(0, spread, answers))
    return x / x.sum()


def test_the_distribution_by_enumeration() -> None:
    p = small_policy(0, 5)
    found = np.zeros(5)
    for drawn in itertools.product(range(5), repeat=3):
        found[max(drawn)] += math.prod(p[list(drawn)])
    np.testing.assert_allclose(distribution(p, 3), found, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 4, 16, 64])
@pytest.mark.parametrize("answers", [2, 5, 200])
@pytest.mark.parametrize("seed", range(3))
def test_the_exact_kl_lies_under_the_bound_and_so_does_its_estimate(n: int, answers: int, seed: int) -> None:
    p = small_policy(seed, answers)
    exact, bound = divergence(p, n), best_of_bound(n)
    assert exact <= bound + 1e-12
    told = best_of_kl(torch.from_numpy(np.log(p)), n).numpy()
    assert (told <= bound + 1e-12).all()
    assert (told >= -1e-12).all()
    # what the chosen answers tell on average; the bound alone is off by nats where there are few answers
    assert abs(float(distribution(p, n) @ told) - exact) < 0.16
    if answers == 2 and n == 64:
        assert bound - exact > 2


def test_the_estimate_by_hand_and_at_its_ends() -> None:
    # ε = ½, n = 2: ¼ (ln 2 + ln ½ − ½) + ¾ ln(¾ / ½)
    found = best_of_kl(torch.tensor([math.log(0.5), 0.0, -1e3, -80.0, -1e-9]), 2)
    expected = [-0.125 + 0.75 * math.log(1.5), 0, math.log(2) - 0.5, math.log(2) - 0.5, 0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-8)
    assert best_of_bound(1) == 0
    assert best_of_kl(torch.tensor([-1.0, -5.0]), 1).tolist() == pytest.approx([0, 0], abs=1e-12)


def test_where_the_best_answer_is_likely_and_the_others_are_many_the_estimate_is_exact() -> None:
    p = np.concatenate([np.full(20_000, 0.6 / 20_000), [0.4]])
    (told,) = best_of_kl(torch.tensor([math.log(0.4)]), 8).tolist()
    assert told == pytest.approx(divergence(p, 8), abs=1e-3)


def judge(seed: int = 1) -> CombinedReward:
    return CombinedReward(RewardModel(Role(reward_model(seed)), tokenizer(), "judge"), None, tokenizer())


def test_the_best_of_n_is_the_best_of_those_that_rollout_draws_and_its_cost_is_counted() -> None:
    speaker, asked, sampling = policy(), prompts(6), Sampling(1.0, 1.0, 14)
    groups = rollout(speaker, asked, n=4, sampling=sampling, seed=3)
    found = Chooser(judge(), 4)(speaker, asked, sampling=sampling, seed=3)
    for group, each in zip(groups, found, strict=True):
        rows = judge()([asked[0]], [group]).combined.tolist()
        assert each.scores == pytest.approx(rows, abs=1e-5)
        ended = [k for k, s in enumerate(group) if s.finished == "stop"] or range(4)
        assert each.sample == max((group[k] for k in ended), key=lambda s: rows[group.index(s)])
        drawn = sum(len(s.tokens) for s in group)
        assert (each.spent.read, each.spent.drawn) == (len(group[0].prompt_tokens), drawn)
        assert each.spent.scored == 4 * len(group[0].prompt_tokens) + drawn
        assert each.spent.total == 5 * len(group[0].prompt_tokens) + 2 * drawn
    rows = choice_results(asked, found, Chooser(judge(), 4), sampling, {"model": "m"})
    named = {row.metric: row for row in rows}
    assert named.keys() == {"chosen_reward", "tokens_drawn", "tokens_spent", "best_of_kl"}
    assert named["tokens_spent"].value == pytest.approx(sum(each.spent.total for each in found) / 6)
    kl = named["best_of_kl"]
    assert kl.value is not None
    assert 0 < kl.value <= best_of_bound(4)
    assert all(row.interval is not None and row.n == 6 for row in rows)
    # from a nucleus, greedily or with a penalty it draws from another distribution than its log-probs tell
    for other in (Sampling(1.0, 0.9, 14), Sampling(0.0, 1.0, 14), Sampling(1.0, 1.0, 14, 1.2)):
        rows = choice_results(asked, found, Chooser(judge(), 4), other, {})
        assert "best_of_kl" not in {row.metric for row in rows}
