"""Every objective against its plain form, and learning the right number the right way in 30 steps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from objective_cases import CASES, VOCAB, logprobs, scalars
from tiny import answered, group, language_model, pair, reward_model, trajectory
from torch import Tensor

from ayni.model.role import Role
from ayni.model.transformer import Transformer
from ayni.records import TokenSequence
from ayni.train.batch import Group, Pair, Trajectory
from ayni.train.objectives import DPO, NextToken, Objective, PolicyClip, Ranking, ValueClip
from ayni.train.rrhf import PRO, RRHF
from ayni.train.trainer import Optimiser, Trainer


@pytest.mark.parametrize("name", CASES)
def test_loss_count_and_gradient_equal_the_plain_form(name: str) -> None:
    case = CASES[name]
    examples = case.examples(12)
    gradients = []
    totals = []
    for plainly in (False, True):
        model = case.model(dtype=torch.float64)
        if plainly:
            total = torch.stack([case.plain(model, example) for example in examples]).sum()
        else:
            batch = case.objective.batch(examples)
            total, _ = case.objective.loss(Role(model), batch)
            assert int(case.objective.count(batch)) == sum(case.items(example) for example in examples)
        total.backward()
        totals.append(total.detach())
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    torch.testing.assert_close(totals[0], totals[1], rtol=1e-11, atol=1e-11)
    for parameter, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][parameter], rtol=1e-9, atol=1e-11, msg=parameter)
        assert gradient is not None
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", CASES)
def test_a_sum_not_a_mean(name: str) -> None:
    """Two batches side by side lose what both lose together."""
    case = CASES[name]
    examples, model = case.examples(6), case.model(dtype=torch.float64)
    parts = [case.objective.loss(Role(model), case.objective.batch(part))[0] for part in (examples[:2], examples[2:])]
    whole, _ = case.objective.loss(Role(model), case.objective.batch(examples))
    torch.testing.assert_close(whole, parts[0] + parts[1], rtol=1e-12, atol=1e-12)


def test_ranking_metrics_by_hand() -> None:
    case = CASES["ranking-safety"]
    model, examples = case.model(dtype=torch.float64), case.examples(20)
    _, metrics = case.objective.loss(Role(model), case.objective.batch(examples))
    leads = [(scalars(model, e.chosen)[-1] - scalars(model, e.rejected)[-1]).item() for e in examples]
    assert [int(x) for x in metrics["accuracy"]] == [sum(lead > 0 for lead in leads), 20]
    assert float(metrics["lead"][0]) == pytest.approx(sum(leads))
    assert int(metrics["safety_loss"][1]) == sum(label is not None for e in examples for label in e.safe)


def test_at_the_reference_dpo_loses_log_2_and_ipo_a_quarter_over_beta_squared() -> None:
    model = language_model(1, vocab=VOCAB, dtype=torch.float64)
    draw = np.random.default_rng(0)
    examples = []
    for _ in range(5):
        plain = pair(draw, vocab=VOCAB)
        sums = [torch.stack(logprobs(model, s)).sum().item() for s in (plain.chosen, plain.rejected)]
        examples.append(replace(plain, ref_logprobs=(sums[0], sums[1])))
    batch = DPO().batch(examples)
    assert DPO(0.1).loss(Role(model), batch)[0].item() == pytest.approx(5 * math.log(2))
    assert DPO(0.1, smoothing=0.2).loss(Role(model), batch)[0].item() == pytest.approx(5 * math.log(2))
    assert DPO(0.1, ipo=True).loss(Role(model), batch)[0].item() == pytest.approx(5 * 25)
    assert float(DPO(0.1).loss(Role(model), batch)[1]["lead"][0]) == pytest.approx(0, abs=1e-9)


# Learning: 30 steps on the same examples, one optimiser step each.


def learn(model: Transformer, objective: Objective, examples: list[Any], lr: float = 1e-2) -> list[dict[str, float]]:
    trainer = Trainer(Role(model), Optimiser(lr=lr, schedule="constant", warmup=0), steps=30)
    return [trainer.update(examples, objective) for _ in range(30)]


def examples_of(make: Any, count: int = 8) -> list[Any]:
    draw = np.random.default_rng(5)
    return [make(draw, vocab=VOCAB) for _ in range(count)]


def test_next_token_learns_its_text() -> None:
    history = learn(language_model(1, vocab=VOCAB), NextToken(), examples_of(answered))
    assert history[-1]["loss"] < history[0]["loss"] - 2


def test_ranking_learns_who_leads() -> None:
    model, examples = reward_model(1, vocab=VOCAB), examples_of(pair)
    history = learn(model, Ranking(), examples)
    assert history[0]["accuracy"] < 1
    assert history[-1]["accuracy"] == 1
    assert history[-1]["lead"] > history[0]["lead"] + 1
    assert history[-1]["loss"] < 0.2


def test_the_safety_loss_pins_the_score() -> None:
    """Ranking alone fixes scores up to a shift; with the auxiliary loss σ(r) = ½ divides safe from unsafe."""
    model, examples = reward_model(1, vocab=VOCAB), examples_of(pair, 12)
    with torch.no_grad():
        model.score.weight.mul_(3)
    learn(model, Ranking(1.0), examples, lr=2e-2)
    for example in examples:
        for sequence, label in zip((example.chosen, example.rejected), example.safe, strict=True):
            if label is not None:
                assert (scalars(model, sequence)[-1].item() > 0) == bool(label)


def at_reference(model: Transformer, examples: list[Pair]) -> list[Pair]:
    with torch.no_grad():
        sums = [[float(torch.stack(logprobs(model, s)).sum()) for s in (e.chosen, e.rejected)] for e in examples]
    return [replace(e, ref_logprobs=(a, b)) for e, (a, b) in zip(examples, sums, strict=True)]


def test_dpo_prefers_the_chosen() -> None:
    model = language_model(1, vocab=VOCAB)
    history = learn(model, DPO(0.1), at_reference(model, examples_of(pair)))
    assert history[0]["lead"] == pytest.approx(0, abs=1e-3)
    assert history[-1]["lead"] > 1
    assert history[-1]["accuracy"] == 1
    assert history[-1]["loss"] < math.log(2) - 0.3


def test_ipo_stops_at_its_target() -> None:
    """β·h goes to ½, not to infinity."""
    model = language_model(1, vocab=VOCAB)
    history = learn(model, DPO(0.1, ipo=True), at_reference(model, examples_of(pair, 4)), lr=5e-3)
    assert history[0]["loss"] == pytest.approx(25, rel=1e-3)
    assert history[-1]["loss"] < 5
    assert 0.3 < history[-1]["lead"] < 0.7


def test_rrhf_ranks_its_candidates() -> None:
    history = learn(language_model(1, vocab=VOCAB), RRHF(), examples_of(group))
    assert history[0]["agreement"] < 0.7
    assert history[-1]["agreement"] == 1
    assert history[-1]["loss"] < history[0]["loss"] - 2


def test_policy_clip_raises_what_paid_and_stops_at_the_clip() -> None:
    far = {}
    for clip in (0.2, 100.0):
        model = language_model(1, vocab=VOCAB)
        examples, before = remembered(model)
        history = learn(model, PolicyClip(clip), examples, lr=1e-3)
        assert history[0]["ratio"] == pytest.approx(1, abs=1e-5)
        assert history[0]["clipped"] == 0
        assert history[-1]["loss"] < history[0]["loss"] - 0.1
        moved = torch.cat([torch.stack(logprobs(model, e.sequence)) for e in examples]).detach() - before
        paid = torch.cat([e.advantages[torch.tensor([*e.sequence.mask[1:], False])] for e in examples])
        assert (moved * paid).mean() > 0.05
        far[clip] = float(moved.abs().mean())
    assert far[0.2] < 0.7 * far[100.0]


def remembered(model: Transformer) -> tuple[list[Trajectory], Tensor]:
    """Steps whose log-probs are the model's own, and those log-probs in one row."""
    examples: list[Trajectory] = []
    rows = []
    for example in examples_of(trajectory):
        said = torch.zeros(len(example))
        rows.append(torch.stack(logprobs(model, example.sequence)).detach())
        said[torch.tensor([*example.sequence.mask[1:], False])] = rows[-1]
        examples.append(replace(example, logprobs=said))
    return examples, torch.cat(rows)


def test_value_clip_moves_values_to_returns() -> None:
    model, examples = reward_model(1, vocab=VOCAB), examples_of(trajectory)

    def error() -> float:
        masks = [torch.tensor(e.sequence.mask[1:]) for e in examples]
        rows = [(scalars(model, e.sequence)[:-1] - e.returns[:-1])[m] for e, m in zip(examples, masks, strict=True)]
        return (torch.cat(rows) ** 2).mean().item()

    before = error()
    learn(model, ValueClip(10.0), examples)
    assert error() < before / 2


def test_pro_ranks_its_candidates() -> None:
    history = learn(language_model(1, vocab=VOCAB), PRO(imitation=0.05), examples_of(group))
    assert history[0]["agreement"] < 0.7
    assert history[-1]["agreement"] == 1
    assert history[-1]["loss"] < history[0]["loss"] - 2


def test_rejection_sampling_is_rrhf_without_its_ranking() -> None:
    """The gradient of SFT on the best answers; one divides by the prompts, the other by the answers' tokens."""
    draw = np.random.default_rng(2)

    def candidate() -> TokenSequence:
        after = int(draw.integers(1, 7))
        return TokenSequence(draw.integers(3, VOCAB, 3 + after).tolist(), [False] * 3 + [True] * after)

    groups = [Group(tuple(candidate() for _ in range(3)), tuple(draw.normal(0, 1, 3).tolist())) for _ in range(6)]
    best = [g.sequences[int(np.argmax(g.rewards))] for g in groups]

    def gradient(objective: Objective, examples: list[Any]) -> dict[str, Tensor]:
        """Of all items together, divided by nothing."""
        model = language_model(3, vocab=VOCAB, dtype=torch.float64)
        objective.loss(Role(model), objective.batch(examples))[0].backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    ours, theirs = gradient(RRHF(ranking=0.0), groups), gradient(NextToken(), best)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-9, atol=1e-12, msg=name)
        assert expected.abs().max() > 0
