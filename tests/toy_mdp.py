"""A tree of choices small enough to enumerate: every answer, value, gradient and variance of it, exactly.

A prompt is a root. At every state the policy, softmax(logits[prompt, state]), picks one of three tokens; END ends the
answer, and so does the third pick. So a prompt has 7 states and 15 answers of one to three tokens, each with a reward
at its end. The flat axis is that of a Batch: one prompt token, then the answer; the last column predicts nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PROMPTS, TOKENS, DEPTH, END = 3, 3, 3, 2
STATES = 2**DEPTH - 1


def _answers(state: int = 0, path: tuple[tuple[int, int], ...] = ()) -> list[tuple[tuple[int, int], ...]]:
    """Every answer below `state` as its (state, token) pairs."""
    found = []
    for token in range(TOKENS):
        longer = (*path, (state, token))
        over = token == END or len(longer) == DEPTH
        found += [longer] if over else _answers(2 * state + 1 + token, longer)
    return found


ANSWERS = _answers()
LENGTHS = torch.tensor([len(answer) for answer in ANSWERS])


@dataclass(frozen=True)
class Toy:
    """logits (P, S, 3), the policy; rewards (P, answers)."""

    logits: Tensor
    rewards: Tensor

    def logprobs(self, logits: Tensor | None = None) -> Tensor:
        """log π of every answer: (P, answers)."""
        table = torch.log_softmax(self.logits if logits is None else logits, -1)
        return torch.stack([sum(table[:, s, t] for s, t in answer) for answer in ANSWERS], 1)

    def expected(self, logits: Tensor, rewards: Tensor | None = None) -> Tensor:
        """Σ over prompts of E[r]: (), differentiable by the logits."""
        return (self.logprobs(logits).exp() * (self.rewards if rewards is None else rewards)).sum()

    def gradient(self, objective: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """∇E[r], or of another function of the logits, of every prompt: (P, S·3)."""
        logits = self.logits.clone().requires_grad_()
        (objective or self.expected)(logits).backward()
        assert logits.grad is not None
        return logits.grad.flatten(1)

    def values(self) -> Tensor:
        """V of every state, backwards from the ends: (P, S)."""
        policy = torch.softmax(self.logits, -1)
        values = torch.zeros(PROMPTS, STATES, dtype=policy.dtype)
        end = {answer[-1]: i for i, answer in enumerate(ANSWERS)}
        for s in reversed(range(STATES)):
            for token in range(TOKENS):
                i = end.get((s, token))
                after = values[:, 2 * s + 1 + token] if i is None else self.rewards[:, i]
                values[:, s] += policy[:, s, token] * after
        return values

    def greedy(self) -> Tensor:
        """The reward of every prompt's most probable token each time: (P,)."""
        best = self.logits.argmax(-1)
        follows = torch.tensor(
            [[all(best[p, s] == t for s, t in answer) for answer in ANSWERS] for p in range(PROMPTS)]
        )
        return self.rewards[follows]


def toy(seed: int = 0, between: float = 3.0, spread: float = 0.5) -> Toy:
    """A policy near uniform; mean rewards of prompts lie `between` apart, those of one prompt's answers about 1."""
    draw = np.random.default_rng(seed)
    logits = torch.from_numpy(draw.normal(0, spread, (PROMPTS, STATES, TOKENS)))
    rewards = draw.normal(0, 1, (PROMPTS, len(ANSWERS))) + 5 + between * np.arange(PROMPTS)[:, None]
    return Toy(logits, torch.from_numpy(rewards))


@dataclass(frozen=True)
class Drawn:
    """Answers on the flat axis. prompts, picks (N,): which answer of which prompt; the rest (T,), offsets (N+1,)."""

    toy: Toy
    prompts: Tensor
    picks: Tensor
    offsets: Tensor
    mask: Tensor
    owners: Tensor
    states: Tensor
    tokens: Tensor

    @property
    def rewards(self) -> Tensor:
        """r of every answer: (N,)."""
        return self.toy.rewards[self.prompts, self.picks]

    @property
    def token_rewards(self) -> Tensor:
        """r at the last masked column: (T,)."""
        rewards = torch.zeros(len(self.mask), dtype=torch.float64)
        rewards[self.offsets[1:] - 2] = self.rewards
        return rewards

    def at(self, table: Tensor) -> Tensor:
        """A number of every state (P, S) at every column: (T,), noise where the mask is False."""
        noise = torch.full((len(self.mask),), 1e3, dtype=table.dtype)
        return torch.where(self.mask, table[self.prompts[self.owners], self.states], noise)

    def logprobs(self, logits: Tensor) -> Tensor:
        """log π of every column's token: (T,), 0 where the mask is False."""
        table = torch.log_softmax(logits, -1)
        return torch.where(self.mask, table[self.prompts[self.owners], self.states, self.tokens], 0.0)

    def gradients(self, advantages: Tensor) -> Tensor:
        """Σ_t A_t ∇log π(a_t|s_t) of every answer, by the logits of its own prompt: (T,) → (N, S·3)."""
        at = self.mask.nonzero().squeeze(-1)
        owners, states, tokens = self.owners[at], self.states[at], self.tokens[at]
        policy = torch.softmax(self.toy.logits, -1)[self.prompts[owners], states]
        scores = torch.nn.functional.one_hot(tokens, TOKENS).to(policy.dtype) - policy
        out = policy.new_zeros(len(self.picks) * STATES, TOKENS)
        out.index_add_(0, owners * STATES + states, advantages[at, None] * scores)
        return out.view(len(self.picks), STATES * TOKENS)


def lay(toy: Toy, prompts: Tensor, picks: Tensor) -> Drawn:
    """These answers end to end."""
    lengths = LENGTHS[picks] + 1
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    owners = torch.repeat_interleave(torch.arange(len(picks)), lengths)
    place = torch.arange(len(owners)) - offsets[owners]
    table = torch.tensor([[*answer, *[(0, 0)] * (DEPTH + 1 - len(answer))] for answer in ANSWERS])
    pairs = table[picks[owners], place]
    return Drawn(toy, prompts, picks, offsets, place < lengths[owners] - 1, owners, pairs[:, 0], pairs[:, 1])


def draw(toy: Toy, groups: int, n: int, seed: int) -> Drawn:
    """`groups` times n answers of every prompt in turn: group g is of prompt g mod P."""
    random = np.random.default_rng(seed)
    chances = toy.logprobs().exp()
    columns = [random.choice(len(ANSWERS), (groups, n), p=(row / row.sum()).numpy()) for row in chances]
    picks = torch.from_numpy(np.stack(columns, 1)).view(-1)
    prompts = torch.arange(PROMPTS).repeat_interleave(n).repeat(groups)
    return lay(toy, prompts, picks)


def all_groups(toy: Toy, n: int) -> tuple[Drawn, Tensor]:
    """Every possible group of n answers of every prompt, prompt by prompt, and each group's probability (P, 15ⁿ)."""
    one = torch.cartesian_prod(*[torch.arange(len(ANSWERS))] * n).view(-1, n)
    chances = toy.logprobs()[:, one].sum(-1).exp()
    prompts = torch.arange(PROMPTS).repeat_interleave(one.numel())
    return lay(toy, prompts, one.view(-1).repeat(PROMPTS)), chances


def moments(toy: Toy, advantages: Callable[[Drawn], Tensor], n: int = 1) -> tuple[Tensor, Tensor]:
    """Exactly, of the gradient estimated from n answers (their mean): the mean (P, S·3), and the variance (P,).

    `advantages` gives one number per column (T,). The variance is the trace of the covariance times n: that of one
    answer's share, to be compared between estimators that spend the same number of answers.
    """
    drawn, chances = all_groups(toy, n)
    each = drawn.gradients(advantages(drawn)).view(PROMPTS, -1, n, STATES * TOKENS).mean(2)
    mean = torch.einsum("pg,pgk->pk", chances, each)
    return mean, n * (torch.einsum("pg,pgk->p", chances, each**2) - (mean**2).sum(1))
