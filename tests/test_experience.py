"""From samples to an Experience: log-probs of three models, KL per answer, advantages, and a first ratio of 1."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ayni.train.experience import Forward, advantages_of, forward, steps_of
from tiny import answered, language_model, policy, prompts, reward_model, tokenizer

from ayni.model.layout import Layout
from ayni.records import Sequence
from ayni.rollout.engine import rollout
from ayni.rollout.sampling import Sampling
from ayni.text.chat import render_prompt
from ayni.train.batch import batch_of, experience_of
from ayni.train.objectives import PolicyClip, ValueClip


def sequences(count: int = 7) -> list[Sequence]:
    draw = np.random.default_rng(0)
    return [answered(draw) for _ in range(count)]


@pytest.mark.parametrize("budget", [8, 60, 10_000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_what_three_models_say_of_every_sampled_token(temperature: float, budget: int) -> None:
    rows = sequences()
    actor, reference = (language_model(seed, dtype=torch.float64) for seed in (1, 2))
    critic = reward_model(3, dtype=torch.float64)
    said = forward(actor, reference, critic, rows, temperature=temperature, tokens_per_micro_batch=budget)
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
            found = [float(said.logprobs[start + i]), float(said.ref_logprobs[start + i])]
            assert found == pytest.approx(expected, abs=1e-10)
            assert float(said.values[start + i]) == pytest.approx(float(values[i]) if sampled else 0, abs=1e-10)
        start += len(row.tokens)
    assert start == len(said.values)


def test_advantages_by_hand() -> None:
    """Two answers of 2 and 1 tokens, γ = λ = 1: returns are the rewards still to come."""
    rows = [Sequence([1, 7, 8, 2], [False, False, True, True]), Sequence([1, 9], [False, True])]
    batch = batch_of(rows)
    said = Forward(
        torch.tensor([0, -1.0, -2.0, 0, -3.0, 0]),
        torch.tensor([0, -1.5, -1.0, 0, -3.0, 0]),
        torch.tensor([0, 0.5, 0.25, 0, 1.0, 0]),
    )
    gained = advantages_of(batch, said, torch.tensor([2.0, -1.0]), beta=0.1, gamma=1.0, lam=1.0)
    # log π − log π_ref: +½ and −1, so rewards −0.05 and 0.1 + 2; alone: −1
    torch.testing.assert_close(gained.returns, torch.tensor([0, 2.05, 2.1, 0, -1.0, 0]))
    torch.testing.assert_close(gained.kl, torch.tensor([-0.5, 0.0]))
    plain = np.array([2.05 - 0.5, 2.1 - 0.25, -2.0])
    white = (plain - plain.mean()) / plain.std()
    expected = torch.tensor([0, white[0], white[1], 0, white[2], 0], dtype=torch.float32)
    torch.testing.assert_close(gained.advantages, expected, rtol=1e-5, atol=1e-6)


def test_steps_give_back_what_went_in_whatever_their_order() -> None:
    rows = sequences()
    batch = batch_of(rows)
    actor, critic = language_model(1), reward_model(3)
    said = forward(actor, actor, critic, rows, temperature=1.0, tokens_per_micro_batch=50)
    gained = advantages_of(batch, said, torch.arange(len(rows)).float(), beta=0.1)
    assert gained.kl.abs().max() == 0  # the reference is the policy itself
    steps = steps_of(rows, batch, said, gained)
    whole = experience_of(steps)
    for name, column in (("logprobs", said.logprobs), ("values", said.values), ("returns", gained.returns)):
        assert torch.equal(getattr(whole, name), column)
    assert torch.equal(whole.mask, batch.mask)
    reverse = experience_of(steps[::-1])
    assert torch.equal(reverse.values.split(list(reverse.layout.lengths))[0], steps[-1].values)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.3])
def test_the_first_ratio_is_1_and_the_first_values_are_the_critics(temperature: float) -> None:
    speaker, critic, asked = policy(1), reward_model(2), prompts(6)
    drawn = rollout(speaker, asked, n=2, sampling=Sampling(temperature, 1.0, 12), seed=0)
    rows, sampled = [], []
    for prompt, group in zip(asked, drawn, strict=True):
        head = render_prompt(prompt.dialog, tokenizer())
        for sample in group:
            rows.append(Sequence(head + list(sample.tokens), [False] * len(head) + [True] * len(sample.tokens)))
            sampled += sample.logprobs
    batch = batch_of(rows)
    said = forward(speaker.model, speaker.model, critic, rows, temperature=temperature, tokens_per_micro_batch=64)
    torch.testing.assert_close(said.logprobs[batch.mask], torch.tensor(sampled), rtol=0, atol=1e-4)
    gained = advantages_of(batch, said, torch.randn(len(rows)), beta=0.1)
    experience = experience_of(steps_of(rows, batch, said, gained)[::-1])
    objective = PolicyClip(0.2, temperature)
    loss, metrics = objective.loss(speaker.model, experience)
    ratio, items = metrics["ratio"]
    assert float(ratio / items) == pytest.approx(1, abs=1e-4)
    assert float(metrics["clipped"][0]) == 0
    assert float(metrics["approx_kl"][0] / items) == pytest.approx(0, abs=1e-5)
    assert loss.item() / len(sampled) == pytest.approx(0, abs=1e-3)  # −mean of whitened advantages
    values, _ = ValueClip(0.2).loss(critic, experience)
    expected = 0.5 * ((gained.returns - said.values)[batch.mask] ** 2).sum()
    assert values.item() == pytest.approx(float(expected), rel=1e-3)
    # another temperature would not be the sampler's: the ratio gives it away
    wrong, _ = PolicyClip(0.2, temperature * 1.5).loss(speaker.model, experience)
    assert not math.isclose(wrong.item() / len(sampled), 0, abs_tol=1e-2)
