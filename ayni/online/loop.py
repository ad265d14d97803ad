"""The online loop: sample → score → read → estimate → learn, for PPO and its relatives (paper §3.2.3).

It is given its parts and knows none of them: who samples (engine), who judges (reward), what an answer was worth
(estimator), how the policy and the critic move (learners).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ayni import interruption
from ayni.errors import BadNumbers
from ayni.maths.losses import proportional_beta
from ayni.maths.rewards import penalise_cut, shaped
from ayni.model.role import Role
from ayni.online.estimators import AdvantageEstimate, Estimator
from ayni.online.experience import ScoredAnswers, read_answers, trajectories
from ayni.online.kl_budget import KLBudget
from ayni.online.learner import Learner, State
from ayni.online.measures import measured
from ayni.online.settings import LoopSettings
from ayni.parallel import Ranks
from ayni.records import Prompt, Sample
from ayni.reward.combine import Scores, cut_off
from ayni.rollout.engine import Engine, rollout, sampled_sequence
from ayni.rollout.sampling import Sampling
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.train.batch import Trajectory, batch_of
from ayni.train.checkpoint import Checkpoints
from ayni.train.trainer import steps_per_epoch

RewardFunction = Callable[[Sequence[Prompt], list[list[Sample]]], Scores]
GREEDY = 0.0  # temperature


class Loop:
    """What lives through the iterations. `critic` is there if the estimator reads values, `reference` for the KL;
    `watch` judges the held-out prompts, `reward` where there is none."""

    def __init__(
        self,
        settings: LoopSettings,
        run: Run,
        *,
        engine: Engine,
        policy: Learner,
        reward: RewardFunction,
        estimator: Estimator,
        reference: Role | None = None,
        critic: Learner | None = None,
        watch: RewardFunction | None = None,
        ranks: Ranks = Ranks(),
    ) -> None:
        self.settings, self.run, self.engine, self.policy = settings, run, engine, policy
        self.reward, self.estimator, self.reference, self.critic = reward, estimator, reference, critic
        # a judge that nothing is optimised against: where the one in training errs, the policy has gone
        self.watch = watch or reward
        self.ranks = ranks
        self.seed = seed_of(run.seed, run.name)
        self.iteration, self.stopped, self.waited = 0, False, 0
        self.memory: dict[str, float] = {}  # the estimator's
        self.beta = settings.beta
        self.budget = KLBudget(settings.kl_budget)
        self.best: float | None = None
        self.best_weights: dict[str, Tensor] = {}

    def train(
        self, prompts: Sequence[Prompt], validation: Sequence[Prompt] = (), keep: Callable[[int], None] | None = None
    ) -> None:
        """All iterations, from the newest checkpoint on; leaves the best validated weights, if any were validated.

        `keep(iteration)` is called every `snapshot_every` iterations. Raises BadNumbers past `kl_limit`.
        """
        settings = self.settings
        with interruption.deferred(), Checkpoints(self.run, settings.checkpoint_every, self.ranks) as checkpoints:
            self.resume(checkpoints)
            if settings.validate_every and self.iteration == 0:
                self.validate(validation)  # a policy that only gets worse must not replace its start
            while self.iteration < settings.iterations and not self.stopped:
                self.iterate(prompts)
                if settings.validate_every and self.iteration % settings.validate_every == 0 and not self.stopped:
                    self.validate(validation)
                if keep is not None and settings.snapshot_every and self.iteration % settings.snapshot_every == 0:
                    keep(self.iteration)
                last = self.stopped or self.iteration == settings.iterations
                checkpoints.after(self.iteration, self.state, last=last)
            if settings.kl_budget is not None and not self.stopped:
                self._look_back(prompts)
        self.restore_best()

    def iterate(self, prompts: Sequence[Prompt]) -> None:
        """One iteration, as the paper has it."""
        settings, t = self.settings, self.iteration + 1
        asked, groups = self._draw(prompts, t)
        scores = self.reward(asked, groups)
        samples = [sample for group in groups for sample in group]
        answers = self._read(asked, samples, scores)
        self.iteration, kl = t, float(answers.kl().mean())
        if not self.budget.admits(kl, self._progress):
            # nothing is learned from what a policy past its budget says
            self._log(scores, samples, answers, None, {"over_budget": 1.0})
            self._go_back(kl)
            return
        estimate = self.estimator(answers, self.memory)
        self.memory = estimate.memory

        # advantages of a critic that knows nothing yet are noise
        moves = self.critic is None or t > settings.critic_warmup
        learned: dict[str, float] = {}
        for mini in self._mini_batches(trajectories(answers, estimate.advantages, estimate.returns), t):
            if moves:
                learned = _renamed(self.policy.learn(mini), "policy", learned)
            if self.critic is not None:
                # the critic sees every mini-batch, also those that the policy waits through
                learned = _renamed(self.critic.learn(mini), "value", learned)
        if moves:
            learned |= self.policy.end_iteration()
            self.engine.sync(self.policy.role)
        self._log(scores, samples, answers, estimate, learned)
        if moves and (to := settings.adaptive_kl) is not None:
            n = settings.batch_size
            self.beta = proportional_beta(self.beta, kl, target=to.target, answers=n, horizon=to.horizon)

    def _draw(self, prompts: Sequence[Prompt], t: int) -> tuple[list[Prompt], list[list[Sample]]]:
        """The prompts of iteration t, and the policy's answers to each."""
        settings = self.settings
        # batch_size counts answers, n to each prompt
        order = self._order(settings.batch_size // settings.n, len(prompts), t)
        asked = [prompts[i] for i in order]
        # a prompt that is asked again draws other answers
        firsts = [settings.n * (at // len(prompts)) for at in range(len(order))]
        groups = rollout(
            self.engine, asked, n=settings.n, sampling=self._sampling(), seed=self.seed, iteration=t, firsts=firsts
        )
        return asked, groups

    def _go_back(self, kl: float) -> None:
        """To the last policy within the budget, its optimiser and the best one it had seen; the critic stays."""
        self._load_progress(*self.budget.last())
        self.engine.sync(self.policy.role)
        past = f"iteration {self.iteration}: {kl:.2f} nats of KL, past the budget of {self.budget.nats:g}"
        if self.settings.over_budget == "stop":
            self.stopped = True
            self.run.say(f"{past}: stopped at the last policy within it")
            return
        self.beta *= self.budget.hold_back()
        self.policy.pace(self.budget.pace)
        now = f"beta {self.beta:g}, learning rate × {self.budget.pace:g}"
        self.run.say(f"{past}: back to the last policy within it, {now}")

    def _look_back(self, prompts: Sequence[Prompt]) -> None:
        """The last iteration's policy has said nothing yet that its KL could be seen from."""
        asked, groups = self._draw(prompts, self.iteration + 1)
        samples = [sample for group in groups for sample in group]
        kl = float(self._read(asked, samples, self.reward(asked, groups)).kl().mean())
        if not self.budget.admits(kl, self._progress):
            self._go_back(kl)

    def _order(self, count: int, prompts: int, t: int) -> list[int]:
        """Which prompts iteration t asks: pass after pass over all of them, each in an order of its own."""
        # from (seed, t) alone: a resumed run asks what the killed one would have asked
        draw = rng(self.seed, "prompts", t)
        return [int(i) for _ in range(-(-count // prompts)) for i in draw.permutation(prompts)][:count]

    def _sampling(self) -> Sampling:
        return Sampling(self.settings.temperature, 1.0, self.settings.max_tokens)  # what is learned from has top-p 1

    def _read(self, asked: Sequence[Prompt], samples: list[Sample], scores: Scores) -> ScoredAnswers:
        """The answers as the roles read them, with the rewards that are optimised."""
        settings = self.settings
        rewards, greedy = self._rewards(asked, samples, scores.combined)
        sequences = [sampled_sequence(sample) for sample in samples]
        outputs = read_answers(
            sequences,
            self.policy.role,
            self.reference,
            None if self.critic is None else self.critic.role,
            temperature=settings.temperature,
            tokens_per_micro_batch=settings.tokens_per_micro_batch,
            ranks=self.ranks,
        )
        return ScoredAnswers(sequences, batch_of(sequences), outputs, rewards, settings.n, greedy, self.beta)

    def _rewards(
        self, asked: Sequence[Prompt], samples: list[Sample], combined: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Of the samples (N,), and of the prompts' greedy answers (P,) where the estimator compares with them."""
        if not self.estimator.greedy:
            return self._shaped(combined, samples), None
        sampling = Sampling(GREEDY, 1.0, self.settings.max_tokens)
        groups = rollout(self.engine, asked, n=1, sampling=sampling, seed=self.seed, iteration=self.iteration + 1)
        # together: a cut answer is worth the same in both
        both = torch.cat([combined, self.reward(asked, groups).combined])
        rewards = self._shaped(both, samples + [sample for (sample,) in groups])
        return rewards[: len(samples)], rewards[len(samples) :]

    def _shaped(self, combined: Tensor, samples: Sequence[Sample]) -> Tensor:
        settings = self.settings
        return shaped(
            combined,
            cut_off(samples),
            whitened=self.estimator.whitened,
            bound=settings.reward_clip,
            truncated=settings.truncated,
        )

    def _mini_batches(self, items: list[Trajectory], t: int) -> Iterator[list[Trajectory]]:
        count = steps_per_epoch(len(items), self.settings.mini_batch)
        for epoch in range(self.settings.epochs):
            order = rng(self.seed, "mini-batches", t, epoch).permutation(len(items))
            for part in np.array_split(order, count):
                yield [items[i] for i in part]

    def _log(
        self,
        scores: Scores,
        samples: list[Sample],
        answers: ScoredAnswers,
        estimate: AdvantageEstimate | None,
        learned: dict[str, float],
    ) -> None:
        settings, shown = self.settings, measured(scores, samples, answers, estimate)
        if self.ranks.leads:
            self.run.log(self.iteration, **shown, **learned)
            self.run.progress(self.iteration, settings.iterations, "iteration", reward=shown["reward"], kl=shown["kl"])
        if settings.kl_limit is not None and shown["kl"] > settings.kl_limit:
            raise BadNumbers(
                f"{self.run.directory}: the mean KL per answer is {shown['kl']:.2f} nats at iteration "
                f"{self.iteration}, over kl_limit {settings.kl_limit}; raise beta or lower the learning rate"
            )

    def validate(self, prompts: Sequence[Prompt]) -> None:
        """Mean reward on held-out prompts, with fixed random numbers; keeps the best weights."""
        # the same seed at every look: they differ by the policy alone
        groups = rollout(self.engine, prompts, n=1, sampling=self._sampling(), seed=seed_of(self.seed, "validation"))
        rewards = self.watch(prompts, groups).combined
        if self.settings.truncated != "scored":
            rewards = penalise_cut(rewards, cut_off([sample for (sample,) in groups]))
        reward = float(rewards.mean())
        if self.best is None or reward > self.best:
            self.best, self.waited = reward, 0
            self.best_weights = {n: p.detach().clone() for n, p in self.policy.role.trainable().items()}
        else:
            self.waited += 1
            self.stopped = self.waited >= self.settings.patience
        if self.ranks.leads:
            self.run.log(self.iteration, validation_reward=reward)
        if self.stopped:
            self.run.say(f"stopped at iteration {self.iteration}: no better reward on held-out prompts")

    def restore_best(self) -> None:
        with torch.no_grad():
            for name, parameter in self.policy.role.trainable().items():
                if name in self.best_weights:
                    # in place: engine, learner and reference hold these tensors
                    parameter.copy_(self.best_weights[name])

    def state(self) -> State:
        """Everything a resume needs."""
        tensors, numbers = self._progress()
        if self.critic is not None:
            more, counts = self.critic.state("critic.")
            tensors, numbers = tensors | more, numbers | counts
        within, spent = self.budget.state()
        return tensors | within, numbers | spent | {"memory": self.memory, "beta": self.beta}

    def _progress(self) -> State:
        """What going back takes back: the policy with its optimiser, and what was seen on held-out prompts."""
        tensors, numbers = self.policy.state("actor.")
        best = {f"best.{name}": weight for name, weight in self.best_weights.items()}
        kept: dict[str, Any] = {"best_reward": self.best, "waited": self.waited, "stopped": self.stopped}
        return tensors | best, numbers | kept

    def resume(self, checkpoints: Checkpoints) -> None:
        step = checkpoints.resume(self._load)
        if step is not None:
            self.engine.sync(self.policy.role)
            self.run.say(f"resumed at iteration {step}")
        if self.ranks.leads:
            # the look before training is step 0
            self.run.rewind(-1 if step is None else step)

    def _load(self, iteration: int, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        self.iteration = iteration
        self._load_progress(tensors, numbers)
        if self.critic is not None:
            self.critic.load(tensors, numbers, "critic.")
        self.budget.load(tensors, numbers)
        self.memory, self.beta = numbers["memory"], numbers["beta"]
        self.policy.pace(self.budget.pace)

    def _load_progress(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        self.policy.load(tensors, numbers, "actor.")
        self.best_weights = {n.removeprefix("best."): t for n, t in tensors.items() if n.startswith("best.")}
        self.best, self.waited, self.stopped = (numbers[k] for k in ("best_reward", "waited", "stopped"))


def _renamed(metrics: dict[str, float], name: str, before: dict[str, float]) -> dict[str, float]:
    """One learner's metrics beside those of earlier mini-batches; the first ratio of an iteration is kept."""
    names = {"loss": f"{name}_loss", "norm": f"{name}_norm", "lr": f"{name}_lr"}
    first = {"first_ratio": metrics["ratio"]} if "ratio" in metrics and "first_ratio" not in before else {}
    return before | {names.get(key, key): number for key, number in metrics.items()} | first
