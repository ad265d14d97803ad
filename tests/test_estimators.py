"""Every estimator against the exact policy gradient of a small tree: by enumerating all groups, and by sampling.

Enumeration leaves no noise: where a mean is said to be the gradient, it is to 1e-12, and variances are ordered exactly.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_mdp import ANSWERS, LENGTHS, PROMPTS, STATES, TOKENS, Drawn, Toy, all_groups, draw, moments, toy

from ayni.maths.advantages import gae
from ayni.maths.estimators import (
    greedy_advantages,
    group_normalised,
    leave_one_out,
    moving_baseline,
    n_step_advantages,
    spread,
    sum_per_answer,
)
from ayni.maths.losses import kl_k1, policy_clip_loss, policy_gradient_loss, policy_penalty_loss

TOY = toy()
GRADIENT = TOY.gradient()
VALUES = TOY.values()
ANYTHING = torch.from_numpy(np.random.default_rng(7).normal(3, 2, VALUES.shape))  # a critic that knows nothing
PAGE = Path(__file__).parent.parent / "docs" / "policy-gradients.md"

Estimate = Callable[[Drawn], Tensor]


@dataclass(frozen=True)
class Case:
    """(T,) advantages from n answers of a prompt; the expected gradient is `scale` times the true one."""

    advantages: Estimate
    n: int = 1
    scale: float = 1.0


def whole(per_answer: Estimate) -> Estimate:
    """One number per answer, at all of its columns."""
    return lambda drawn: spread(per_answer(drawn), drawn.mask, drawn.offsets)


def remax(drawn: Drawn) -> Tensor:
    greedy = TOY.greedy()[drawn.prompts]
    return greedy_advantages(drawn.rewards, greedy, 1)


def with_gae(values: Tensor, lam: float) -> Estimate:
    return lambda drawn: gae(drawn.token_rewards, drawn.at(values), drawn.mask, gamma=1.0, lam=lam)[0]


def in_steps(values: Tensor, steps: int | None) -> Estimate:
    return lambda drawn: n_step_advantages(drawn.token_rewards, drawn.at(values), drawn.mask, gamma=1.0, steps=steps)[0]


# The names are those of the page's table.
CASES = {
    "REINFORCE": Case(whole(lambda drawn: drawn.rewards)),
    "the mean reward of all prompts": Case(whole(lambda drawn: drawn.rewards - VALUES[:, 0].mean())),
    "ReMax": Case(whole(remax)),
    "RLOO, n = 2": Case(whole(lambda drawn: leave_one_out(drawn.rewards, 2)), 2),
    "RLOO, n = 4": Case(whole(lambda drawn: leave_one_out(drawn.rewards, 4)), 4),
    "Dr. GRPO, n = 4": Case(whole(lambda drawn: group_normalised(drawn.rewards, 4, by_std=False)), 4, 3 / 4),
    "V of the prompt": Case(whole(lambda drawn: drawn.rewards - VALUES[drawn.prompts, 0])),
    "actor-critic, to the end": Case(in_steps(VALUES, None)),
    "actor-critic, 2 steps": Case(in_steps(VALUES, 2)),
    "actor-critic, 1 step": Case(in_steps(VALUES, 1)),
    "GAE, λ = 0.95": Case(with_gae(VALUES, 0.95)),
    "GAE, λ = 0.5": Case(with_gae(VALUES, 0.5)),
}
UNTAUGHT = {
    "GAE, λ = 1, any values": Case(with_gae(ANYTHING, 1.0)),
    "actor-critic to the end, any values": Case(in_steps(ANYTHING, None)),
    "RLOO, n = 3": Case(whole(lambda drawn: leave_one_out(drawn.rewards, 3)), 3),
    "Dr. GRPO, n = 2": Case(whole(lambda drawn: group_normalised(drawn.rewards, 2, by_std=False)), 2, 1 / 2),
    "the first moving baseline": Case(whole(lambda drawn: first_baseline(drawn, 3)), 3),
}


def first_baseline(drawn: Drawn, n: int) -> Tensor:
    """Every group as a first batch of its own."""
    return torch.cat([moving_baseline(rewards, None, decay=0.9)[0] for rewards in drawn.rewards.view(-1, n)])


def variance(name: str) -> float:
    """Of one answer's share, the mean over prompts."""
    case = CASES[name]
    return float(moments(TOY, case.advantages, case.n)[1].mean())


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), 0))


# the tree itself


def test_the_tree_is_enumerated() -> None:
    assert len(set(ANSWERS)) == 15
    assert LENGTHS.bincount().tolist() == [0, 1, 2, 12]
    torch.testing.assert_close(TOY.logprobs().exp().sum(1), torch.ones(PROMPTS, dtype=torch.float64))
    expected = (TOY.logprobs().exp() * TOY.rewards).sum(1)
    torch.testing.assert_close(VALUES[:, 0], expected, rtol=1e-12, atol=0)
    drawn, chances = all_groups(TOY, 2)
    assert len(drawn.picks) == PROMPTS * 15**2 * 2
    assert float(chances.sum()) == pytest.approx(PROMPTS)


def test_the_exact_gradient_is_the_policy_gradient_theorems() -> None:
    """∇E[r] = Σ_s P(s) Σ_a ∇π(a|s) Q(s, a), another way to the same numbers."""
    policy = torch.softmax(TOY.logits, -1)
    reach, q = torch.zeros(PROMPTS, STATES, dtype=torch.float64), torch.zeros_like(policy)
    reach[:, 0] = 1
    ends = {answer[-1]: i for i, answer in enumerate(ANSWERS)}
    for s in range(STATES):
        for t in range(TOKENS):
            if (s, t) in ends:
                q[:, s, t] = TOY.rewards[:, ends[s, t]]
            else:
                q[:, s, t] = VALUES[:, 2 * s + 1 + t]
                reach[:, 2 * s + 1 + t] = reach[:, s] * policy[:, s, t]
    exact = reach[..., None] * policy * (q - VALUES[..., None])  # of a softmax: π (Q − V)
    torch.testing.assert_close(exact.flatten(1), GRADIENT, rtol=1e-12, atol=1e-12)


# means


@pytest.mark.parametrize("name", [*CASES, *UNTAUGHT])
def test_over_all_groups_the_mean_is_the_gradient(name: str) -> None:
    case = (CASES | UNTAUGHT)[name]
    mean, _ = moments(TOY, case.advantages, case.n)
    torch.testing.assert_close(mean, case.scale * GRADIENT, rtol=1e-12, atol=1e-12)


def assert_within_four_errors(estimates: Tensor, exact: Tensor) -> None:
    """estimates (groups, P, S·3), independent or uncorrelated between groups."""
    error = estimates.std(0) / len(estimates) ** 0.5
    assert ((estimates.mean(0) - exact).abs() <= 4 * error + 1e-12).all()
    assert float(error.max()) < 0.2  # wide bars would let everything through


@pytest.mark.parametrize("name", [*CASES, *UNTAUGHT])
def test_sampled_the_mean_is_the_gradient(name: str) -> None:
    case = (CASES | UNTAUGHT)[name]
    groups = 4000
    drawn = draw(TOY, groups, case.n, seed=1)
    each = drawn.gradients(case.advantages(drawn)).view(groups, PROMPTS, case.n, -1).mean(2)
    assert_within_four_errors(each, case.scale * GRADIENT)


def moving(groups: int, n: int, seed: int, decay: float = 0.95) -> tuple[Tensor, list[float]]:
    """Gradients (groups, P, S·3) of batches of n answers of every prompt, one after another, and the baselines."""
    drawn = draw(TOY, groups, n, seed)
    baseline, advantages, baselines = None, [], []
    for rewards in drawn.rewards.view(groups, -1):
        gained, baseline = moving_baseline(rewards, baseline, decay=decay)
        advantages.append(gained)
        baselines.append(baseline)
    per_column = spread(torch.cat(advantages), drawn.mask, drawn.offsets)
    return drawn.gradients(per_column).view(groups, PROMPTS, n, -1).mean(2), baselines


def test_reinforce_with_a_moving_baseline_is_unbiased() -> None:
    """Each baseline is from before its batch: batches are then uncorrelated, and the mean's error is what it seems."""
    gradients, baselines = moving(4000, 2, seed=2)
    assert_within_four_errors(gradients, GRADIENT)
    assert np.mean(baselines) == pytest.approx(float(VALUES[:, 0].mean()), abs=0.02)


def test_a_baseline_of_its_own_batch_is_biased() -> None:
    """Why `moving_baseline` takes the one before, and compares the first batch to the others: the mean with itself."""
    mean, _ = moments(TOY, whole(lambda drawn: drawn.rewards - own_means(drawn, 2)), 2)
    torch.testing.assert_close(mean, GRADIENT / 2, rtol=1e-12, atol=1e-12)


def own_means(drawn: Drawn, n: int) -> Tensor:
    return drawn.rewards.view(-1, n).mean(1).repeat_interleave(n)


@pytest.mark.parametrize(
    "wrong", [with_gae(ANYTHING, 0.5), in_steps(ANYTHING, 1), in_steps(ANYTHING, 2)], ids=["λ = 0.5", "1", "2 steps"]
)
def test_looking_less_far_with_a_wrong_critic_is_biased(wrong: Estimate) -> None:
    assert cosine(moments(TOY, wrong)[0], GRADIENT) < 0.6


def test_the_kl_inside_the_reward_gives_the_penalised_gradient() -> None:
    """∇(E[r] − β KL(π‖π_ref)), both of whole answers, from r − β log π/π_ref alone."""
    beta, reference = 0.7, toy(seed=5).logits

    def objective(logits: Tensor) -> Tensor:
        ours, theirs = TOY.logprobs(logits), TOY.logprobs(reference)
        return TOY.expected(logits) - beta * (ours.exp() * (ours - theirs)).sum()

    def penalised(drawn: Drawn) -> Tensor:
        gap = kl_k1(drawn.logprobs(TOY.logits), drawn.logprobs(reference))
        return leave_one_out(drawn.rewards - beta * sum_per_answer(gap, drawn.mask, drawn.offsets), 2)

    mean, _ = moments(TOY, whole(penalised), 2)
    torch.testing.assert_close(mean, TOY.gradient(objective), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", ["reinforce", "clip", "penalty"])
def test_at_ratio_one_every_loss_descends_the_same_gradient(loss: str) -> None:
    """PPO's clip and penalty differ from REINFORCE only once the policy has moved."""
    drawn = draw(TOY, 50, 4, seed=3)
    advantages = CASES["RLOO, n = 4"].advantages(drawn)
    logits = TOY.logits.clone().requires_grad_()
    logprobs, old = drawn.logprobs(logits)[drawn.mask], drawn.logprobs(TOY.logits)[drawn.mask]
    each = {
        "reinforce": lambda: policy_gradient_loss(logprobs, advantages[drawn.mask]),
        "clip": lambda: policy_clip_loss(logprobs, old, advantages[drawn.mask], clip=0.2),
        "penalty": lambda: policy_penalty_loss(logprobs, old, advantages[drawn.mask], beta=3.0),
    }[loss]()
    each.sum().backward()
    assert logits.grad is not None
    up = torch.zeros_like(GRADIENT).index_add_(0, drawn.prompts, drawn.gradients(advantages))
    torch.testing.assert_close(-logits.grad.flatten(1), up, rtol=1e-12, atol=1e-12)


# dividing by the standard deviation


def test_grpo_takes_dr_grpos_direction_in_every_group() -> None:
    drawn, _ = all_groups(TOY, 3)
    plain, divided = (group_normalised(drawn.rewards, 3, by_std=by_std) for by_std in (False, True))
    std = drawn.rewards.view(-1, 3).std(1).repeat_interleave(3)
    torch.testing.assert_close(divided * (std + 1e-4), plain, rtol=1e-12, atol=1e-12)


def test_the_mean_of_grpo_turns_away_from_the_gradient() -> None:
    mean, _ = moments(TOY, whole(lambda drawn: group_normalised(drawn.rewards, 4, by_std=True)), 4)
    assert cosine(mean, GRADIENT) == pytest.approx(0.978, abs=5e-4)


def test_grpo_of_pairs_climbs_the_win_rate_against_itself() -> None:
    """Two answers' advantages are ±1/√2 (as 1e-4 vanishes): √2 times the mean is ∇E[sign(r − r')], y' held fixed."""
    large = Toy(TOY.logits, TOY.rewards * 1e7)

    def wins(logits: Tensor) -> Tensor:
        sign = (TOY.rewards[:, :, None] - TOY.rewards[:, None, :]).sign()
        return torch.einsum("pi,pj,pij->", TOY.logprobs(logits).exp(), TOY.logprobs().exp(), sign)

    mean, _ = moments(large, whole(lambda drawn: group_normalised(drawn.rewards, 2, by_std=True)), 2)
    torch.testing.assert_close(2**0.5 * mean, TOY.gradient(wins), rtol=1e-6, atol=1e-8)


# variances


def test_variances_fall_in_textbook_order() -> None:
    order = [
        "REINFORCE",
        "the mean reward of all prompts",
        "RLOO, n = 2",
        "RLOO, n = 4",
        "V of the prompt",
        "actor-critic, to the end",
        "GAE, λ = 0.95",
        "actor-critic, 2 steps",
        "GAE, λ = 0.5",
        "actor-critic, 1 step",
    ]
    found = [variance(name) for name in order]
    assert all(more > 1.02 * less for more, less in pairwise(found))


@pytest.mark.parametrize("seed", range(5))
def test_what_theory_promises_of_any_tree(seed: int) -> None:
    """Leave-one-out is a U-statistic: n times its variance falls with n, towards V of the prompt as the baseline.

    With exact values the variance rises with λ: δ are martingale differences, and no two states share parameters.
    """
    any_toy = toy(seed, between=float(seed), spread=1.5)
    values = any_toy.values()

    def of(advantages: Estimate, n: int = 1) -> Tensor:
        return moments(any_toy, advantages, n)[1]

    limit = of(whole(lambda drawn: drawn.rewards - values[drawn.prompts, 0]))
    rloo = [of(whole(lambda drawn, n=n: leave_one_out(drawn.rewards, n)), n) for n in (2, 3)]
    assert (rloo[0] > rloo[1]).all()
    assert (rloo[1] > limit).all()
    by_lam = [of(with_gae(values, lam)) for lam in (0.0, 0.5, 0.95, 1.0)]
    assert all((less <= more).all() for less, more in pairwise(by_lam))


def test_a_constant_baseline_helps_up_to_twice_the_best_one() -> None:
    """E[(r − b)²|∇log π|²] is a parabola in b, lowest at b* = E[r|∇log π|²] / E[|∇log π|²]; 2b* is as bad as none."""
    drawn, chances = all_groups(TOY, 1)
    square = (drawn.gradients(drawn.mask.double()) ** 2).sum(1).view(PROMPTS, -1)
    best = (chances * square * TOY.rewards).sum(1) / (chances * square).sum(1)
    none, at_best, at_twice = (
        moments(TOY, whole(lambda drawn, b=b: drawn.rewards - b[drawn.prompts]))[1] for b in (0 * best, best, 2 * best)
    )
    torch.testing.assert_close(at_twice, none, rtol=1e-9, atol=0)
    assert (at_best < moments(TOY, CASES["V of the prompt"].advantages)[1]).all()


def test_a_moving_baseline_costs_little_more_than_the_mean_it_follows() -> None:
    gradients, _ = moving(4000, 1, seed=4)
    measured = float(gradients.var(0).sum(1).mean())
    assert measured == pytest.approx(variance("the mean reward of all prompts"), rel=0.1)


def test_the_page_shows_these_variances() -> None:
    """docs/policy-gradients.md: `| name | mean | variance |`, to three digits."""
    table = PAGE.read_text(encoding="utf-8").split("## Measured", 1)[1]
    rows = re.findall(r"^\| ([^|]+?) \| [^|]+ \| ([\d.]+) \|$", table, re.M)
    shown = {name: float(value) for name, value in rows}
    assert shown.keys() == CASES.keys()
    assert {name: float(f"{variance(name):.3g}") for name in CASES} == shown


# numbers


REWARDS = torch.tensor([1.0, 2.0, 4.0, -3.0, 0.5, 0.5, 0.5, 0.5, 0.0, 1.0, 0.0, 0.25], dtype=torch.float64)
# TRL 1.16.0, the lines of RLOOTrainer and GRPOTrainer that make `advantages` from `rewards`, run on REWARDS with
# num_generations 4; RLOO with normalize_advantages False, GRPO with scale_rewards "group" and "none".
TRL_RLOO = [0, 4 / 3, 4, -16 / 3, 0, 0, 0, 0, -0.416666666667, 0.916666666667, -0.416666666667, -0.0833333333333]
TRL_GRPO = [
    *(0, 0.339671567112, 1.01901470134, -1.35868626845, 0, 0, 0, 0),
    *(-0.660198664503, 1.45243706191, -0.660198664503, -0.132039732901),
]
TRL_DR_GRPO = [0, 1, 3, -4, 0, 0, 0, 0, -0.3125, 0.6875, -0.3125, -0.0625]


def test_groups_equal_trl() -> None:
    for ours, theirs in (
        (leave_one_out(REWARDS, 4), TRL_RLOO),
        (group_normalised(REWARDS, 4, by_std=True), TRL_GRPO),
        (group_normalised(REWARDS, 4, by_std=False), TRL_DR_GRPO),
    ):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-7, atol=1e-10)  # TRL's n/(n − 1) is fp32


def test_moving_baseline_by_hand() -> None:
    advantages, baseline = moving_baseline(torch.tensor([1.0, 2, 6]), None, decay=0.75)
    assert advantages.tolist() == [-3, -1.5, 4.5]
    assert baseline == 3
    advantages, baseline = moving_baseline(torch.tensor([5.0, 9]), baseline, decay=0.75)
    assert advantages.tolist() == [2, 6]
    assert baseline == 4
    advantages, baseline = moving_baseline(torch.tensor([5.0]), None, decay=0.75)
    assert (advantages.tolist(), baseline) == ([5], 5)


def test_greedy_by_hand() -> None:
    assert greedy_advantages(torch.tensor([1.0, 2, 3, 4]), torch.tensor([1.0, 5]), 2).tolist() == [0, 1, -2, -1]


MASK = torch.tensor([False, True, True, False, True, True, True, False])
OFFSETS = torch.tensor([0, 4, 8])


def test_answers_and_columns_by_hand() -> None:
    assert spread(torch.tensor([2.0, 3.0]), MASK, OFFSETS).tolist() == [0, 2, 2, 0, 3, 3, 3, 0]
    assert sum_per_answer(torch.tensor([float("nan"), 1, 2, 9, 1, 1, 3, 9]), MASK, OFFSETS).tolist() == [3, 5]


def test_n_steps_by_hand() -> None:
    # γ = ½; the first answer: rewards 1, 4, values 2, 6; the second: rewards 0, 0, 8, values 4, 2, 10
    rewards, values = torch.tensor([9.0, 1, 4, 9, 0, 0, 8, 9]), torch.tensor([9.0, 2, 6, 9, 4, 2, 10, 9])
    advantages, returns = n_step_advantages(rewards, values, MASK, gamma=0.5, steps=1)
    assert returns.tolist() == [0, 1 + 3, 4, 0, 1, 5, 8, 0]
    assert advantages.tolist() == [0, 2, -2, 0, -3, 3, -2, 0]
    assert n_step_advantages(rewards, values, MASK, gamma=0.5, steps=2)[1].tolist() == [0, 3, 4, 0, 2.5, 4, 8, 0]
    assert n_step_advantages(rewards, values, MASK, gamma=0.5, steps=None)[1].tolist() == [0, 3, 4, 0, 2, 4, 8, 0]


def slow_returns(rewards: list[float], values: list[float], gamma: float, steps: int) -> list[float]:
    """One answer alone, by definition."""
    out = []
    for t in range(len(rewards)):
        end = min(t + steps, len(rewards))
        bootstrap = gamma**steps * values[t + steps] if t + steps < len(rewards) else 0.0
        out.append(sum(gamma ** (k - t) * rewards[k] for k in range(t, end)) + bootstrap)
    return out


def test_n_steps_equal_a_slow_loop_on_300_ragged_batches() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        lengths = random.integers(1, 9, random.integers(1, 5))
        mask = torch.cat([torch.tensor([False] * random.integers(1, 4) + [True] * n) for n in lengths])
        mask = torch.cat([mask, mask.new_zeros(1)])
        rewards, values = (torch.from_numpy(random.normal(0, 2, len(mask))) for _ in range(2))
        gamma, steps = float(random.choice([0.0, 0.9, 1.0])), int(random.integers(1, 10))
        advantages, returns = n_step_advantages(rewards, values, mask, gamma=gamma, steps=steps)
        assert (advantages[~mask] == 0).all()
        assert (returns[~mask] == 0).all()
        parts = zip(rewards[mask].split(lengths.tolist()), values[mask].split(lengths.tolist()), strict=True)
        slow = [x for r, v in parts for x in slow_returns(r.tolist(), v.tolist(), gamma, steps)]
        np.testing.assert_allclose(returns[mask].numpy(), slow, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose((advantages + values)[mask].numpy(), slow, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("steps", "lam"), [(1, 0.0), (None, 1.0)])
def test_one_step_and_all_steps_are_the_ends_of_gae(steps: int | None, lam: float) -> None:
    drawn = draw(TOY, 20, 2, seed=6)
    rewards, values = drawn.token_rewards, drawn.at(ANYTHING)
    ours = n_step_advantages(rewards, values, drawn.mask, gamma=0.9, steps=steps)
    for a, b in zip(ours, gae(rewards, values, drawn.mask, gamma=0.9, lam=lam), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.95])
def test_gae_is_the_weighted_average_of_all_numbers_of_steps(lam: float) -> None:
    """Schulman et al. 2016, eq. 14 to 16: (1 − λ)(Â⁽¹⁾ + λ Â⁽²⁾ + λ² Â⁽³⁾ …), of answers whose Â⁽ᵏ⁾ stays as it is
    from their end on."""
    drawn = draw(TOY, 20, 2, seed=7)
    rewards, values = drawn.token_rewards, drawn.at(ANYTHING)
    average, rest = torch.zeros_like(rewards), 1.0
    for steps in range(1, 400):
        weight = (1 - lam) * lam ** (steps - 1)
        average += weight * n_step_advantages(rewards, values, drawn.mask, gamma=0.9, steps=steps)[0]
        rest -= weight
    assert rest < 1e-8
    torch.testing.assert_close(gae(rewards, values, drawn.mask, gamma=0.9, lam=lam)[0], average, rtol=1e-7, atol=1e-7)


def test_nothing_masked_is_nothing_gained() -> None:
    nothing = torch.zeros(3, dtype=torch.bool)
    for steps in (1, None):
        advantages, returns = n_step_advantages(torch.ones(3), torch.ones(3), nothing, gamma=1.0, steps=steps)
        assert advantages.tolist() == returns.tolist() == [0, 0, 0]


def test_equal_rewards_teach_nothing() -> None:
    same = torch.full((4,), 0.1)
    for advantages in (leave_one_out(same, 4), *(group_normalised(same, 2, by_std=by_std) for by_std in (True, False))):
        assert advantages.abs().max() < 1e-3


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: leave_one_out(REWARDS, 1), "n must be 2 or more, not 1"),
        (lambda: group_normalised(REWARDS, 1, by_std=True), "n must be 2 or more, not 1"),
        (lambda: leave_one_out(REWARDS, 5), "12 rewards are not 5 for each prompt"),
        (lambda: greedy_advantages(REWARDS, REWARDS[:5], 2), "12 rewards are not 2 for each of 5 greedy answers"),
        (lambda: n_step_advantages(REWARDS, REWARDS, REWARDS > 0, gamma=1.0, steps=0), "steps must be 1 or more"),
    ],
)
def test_what_no_data_can_cause_is_a_value_error(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


def test_single_precision_stays_single() -> None:
    rewards = REWARDS.float()
    found = (
        moving_baseline(rewards, 1.0, decay=0.9)[0],
        greedy_advantages(rewards, rewards[:3], 4),
        leave_one_out(rewards, 4),
        group_normalised(rewards, 4, by_std=True),
        *n_step_advantages(rewards, rewards, rewards > 0, gamma=0.9, steps=2),
    )
    assert {x.dtype for x in found} == {torch.float32}
    assert {x.shape for x in found} == {(12,)}
