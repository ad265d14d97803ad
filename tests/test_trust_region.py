"""TRPO's learner on a real model against appendix C with everything written out: the whole Fisher matrix, a solve."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ayni.model.role import Role
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise
from ayni.online import trust_region
from ayni.online.trust_region import TrustRegionLearner
from ayni.parallel import Ranks
from ayni.records import TokenSequence
from ayni.train.batch import Trajectory, batch_of

VOCAB, TEMPERATURE, MAX_KL = 7, 0.7, 1e-6
SHAPE = Shape(dim=4, layers=1, heads=2, kv_heads=1, hidden=5, vocab=VOCAB, context=12)
ANSWERS = [
    TokenSequence([1, 3, 4, 2], [False, False, True, True]),
    TokenSequence([1, 5, 6, 5, 3, 2], [False, True, True, True, True, True]),
    TokenSequence([1, 4, 2], [False, False, True]),
]


def model() -> Transformer:
    found = initialise(Transformer(SHAPE), 0).double()
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.ndim > 1:
                parameter.mul_(20)
    return found


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def experience(role: Role) -> list[Trajectory]:
    """Of the policy as it is, its advantages drawn at random."""
    drawn, found = torch.Generator().manual_seed(0), []
    for answer in ANSWERS:
        batch = batch_of([answer])
        old, advantages = torch.zeros(2, len(batch.tokens), dtype=torch.float64)
        old[batch.mask] = role.logprobs(batch, TEMPERATURE).detach()
        advantages[batch.mask] = torch.randn(int(batch.mask.sum()), dtype=torch.float64, generator=drawn)
        found.append(Trajectory(answer, old, advantages))
    return found


def by_definition(role: Role, trajectories: list[Trajectory]) -> tuple[Tensor, Tensor]:
    """g = mean A ∇log π(a), F = mean Σ_v π(v) ∇log π(v) ∇log π(v)ᵀ, both over the sampled tokens: (P,), (P, P)."""
    parameters = list(role.trainable().values())
    size, tokens = sum(p.numel() for p in parameters), 0
    g, fisher = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
    for trajectory in trajectories:
        batch = batch_of([trajectory.sequence])
        hidden = role.model(batch.tokens, batch.layout)
        logprobs = torch.log_softmax(hidden @ role.model.head.t() / TEMPERATURE, -1)
        for t in batch.mask.nonzero().squeeze(-1).tolist():
            slopes = [flat(list(torch.autograd.grad(each, parameters, retain_graph=True))) for each in logprobs[t]]
            g += trajectory.advantages[t] * slopes[int(batch.targets[t])]
            fisher += sum(p * slope.outer(slope) for p, slope in zip(logprobs[t].detach().exp(), slopes, strict=True))
            tokens += 1
    return g / tokens, fisher / tokens


@pytest.mark.parametrize("damping", [0.01, 0.1])
def test_the_step_is_that_of_the_whole_fisher_matrix(damping: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # the differences' error is of its square: in fp64 there is room for less than fp32 allows
    monkeypatch.setattr(trust_region, "EPSILON", 1e-4)
    role = Role(model())
    trajectories = experience(role)
    g, fisher = by_definition(role, trajectories)
    damped = fisher + damping * torch.eye(len(g), dtype=torch.float64)
    natural = torch.linalg.solve(damped, g)
    expected = (2 * MAX_KL / (natural @ damped @ natural)).sqrt() * natural
    learner = TrustRegionLearner(
        role,
        Ranks(),
        temperature=TEMPERATURE,
        max_kl=MAX_KL,
        damping=damping,
        iterations=200,
        tokens_per_micro_batch=8,
    )
    before = flat(list(role.trainable().values()))
    found = learner.learn(trajectories)
    step = flat(list(role.trainable().values())) - before
    assert float((step - expected).norm() / expected.norm()) < 1e-3
    assert found["norm"] == pytest.approx(float(g.norm()), rel=1e-6)
    assert found["gain"] == pytest.approx(float(g @ step), rel=0.01)
    assert found["step_kl"] == pytest.approx(float(0.5 * step @ fisher @ step), rel=0.01)
    assert 0 < found["step_kl"] < MAX_KL
    # not the plain gradient's way
    assert float(torch.nn.functional.cosine_similarity(step, g, 0)) < 0.9
