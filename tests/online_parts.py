"""The online loop with tiny parts: a scripted or a local engine, a scripted reward, roles with or without adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tiny import policy_model, prompts, reward_model, tokenizer

from ayni.config import parse_config
from ayni.model.adapters import Lora
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.model.trainable import to_train
from ayni.online.algorithm import Algorithm
from ayni.online.loop import Loop
from ayni.parallel import Ranks
from ayni.records import Prompt, Sample
from ayni.reward.combine import Scores
from ayni.rollout.engine import Drawn, Engine, Request
from ayni.rollout.local import LocalEngine
from ayni.run import Run

Taste = Callable[[Prompt, Sample], float]
LIKED = 235  # a token that the policy says about once in a hundred
PROMPTS = prompts(12)
SETTINGS: dict[str, Any] = {
    "iterations": 30,
    "batch_size": 12,
    "mini_batch": 6,
    "max_tokens": 10,
    "beta": 0.01,
    "truncated": "scored",  # a policy that has learned nothing seldom stops: only what was scripted shall count
    "optimiser": {"lr": 3e-3, "schedule": "constant", "warmup": 0},
    "critic_optimiser": {"lr": 1e-2, "schedule": "constant", "warmup": 0},
    "tokens_per_micro_batch": 120,
    "checkpoint_every": 100,
}


def likes_token(prompt: Prompt, sample: Sample) -> float:
    return float(sample.tokens.count(LIKED))


@dataclass(frozen=True)
class ScriptedReward:
    """A reward that is a Python function of the prompt and the sample."""

    taste: Taste

    def __call__(self, prompts: Sequence[Prompt], groups: list[list[Sample]]) -> Scores:
        said = [self.taste(p, s) for p, group in zip(prompts, groups, strict=True) for s in group]
        return Scores(torch.tensor(said), None, torch.tensor(said))


class ScriptedEngine:
    """Says what it is told, whatever the weights are: answer `script[i]` to the i-th seed it is ever asked."""

    name, tokenizer, context, ranks = "scripted", tokenizer(), 96, Ranks()

    def __init__(self, script: Sequence[Sequence[int]]) -> None:
        self.script, self.asked, self.synced = list(script), 0, 0

    def generate(self, requests: Sequence[Request], keep: bool = False) -> list[list[Drawn]]:
        return [[self._next() for _ in request.seeds] for request in requests]

    def _next(self) -> Drawn:
        tokens = list(self.script[self.asked % len(self.script)])
        self.asked += 1
        return Drawn(tokens, [-1.0] * len(tokens))

    def stream(self, request: Request) -> Iterator[int]:
        raise NotImplementedError

    def sync(self, role: Any) -> None:
        self.synced += 1


class SeededEngine(ScriptedEngine):
    """Answers `script[seed]`, so what is sampled does not depend on which process is asked."""

    def __init__(self, script: Sequence[Sequence[int]], ranks: Ranks = Ranks()) -> None:
        super().__init__(script)
        self.ranks = ranks

    def generate(self, requests: Sequence[Request], keep: bool = False) -> list[list[Drawn]]:
        answers = [[list(self.script[seed % len(self.script)]) for seed in request.seeds] for request in requests]
        return [[Drawn(tokens, [-1.0] * len(tokens)) for tokens in group] for group in answers]


def loop_of(
    directory: Path,
    taste: Taste = likes_token,
    *,
    engine: Engine | None = None,
    watch: Taste | None = None,
    lora: Lora | None = None,
    ranks: Ranks = Ranks(),
    quiet: bool = True,
    **changed: Any,
) -> Loop:
    """A loop over tiny roles; without an engine of its own it samples from its policy."""
    algorithm = parse_config(Algorithm, {**SETTINGS, **changed})
    placement, run = Placement(ranks), Run(directory, name="ppo", seed=1, quiet=quiet, leads=ranks.leads)
    start = policy_model(0)
    policy = Role(to_train(start, lora, 0, keep=True))
    estimator = algorithm.estimated()
    critic = None
    if estimator.critic:
        critic = algorithm.critic(Role(to_train(reward_model(5), lora, 1, keep=True)), placement)
    return Loop(
        algorithm,
        run,
        engine=engine or LocalEngine(policy, tokenizer(), "policy", ranks),
        policy=algorithm.policy(policy, placement),
        reward=ScriptedReward(taste),
        estimator=estimator,
        reference=Role(start.requires_grad_(False)),
        critic=critic,
        watch=None if watch is None else ScriptedReward(watch),
        ranks=ranks,
    )
