"""Every objective with made-up examples, and its loss written out plainly: one sequence at a time, no batch.

`plain` says what the batched loss must equal: a sum over items, from full logits and Python loops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tiny import answered, group, language_model, pair, reward_model, trajectory
from torch import Tensor

from ayni.model.layout import Layout
from ayni.model.transformer import Transformer
from ayni.records import TokenSequence
from ayni.train.batch import Group, Pair, Trajectory
from ayni.train.kto import KTO, Thumb
from ayni.train.objectives import (
    DPO,
    NextToken,
    Objective,
    PolicyClip,
    PolicyGradient,
    PolicyPenalty,
    Ranking,
    ValueClip,
)
from ayni.train.rrhf import PRO, RRHF

VOCAB = 40


@dataclass(frozen=True)
class Case:
    objective: Objective
    make: Callable[[np.random.Generator], Any]
    model: Callable[..., Transformer]
    plain: Callable[[Transformer, Any], Tensor]  # of one example
    items: Callable[[Any], int]  # how many items one example is

    def examples(self, count: int, seed: int = 0) -> list[Any]:
        draw = np.random.default_rng(seed)
        return [self.make(draw) for _ in range(count)]


def logprobs(model: Transformer, sequence: TokenSequence, temperature: float = 1.0) -> list[Tensor]:
    """log p of every supervised token of one sequence."""
    hidden = model(torch.tensor(sequence.tokens), Layout.of([len(sequence.tokens)]))
    table = torch.log_softmax(hidden @ model.head.t() / temperature, -1)
    return [table[i - 1, token] for i, token in enumerate(sequence.tokens) if sequence.mask[i] and i > 0]


def scalars(model: Transformer, sequence: TokenSequence) -> Tensor:
    """The scalar head at every token: (n,)."""
    hidden = model(torch.tensor(sequence.tokens), Layout.of([len(sequence.tokens)]))
    return (hidden @ model.head.t()).squeeze(-1)


def next_token(model: Transformer, sequence: TokenSequence) -> Tensor:
    return -torch.stack(logprobs(model, sequence)).sum()


def ranking(weight: float) -> Callable[[Transformer, Pair], Tensor]:
    def loss(model: Transformer, example: Pair) -> Tensor:
        chosen, rejected = (scalars(model, s)[-1] for s in (example.chosen, example.rejected))
        lead, p = chosen - rejected - example.margin, example.probability
        total = p * torch.log(1 + torch.exp(-lead)) + (1 - p) * torch.log(1 + torch.exp(lead))
        for score, label in zip((chosen, rejected), example.safe, strict=True):
            if label is not None and weight:
                p = 1 / (1 + torch.exp(-score))
                total = total - 0.5 * weight * torch.log(p if label else 1 - p)
        return total

    return loss


def dpo(model: Transformer, example: Pair) -> Tensor:
    chosen, rejected = (torch.stack(logprobs(model, s)).sum() for s in (example.chosen, example.rejected))
    return torch.log(1 + torch.exp(-0.1 * ((chosen - example.ref_logprobs[0]) - (rejected - example.ref_logprobs[1]))))


def ipo(model: Transformer, example: Pair) -> Tensor:
    chosen, rejected = (torch.stack(logprobs(model, s)).sum() for s in (example.chosen, example.rejected))
    return ((chosen - example.ref_logprobs[0]) - (rejected - example.ref_logprobs[1]) - 5) ** 2


def rrhf(model: Transformer, example: Group) -> Tensor:
    means = [torch.stack(logprobs(model, s)).mean() for s in example.sequences]
    total = best_sum(model, example)
    for i, p in enumerate(means):
        for j, q in enumerate(means):
            if example.rewards[i] < example.rewards[j] and p > q:
                total = total + (p - q)
    return total


def best_sum(model: Transformer, example: Group) -> Tensor:
    """What the imitation term adds."""
    return -torch.stack(logprobs(model, example.sequences[int(np.argmax(example.rewards))])).sum()


def pro(model: Transformer, example: Group) -> Tensor:
    means = [torch.stack(logprobs(model, s)).mean() for s in example.sequences]
    ordered = [means[i] for i in np.argsort(-np.array(example.rewards))]
    total = 0.3 * best_sum(model, example)
    for k, p in enumerate(ordered):
        total = total - torch.log(torch.exp(p) / torch.stack([torch.exp(q) for q in ordered[k:]]).sum())
    return total


def policy_clip(model: Transformer, example: Trajectory) -> Tensor:
    places = [i - 1 for i, supervised in enumerate(example.sequence.mask) if supervised]
    total = torch.zeros((), dtype=torch.float64)
    for new, t in zip(logprobs(model, example.sequence, 0.7), places, strict=True):
        ratio, advantage = torch.exp(new - example.logprobs[t]), example.advantages[t]
        bounded = 0.8 if ratio < 0.8 else 1.2 if ratio > 1.2 else ratio
        total = total + torch.maximum(-advantage * ratio, -advantage * bounded)
    return total


def group_relative(model: Transformer, example: Trajectory) -> Tensor:
    """GRPO's: the clipped loss and β k3 of KL(π‖π_ref), averaged over the answer's tokens."""
    places = [i - 1 for i, supervised in enumerate(example.sequence.mask) if supervised]
    total = policy_clip(model, example)
    for new, t in zip(logprobs(model, example.sequence, 0.7), places, strict=True):
        gap = example.ref_logprobs[t] - new
        total = total + 0.3 * (torch.exp(gap) - 1 - gap)
    return total / len(places)


def policy_penalty(model: Transformer, example: Trajectory) -> Tensor:
    places = [i - 1 for i, supervised in enumerate(example.sequence.mask) if supervised]
    total = torch.zeros((), dtype=torch.float64)
    for new, t in zip(logprobs(model, example.sequence, 0.7), places, strict=True):
        ratio = torch.exp(new - example.logprobs[t])
        total = total - example.advantages[t] * ratio + 0.5 * (ratio - 1 - torch.log(ratio))
    return total


def policy_gradient(model: Transformer, example: Trajectory) -> Tensor:
    places = [i - 1 for i, supervised in enumerate(example.sequence.mask) if supervised]
    found = zip(logprobs(model, example.sequence, 0.7), places, strict=True)
    return torch.stack([-example.advantages[t] * new for new, t in found]).sum()


def kto(model: Transformer, example: Thumb) -> Tensor:
    above = 0.02 * (torch.stack(logprobs(model, example.sequence)).sum() - example.ref_logprob - 0.3)
    liked, disliked = 1 - 1 / (1 + torch.exp(-above)), 1 - 1 / (1 + torch.exp(above))
    return 1.5 * liked if example.desirable else 0.7 * disliked


def thumb(draw: np.random.Generator, *, vocab: int = VOCAB) -> Thumb:
    matched, mismatched = answered(draw, vocab=vocab), answered(draw, vocab=vocab)
    reference = [float(x) for x in draw.normal(-20, 3, 2)]
    return Thumb(matched, bool(draw.integers(2)), mismatched, *reference)


def value_clip(model: Transformer, example: Trajectory) -> Tensor:
    values = scalars(model, example.sequence)
    total = torch.zeros((), dtype=torch.float64)
    for i, supervised in enumerate(example.sequence.mask):
        if supervised:
            v, old, target = values[i - 1], example.values[i - 1], example.returns[i - 1]
            near = old + (v - old).clamp(-0.2, 0.2)
            total = total + 0.5 * torch.maximum((v - target) ** 2, (near - target) ** 2)
    return total


def _one(example: Any) -> int:
    return 1


def _tokens(example: Any) -> int:
    return sum((example.sequence if isinstance(example, Trajectory) else example).mask)


def _lm(**kw: Any) -> Transformer:
    return language_model(3, vocab=VOCAB, **kw)


def _rm(**kw: Any) -> Transformer:
    return reward_model(3, vocab=VOCAB, **kw)


def _of(make: Callable[..., Any]) -> Callable[[np.random.Generator], Any]:
    return lambda draw: make(draw, vocab=VOCAB)


def weighted(draw: np.random.Generator) -> Pair:
    return replace(pair(draw, vocab=VOCAB), weight=float(draw.uniform(0.1, 3)))


def soft(draw: np.random.Generator) -> Pair:
    return replace(pair(draw, vocab=VOCAB), probability=float(draw.uniform(0.5, 1)))


CASES = {
    "next-token": Case(NextToken(), _of(answered), _lm, next_token, _tokens),
    "ranking": Case(Ranking(), _of(pair), _rm, ranking(0.0), _one),
    "ranking-safety": Case(Ranking(0.7), _of(pair), _rm, ranking(0.7), _one),
    "ranking-weighted": Case(Ranking(0.7), weighted, _rm, lambda m, p: p.weight * ranking(0.7)(m, p), _one),
    "ranking-soft": Case(Ranking(0.7), soft, _rm, ranking(0.7), _one),
    "dpo": Case(DPO(0.1), _of(pair), _lm, dpo, _one),
    "ipo": Case(DPO(0.1, ipo=True), _of(pair), _lm, ipo, _one),
    "kto": Case(KTO(0.02, 1.5, 0.7, kl=0.3), _of(thumb), _lm, kto, _one),
    "rrhf": Case(RRHF(), _of(group), _lm, rrhf, _one),
    "rrhf-weighted": Case(RRHF(0.0, 2.0), _of(group), _lm, lambda m, g: 2 * (rrhf(m, g) - best_sum(m, g)), _one),
    "pro": Case(PRO(imitation=0.3), _of(group), _lm, pro, _one),
    "policy-clip": Case(PolicyClip(0.2, 0.7), _of(trajectory), _lm, policy_clip, _tokens),
    "grpo": Case(PolicyClip(0.2, 0.7, kl=0.3, by_answer=True), _of(trajectory), _lm, group_relative, _one),
    "policy-penalty": Case(PolicyPenalty(0.5, 0.7), _of(trajectory), _lm, policy_penalty, _tokens),
    "policy-gradient": Case(PolicyGradient(0.7), _of(trajectory), _lm, policy_gradient, _tokens),
    "value-clip": Case(ValueClip(0.2), _of(trajectory), _rm, value_clip, _tokens),
    # in units of 4, ±0.05 is ±0.2 and a squared error a sixteenth
    "value-clip-scaled": Case(ValueClip(0.05, 4.0), _of(trajectory), _rm, lambda *a: value_clip(*a) / 16, _tokens),
}
