"""PPO against a helpfulness and a safety reward model (paper §3.2.3; RECIPE §6–7).

    rollout → score → combine and whiten → KL rewards → GAE → actor.update, critic.update

Four models: the policy (trained), the critic (trained, from the helpfulness reward model), the reference (the policy
PPO starts from, frozen) and the reward models (frozen).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ayni.config import Config as Base
from ayni.errors import BadInput, BadNumbers
from ayni.formats.reading import read_prompts_of
from ayni.maths.advantages import whiten
from ayni.model_directory import load_model, save_model
from ayni.parallel import Ranks
from ayni.records import Prompt, Sample
from ayni.reward.combine import Judges, Scores, judges_of
from ayni.reward.model import load_reward
from ayni.rollout.engine import Policy, rollout, sampled_sequence, with_room
from ayni.rollout.sampling import Sampling
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input
from ayni.train.batch import Step, batch_of, cut
from ayni.train.checkpoint import load_checkpoint, save_checkpoint
from ayni.train.experience import advantages_of, forward, steps_of
from ayni.train.objectives import PolicyClip, ValueClip
from ayni.train.precision import DTYPES, NAMES, Dtype, compute_dtype
from ayni.train.trainer import Optimiser, Trainer, steps_per_epoch

VERSION = 1
FACE = Face(
    "online",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("reward_helpfulness", "model", ("reward_model",)),
        Input("reward_safety", "model", ("reward_model",), optional=True),
        Input("prompts", "prompts-train.jsonl", ("prompts",), many=True),
        Input("validation", "prompts-validation.jsonl", ("prompts",), many=True, optional=True),
    ),
    leaves={
        "model": "language_model",
        "critic": "critic",
        "snapshots": "snapshots",
        "snapshots/*/model": "language_model",
    },
)


class Config(Base):
    """Paper: β 0.01 (7B, 13B) or 0.005, batch 512, mini-batch 64, one step each, clip 0.2, constant LR 1e-6."""

    iterations: int = Field(200, ge=1, description="paper: 200–400")
    batch_size: int = Field(512, ge=1, description="answers per iteration, in the world")
    mini_batch: int = Field(64, ge=1, description="answers per optimiser step")
    epochs: int = Field(1, ge=1, description="passes over an iteration's answers")
    beta: float = Field(0.01, ge=0, description="weight of the KL to the reference; 0 switches it off")
    clip: float = Field(0.2, gt=0)
    value_clip: float = Field(0.2, gt=0)
    gamma: float = Field(1.0, gt=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)
    temperature: float = Field(1.0, gt=0)
    max_tokens: int = Field(256, ge=1)
    threshold: float = Field(0.15, ge=0, le=1, description="below this safety, safety decides")
    truncated: float | None = Field(None, description="whitened reward of answers without EOS; default: as scored")
    optimiser: Optimiser = Field(Optimiser(lr=1e-6, schedule="constant", warmup=0), description="the policy's")
    critic_optimiser: Optimiser = Field(Optimiser(lr=1e-6, schedule="constant", warmup=0), description="the critic's")
    critic_warmup: int = Field(0, ge=0, description="iterations in which only the critic learns")
    validate_every: int = Field(0, ge=0, description="iterations between looks at the validation prompts; 0: never")
    patience: int = Field(3, ge=1, description="stop after so many looks without a better reward; the best is kept")
    kl_limit: float | None = Field(None, gt=0, description="alarm (exit 4) when the mean KL per answer passes it")
    tokens_per_micro_batch: int = Field(8192, ge=1)
    snapshot_every: int = Field(
        0, ge=0, description="iterations between kept copies of the policy, for `study`; 0: none"
    )
    checkpoint_every: int = Field(10, ge=1, description="iterations between checkpoints")
    dtype: Dtype = "auto"


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    ranks = Ranks.current()
    dtype = DTYPES[run.tuned(dtype=NAMES[compute_dtype(config.dtype, ranks.device)])["dtype"]]
    model, tokenizer = load_model(inputs["model"], expect="logits")
    model.to(ranks.device).dtype = dtype
    reference = copy.deepcopy(model).requires_grad_(False)
    helpful = load_reward(inputs["reward_helpfulness"], dtype=dtype, device=ranks.device)
    judges = judges_of(helpful, inputs.get("reward_safety"), ranks, threshold=config.threshold, dtype=dtype)
    if helpful.tokenizer.fingerprint != tokenizer.fingerprint:
        raise BadInput(
            "the critic starts from this reward model and reads the policy's tokens, but their tokenizers differ",
            path=inputs["reward_helpfulness"],
            fix="train the reward model from a checkpoint of the policy's family",
        )
    critic = copy.deepcopy(helpful.model).requires_grad_(True)
    prompts = read_prompts_of(inputs["prompts"])
    validation = read_prompts_of(inputs.get("validation") or [])
    if not prompts:
        raise BadInput("no prompts", path=inputs["prompts"][0])
    policy = Policy(model, tokenizer, run.name)
    prompts, validation = (with_room(given, [policy], run.say) for given in (prompts, validation))
    if config.validate_every and not validation:
        raise BadInput("validate_every needs validation prompts", field="validation")

    updates = (
        config.iterations * config.epochs * steps_per_epoch(min(config.batch_size, len(prompts)), config.mini_batch)
    )
    actor = Trainer(model, config.optimiser, steps=updates, ranks=ranks)
    value = Trainer(critic, config.critic_optimiser, steps=updates, ranks=ranks)
    loop = _Loop(config, run, actor, value, reference, judges, policy)
    loop.resume()
    while loop.iteration < config.iterations and not loop.stopped:
        loop.iterate(prompts)
        if config.validate_every and loop.iteration % config.validate_every == 0:
            loop.validate(validation)
        if config.snapshot_every and loop.iteration % config.snapshot_every == 0 and ranks.rank == 0:
            save_model(run.directory / "snapshots" / f"{loop.iteration:06d}" / "model", model, tokenizer)
        if loop.iteration % config.checkpoint_every == 0:
            loop.save()
    loop.restore_best()
    if ranks.rank == 0:
        save_model(run.directory / "model", model, tokenizer, card={"stage": "ppo"})
        save_model(run.directory / "critic", critic, tokenizer, card={"stage": "ppo (critic)"})


class _Loop:
    """What lives through PPO's iterations."""

    def __init__(
        self,
        config: Config,
        run: Run,
        actor: Trainer,
        critic: Trainer,
        reference: Any,
        judges: Judges,
        policy: Policy,
    ) -> None:
        self.config, self.run, self.actor, self.critic = config, run, actor, critic
        self.reference, self.judges, self.policy = reference, judges, policy
        self.ranks = actor.ranks
        self.seed = seed_of(run.seed, run.name)
        self.iteration, self.stopped, self.waited = 0, False, 0
        self.best: float | None = None
        self.best_weights: dict[str, Tensor] = {}

    def iterate(self, prompts: list[Prompt]) -> None:
        """One iteration, as the paper has it."""
        config, t = self.config, self.iteration + 1
        batch = [prompts[i] for i in rng(self.seed, "prompts", t).permutation(len(prompts))[: config.batch_size]]
        sampling = Sampling(config.temperature, 1.0, config.max_tokens)
        drawn = self.ranks.gather(
            rollout(self.policy, self.ranks.share(batch), n=1, sampling=sampling, seed=self.seed, iteration=t)
        )
        scores = self.judges(batch, drawn, self.policy.tokenizer)
        samples = [group[0] for group in drawn]

        rewards = whiten(scores.combined)
        if config.truncated is not None:
            cut_off = torch.tensor([s.finished == "length" for s in samples])
            rewards = torch.where(cut_off, torch.tensor(config.truncated), rewards)
        sequences = [sampled_sequence(p, s, self.policy.tokenizer) for p, s in zip(batch, samples, strict=True)]
        flat = batch_of(sequences)
        said = forward(
            self.actor.model,
            self.reference,
            self.critic.model,
            sequences,
            temperature=config.temperature,
            tokens_per_micro_batch=config.tokens_per_micro_batch,
            ranks=self.ranks,
        )
        gained = advantages_of(flat, said, rewards, beta=config.beta, gamma=config.gamma, lam=config.lam)
        steps = steps_of(sequences, flat, said, gained)

        learned: dict[str, float] = {}
        for mini in self._mini_batches(steps, t):
            if t > config.critic_warmup:
                policy_loss = PolicyClip(config.clip, config.temperature)
                learned |= self._update(self.actor, mini, policy_loss, "policy", learned)
            learned |= self._update(self.critic, mini, ValueClip(config.value_clip), "value", learned)
        self.iteration = t
        self._log(scores, samples, gained.kl, said.values, gained.returns, flat.mask, learned)

    def _update(self, trainer: Trainer, mini: list[Step], objective: Any, name: str, before: dict[str, float]) -> Any:
        parts = cut(self.ranks.share(mini), self.config.tokens_per_micro_batch)
        metrics = trainer.update([objective.batch(part) for part in parts], objective)
        first = {} if "first_ratio" in before or "ratio" not in metrics else {"first_ratio": metrics["ratio"]}
        renamed = {"loss": f"{name}_loss", "norm": f"{name}_norm", "lr": f"{name}_lr"}
        return {renamed.get(key, key): number for key, number in metrics.items()} | first

    def _mini_batches(self, steps: list[Step], t: int) -> Iterator[list[Step]]:
        count = steps_per_epoch(len(steps), self.config.mini_batch)
        for epoch in range(self.config.epochs):
            order = rng(self.seed, "mini-batches", t, epoch).permutation(len(steps))
            for part in np.array_split(order, count):
                yield [steps[i] for i in part]

    def _log(
        self,
        scores: Scores,
        samples: list[Sample],
        kl: Tensor,
        values: Tensor,
        returns: Tensor,
        mask: Tensor,
        learned: dict[str, float],
    ) -> None:
        mean_kl = float(kl.mean())
        error = (returns - values)[mask].var()
        shown = {
            "reward": float(scores.combined.mean()),
            "helpfulness": float(scores.helpfulness.mean()),
            "kl": mean_kl,
            "length": sum(len(s.tokens) for s in samples) / len(samples),
            "truncated": sum(s.finished == "length" for s in samples) / len(samples),
            "entropy": -sum(sum(s.logprobs) for s in samples) / sum(len(s.tokens) for s in samples),
            "explained_variance": float(1 - error / returns[mask].var().clamp(min=1e-8)),
            **learned,
        }
        if scores.safety is not None:
            shown["safety"] = float(scores.safety.mean())
        if self.ranks.rank == 0:
            self.run.log(self.iteration, **shown)
            self.run.progress(self.iteration, self.config.iterations, "iteration", reward=shown["reward"], kl=mean_kl)
        if self.config.kl_limit is not None and mean_kl > self.config.kl_limit:
            raise BadNumbers(
                f"{self.run.directory}: the mean KL per answer is {mean_kl:.2f} nats at iteration {self.iteration}, "
                f"over kl_limit {self.config.kl_limit}; raise beta or lower the learning rate"
            )

    def validate(self, prompts: list[Prompt]) -> None:
        """Mean reward on held-out prompts, with fixed random numbers; keeps the best weights."""
        config = self.config
        sampling = Sampling(config.temperature, 1.0, config.max_tokens)
        seed = seed_of(self.seed, "validation")
        drawn = self.ranks.gather(rollout(self.policy, self.ranks.share(prompts), n=1, sampling=sampling, seed=seed))
        reward = float(self.judges(prompts, drawn, self.policy.tokenizer).combined.mean())
        if self.best is None or reward > self.best:
            self.best, self.waited = reward, 0
            self.best_weights = {n: p.detach().clone() for n, p in self.actor.model.named_parameters()}
        else:
            self.waited += 1
            self.stopped = self.waited >= config.patience
        if self.ranks.rank == 0:
            self.run.log(self.iteration, validation_reward=reward)
        if self.stopped:
            self.run.say(f"stopped at iteration {self.iteration}: no better reward on held-out prompts")

    def restore_best(self) -> None:
        with torch.no_grad():
            for name, parameter in self.actor.model.named_parameters():
                if name in self.best_weights:
                    parameter.copy_(self.best_weights[name])

    def save(self) -> None:
        if self.ranks.rank == 0:
            tensors, numbers = self.actor.state("actor.")
            critic_tensors, critic_numbers = self.critic.state("critic.")
            best = {f"best.{name}": weight for name, weight in self.best_weights.items()}
            kept = {"best_reward": self.best, "waited": self.waited, "stopped": self.stopped}
            save_checkpoint(
                self.run.directory / "checkpoints",
                self.iteration,
                tensors | critic_tensors | best,
                numbers | critic_numbers | kept,
            )
        self.ranks.barrier()

    def resume(self) -> None:
        saved = load_checkpoint(self.run.directory / "checkpoints")
        if saved is not None:
            self.iteration, tensors, numbers = saved
            self.actor.load(tensors, numbers, "actor.")
            self.critic.load(tensors, numbers, "critic.")
            self.best_weights = {n.removeprefix("best."): t for n, t in tensors.items() if n.startswith("best.")}
            self.best, self.waited, self.stopped = (numbers[k] for k in ("best_reward", "waited", "stopped"))
            self.run.say(f"resumed at iteration {self.iteration}")
        if self.ranks.rank == 0:
            self.run.rewind(self.iteration)
