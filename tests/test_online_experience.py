"""From samples to an Experience: log-probs of three models, KL per answer, advantages, and a first ratio of 1."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny import answered, language_model, policy, prompts, reward_model

from ayni.model.layout import Layout
from ayni.model.role import Role
from ayni.online.estimators import GAE, ActorCritic, AdvantageEstimate, GroupNormalised, LeaveOneOut, Reinforce, ReMax
from ayni.online.experience import RoleOutputs, ScoredAnswers, read_answers, trajectories
from ayni.records import TokenSequence
from ayni.rollout.engine import rollout, sampled_sequence
from ayni.rollout.sampling import Sampling
from ayni.train.batch import batch_of, experience_of
from ayni.train.objectives import PolicyClip, ValueClip


def sequences(count: int = 7) -> list[TokenSequence]:
    draw = np.random.default_rng(0)
    return [answered(draw) for _ in range(count)]


@pytest.mark.parametrize("budget", [8, 60, 10_000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_what_three_models_say_of_every_sampled_token(temperature: float, budget: int) -> None:
    rows = sequences()
    actor, reference = (language_model(seed, dtype=torch.float64) for seed in (1, 2))
    critic = reward_model(3, dtype=torch.float64)
    roles = (Role(model) for model in (actor, reference, critic))
    outputs = read_answers(rows, *roles, temperature=temperature, tokens_per_micro_batch=budget)
    start = 0
    for row in rows:
        alone, layout = torch.tensor(row.tokens), Layout.of([len(row.tokens)])
        tables = [
            torch.log_softmax(m(alone, layout) @ m.head.t() / temperature, -1).detach() for m in (actor, reference)
        ]
        values = (critic(alone, layout) @ critic.head.t()).squeeze(-1).detach()
        for i in range(len(row.tokens)):
            sampled = i + 1 < len(row.tokens) and row.mask[i + 1]
            expected = [float(t[i, row.tokens[i + 1]]) if sampled else 0.0 for t in tables]
            found = [float(outputs.logprobs[start + i]), float(outputs.ref_logprobs[start + i])]
            assert found == pytest.approx(expected, abs=1e-10)
            assert float(outputs.values[start + i]) == pytest.approx(float(values[i]) if sampled else 0, abs=1e-10)
        start += len(row.tokens)
    assert start == len(outputs.values)


def two_answers(n: int = 1) -> ScoredAnswers:
    """Of 2 and 1 tokens; log π − log π_ref: +½ and −1, and 0."""
    rows = [TokenSequence([1, 7, 8, 2], [False, False, True, True]), TokenSequence([1, 9], [False, True])]
    outputs = RoleOutputs(
        torch.tensor([0, -1.0, -2.0, 0, -3.0, 0]),
        torch.tensor([0, -1.5, -1.0, 0, -3.0, 0]),
        torch.tensor([0, 0.5, 0.25, 0, 1.0, 0]),
    )
    return ScoredAnswers(
        rows, batch_of(rows), outputs, torch.tensor([2.0, -1.0]), n, torch.tensor([0.5, 0.5][: 2 // n]), beta=0.1
    )


def test_advantages_by_hand() -> None:
    """γ = λ = 1: returns are the rewards still to come, −0.05 and 0.1 + 2; alone: −1."""
    answers = two_answers()
    found = GAE(gamma=1.0, lam=1.0)(answers, {})
    torch.testing.assert_close(found.returns, torch.tensor([0, 2.05, 2.1, 0, -1.0, 0]))
    torch.testing.assert_close(answers.kl(), torch.tensor([-0.5, 0.0]))
    # π_ref/π − 1 − log π_ref/π of log ratios ½, −1 and 0
    assert answers.mean_k3() == pytest.approx((math.exp(-0.5) - 0.5 + math.exp(1) - 2 + 0) / 2)
    plain = np.array([2.05 - 0.5, 2.1 - 0.25, -2.0])
    white = (plain - plain.mean()) / plain.std()
    expected = torch.tensor([0, white[0], white[1], 0, white[2], 0], dtype=torch.float32)
    torch.testing.assert_close(found.advantages, expected, rtol=1e-5, atol=1e-6)
    critic = ActorCritic()(answers, {})
    torch.testing.assert_close(critic.advantages, torch.tensor([0, *plain[:2], 0, plain[2], 0], dtype=torch.float32))


def test_without_a_critic_the_kl_is_charged_to_the_whole_answer() -> None:
    """r − β Σ log π/π_ref: 2 + 0.1·½ and −1; the same number at every token of an answer."""

    def columns(a: float, b: float) -> torch.Tensor:
        return torch.tensor([0, a, a, 0, b, 0])

    torch.testing.assert_close(LeaveOneOut()(two_answers(2), {}).advantages, columns(3.05, -3.05))
    torch.testing.assert_close(ReMax()(two_answers(), {}).advantages, columns(1.55, -1.5))
    first = Reinforce(decay=0.9)(two_answers(), {})
    assert first.memory == {"baseline": pytest.approx((2.05 - 1) / 2)}
    second = Reinforce(decay=0.9)(two_answers(), {"baseline": 0.4})
    torch.testing.assert_close(second.advantages, columns(1.65, -1.4))
    assert second.memory == {"baseline": pytest.approx(0.9 * 0.4 + 0.1 * 0.525)}
    free = GroupNormalised(by_std=False)(two_answers(2), {})  # GRPO charges it in the loss
    torch.testing.assert_close(free.advantages, columns(1.5, -1.5))


def test_trajectories_give_back_what_went_in_whatever_their_order() -> None:
    rows = sequences()
    policy, critic = Role(language_model(1)), Role(reward_model(3))
    outputs = read_answers(rows, policy, policy, critic, temperature=1.0, tokens_per_micro_batch=50)
    answers = ScoredAnswers(rows, batch_of(rows), outputs, torch.arange(len(rows)).float())
    assert answers.kl().abs().max() == 0  # the reference is the policy itself
    found = GAE()(answers, {})
    parts = trajectories(answers, found.advantages, found.returns)
    whole = experience_of(parts)
    for name, column in (("logprobs", outputs.logprobs), ("values", outputs.values), ("returns", found.returns)):
        assert torch.equal(getattr(whole, name), column)
    assert torch.equal(whole.mask, answers.batch.mask)
    reverse = experience_of(parts[::-1])
    assert torch.equal(reverse.values.split(list(reverse.layout.lengths))[0], parts[-1].values)


def test_without_reference_and_critic_nothing_is_made_up() -> None:
    rows = sequences()
    outputs = read_answers(rows, Role(language_model(1)), None, None, temperature=1.0, tokens_per_micro_batch=50)
    assert outputs.ref_logprobs is None
    assert outputs.values is None
    answers = ScoredAnswers(rows, batch_of(rows), outputs, torch.ones(len(rows)))
    assert answers.kl().tolist() == [0] * len(rows)
    whole = experience_of(trajectories(answers, torch.zeros_like(outputs.logprobs), None))
    assert (whole.ref_logprobs, whole.values, whole.returns) == (None, None, None)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.3])
def test_the_first_ratio_is_1_and_the_first_values_are_the_critics(temperature: float) -> None:
    engine, critic = policy(1), Role(reward_model(2))
    drawn = rollout(engine, prompts(6), n=2, sampling=Sampling(temperature, 1.0, 12), seed=0)
    samples = [sample for group in drawn for sample in group]
    rows, sampled = [sampled_sequence(s) for s in samples], [x for s in samples for x in s.logprobs]
    outputs = read_answers(rows, engine.role, engine.role, critic, temperature=temperature, tokens_per_micro_batch=64)
    answers = ScoredAnswers(rows, batch_of(rows), outputs, torch.randn(len(rows)))
    torch.testing.assert_close(outputs.logprobs[answers.batch.mask], torch.tensor(sampled), rtol=0, atol=1e-4)
    found: AdvantageEstimate = GAE()(answers, {})
    experience = experience_of(trajectories(answers, found.advantages, found.returns)[::-1])
    loss, metrics = PolicyClip(0.2, temperature).loss(engine.role, experience)
    ratio, items = metrics["ratio"]
    assert float(ratio / items) == pytest.approx(1, abs=1e-4)
    assert float(metrics["clipped"][0]) == 0
    assert float(metrics["approx_kl"][0] / items) == pytest.approx(0, abs=1e-5)
    assert loss.item() / len(sampled) == pytest.approx(0, abs=1e-3)  # −mean of whitened advantages
    values, _ = ValueClip(0.2).loss(critic, experience)
    expected = 0.5 * ((found.returns - outputs.values)[answers.batch.mask] ** 2).sum()
    assert values.item() == pytest.approx(float(expected), rel=1e-3)
    # another temperature would not be the sampler's: the ratio gives it away
    wrong, _ = PolicyClip(0.2, temperature * 1.5).loss(engine.role, experience)
    assert not math.isclose(wrong.item() / len(sampled), 0, abs_tol=1e-2)
