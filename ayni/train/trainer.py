"""The trainer (one optimiser step from any cut of its examples) and `fit`, THE loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ayni import interruption
from ayni.config import Config, Field, model_validator
from ayni.errors import BadInput, BadNumbers
from ayni.model.adapters import Lora, adapter_of
from ayni.model.dropout import Dropout
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.model.role import Role
from ayni.model.trainable import to_train
from ayni.model.transformer import Transformer
from ayni.parallel import Ranks
from ayni.run import Run
from ayni.seeds import seed_of
from ayni.train.batch import tokens_in
from ayni.train.checkpoint import Checkpoints
from ayni.train.gradient import accumulate, micro_batches
from ayni.train.objectives import Objective


class Optimiser(Config):
    """AdamW and its schedule; the defaults are the paper's (§2.2, §3.1)."""

    # paper: 2e-5 for SFT (§3.1), 3e-4 and 1.5e-4 for pretraining (§2.2), 1e-6 for PPO (§3.2.3)
    lr: float = Field(2e-5, gt=0, description="peak learning rate")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="after the warm-up")
    warmup: float = Field(0.03, ge=0, description="steps of linear warm-up; below 1, a share of all steps")
    least_warmup: int = Field(0, ge=0, description="steps that a warm-up given as a share has at least")
    floor: float = Field(0.1, ge=0, le=1, description="cosine and line end at this share of the peak")
    weight_decay: float = Field(0.1, ge=0, description="on matrices, not on norms")
    # §2.2: β₂ = 0.95 averages over about 20 steps, Adam's usual 0.999 over 1,000
    betas: tuple[float, float] = Field((0.9, 0.95), strict=False)
    eps: float = Field(1e-5, gt=0)
    clip: float = Field(1.0, gt=0, le=1e30, description="largest global gradient norm")

    def warmup_steps(self, steps: int) -> float:
        """Steps of warm-up of a run of so many steps."""
        if not 0 < self.warmup < 1:
            return self.warmup
        # rounded up: a short run that asks for a share has one step of it at least
        return max(self.least_warmup, math.ceil(self.warmup * steps))

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate of step 1…steps: peak·t/warm-up, then cosine, or a line, to floor·peak (paper §2.2)."""
        warmup = self.warmup_steps(steps)
        if step <= warmup:
            return self.lr * step / max(warmup, 1)
        if self.schedule == "constant":
            return self.lr
        # 0 at the end of the warm-up, 1 at the last step; who goes on past that stays at the floor
        done = (step - warmup) / max(steps - warmup, 1)
        done = min(done, 1.0)
        left = 1 - done if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.lr * (self.floor + (1 - self.floor) * left)


class Trainer:
    """A role, its AdamW, and the step counter they share. `update` is one step: `gradient`, then `apply`."""

    def __init__(
        self,
        role: Role,
        optimiser: Optimiser,
        *,
        steps: int,
        ranks: Ranks | None = None,
        tokens_per_micro_batch: int = 8192,
        dropout: Dropout | None = None,
    ) -> None:
        self.dropout = dropout
        self.role, self.optimiser, self.steps, self.step = role, optimiser, steps, 0
        self.ranks, self.tokens_per_micro_batch = ranks or Ranks(), tokens_per_micro_batch
        self.pace = 1.0  # times what the schedule says; whoever changes it keeps it
        self.parameters = role.trainable()
        # a norm's weight belongs near 1: decay would pull it to 0 and switch its channel off
        matrices = [p for p in self.parameters.values() if p.ndim > 1]
        vectors = [p for p in self.parameters.values() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(
            groups,
            lr=optimiser.lr,
            betas=optimiser.betas,
            eps=optimiser.eps,
            weight_decay=optimiser.weight_decay,
            fused=True,
        )

    def update(self, examples: Sequence[Any], objective: Objective) -> dict[str, float]:
        """One optimiser step on the examples of all ranks; loss, gradient norm, learning rate and metrics.

        Raises BadNumbers, and then nothing has changed.
        """
        return self.gradient(examples, objective) | self.apply()

    def gradient(self, examples: Sequence[Any], objective: Objective) -> dict[str, float]:
        """Leaves the gradient of the mean loss on the parameters, whatever the cut and the number of ranks."""
        # before the cut: what is a mean over the step cannot be known of a micro-batch
        objective = objective.settled(self.role, examples, self.ranks, self.tokens_per_micro_batch)
        batches = micro_batches(self.role, examples, objective, self.ranks, self.tokens_per_micro_batch)
        self.role.model.dropout = self.dropout.at(self.step + 1) if self.dropout else None
        try:
            return accumulate(self.role, batches, objective, self.ranks)
        except BadNumbers as error:
            self.adam.zero_grad()
            raise BadNumbers(f"step {self.step + 1}: {error}") from None
        finally:
            self.role.model.dropout = None  # whoever scores or samples with it sees all of it

    def apply(self) -> dict[str, float]:
        """Clips the gradient, takes the step and clears it."""
        # §2.2: the norm of all parameters' gradients laid end to end is clipped to 1.0
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.optimiser.clip))
        # true of NaN and of infinity alone
        if norm - norm != 0:
            self.adam.zero_grad()
            raise BadNumbers(f"step {self.step + 1}: the gradient's norm is {norm}; lower the learning rate")
        self.step += 1
        # from the step alone, so that a resumed run needs no scheduler's state
        lr = self.pace * self.optimiser.lr_at(self.step, self.steps)
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        self.adam.zero_grad()
        return {"norm": norm, "lr": lr}

    def state(self, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything a resume needs: what is trained and Adam's moments by name, and the step."""
        tensors: dict[str, Tensor] = {f"{prefix}model.{name}": p for name, p in self.parameters.items()}
        for name, p in self.parameters.items():
            for key, value in self.adam.state[p].items():
                tensors[f"{prefix}adam.{key}.{name}"] = value
        return tensors, {f"{prefix}step": self.step}

    def load(self, tensors: dict[str, Tensor], numbers: dict[str, Any], prefix: str = "") -> None:
        with torch.no_grad():
            for name, p in self.parameters.items():
                # in place: AdamW and every role of this model hold these very tensors
                p.copy_(tensors[f"{prefix}model.{name}"])
        for name, p in self.parameters.items():
            keys = ("step", "exp_avg", "exp_avg_sq")
            moments = {key: tensors.get(f"{prefix}adam.{key}.{name}") for key in keys}
            # no moments: it has not stepped yet, as a policy while its critic warms up
            if moments["step"] is None:
                self.adam.state.pop(p, None)
            else:
                self.adam.state[p] = {key: value.to(p.device) for key, value in moments.items() if value is not None}
        self.step = int(numbers[f"{prefix}step"])


def freeze(model: Transformer, train_layers: int | Literal["all"]) -> None:
    """Train everything, or only the last N blocks, the final norm and an untied head; BadInput if there is no N.

    Of a model with an adapter that, and its score head, are everything; BadInput for a part of them.
    """
    if train_layers == "all":
        return
    if adapter_of(model) is not None:
        raise BadInput("an adapter is trained as a whole", field="train_layers", fix="choose its blocks by lora.layers")
    if not 1 <= train_layers <= model.shape.layers:
        raise BadInput(f"{train_layers} of {model.shape.layers} layers cannot be trained", field="train_layers")
    # the later blocks; a tied head is the embedding, and stays frozen with it
    first = model.shape.layers - train_layers
    for name, parameter in model.named_parameters():
        block = int(name.split(".")[1]) if name.startswith("layers.") else None
        parameter.requires_grad = block >= first if block is not None else not name.startswith("tok_embeddings")


def fit(
    trainer: Trainer,
    examples: Callable[[int], Sequence[Any]],
    objective: Objective,
    run: Run,
    *,
    checkpoint_every: int,
    each: Callable[[int], dict[str, float]] | None = None,
) -> None:
    """Train until `trainer.steps`: step t learns from `examples(t)`, which must depend on t alone.

    Resumes from the newest checkpoint in `run.directory/checkpoints` to identical bits. `each(step)` may add metrics
    (an evaluation, say). Of several ranks each takes its share of a step's examples.
    """
    with interruption.deferred(), Checkpoints(run, checkpoint_every, trainer.ranks) as checkpoints:
        if (step := checkpoints.resume(lambda step, *saved: trainer.load(*saved))) is not None:
            run.say(f"resumed at step {step}")
        if trainer.ranks.leads:
            # steps after the checkpoint are taken again, and logged again
            run.rewind(trainer.step)
        if (warmup := trainer.optimiser.warmup_steps(trainer.steps)) > trainer.steps:
            share = trainer.optimiser.warmup < 1
            fix = "least_warmup=0 leaves the share alone" if share else "warmup=0.03 would make it 3% of them"
            run.say(f"{warmup:.0f} of {trainer.steps} steps are warm-up; optimiser.{fix}")
        while trainer.step < trainer.steps:
            began = time.monotonic()
            found = examples(trainer.step + 1)
            metrics = trainer.update(found, objective)
            if each is not None:
                metrics |= each(trainer.step)
            if trainer.ranks.leads:
                tokens = sum(tokens_in(example) for example in found)
                run.log(trainer.step, tokens=tokens, **metrics)
                speed = tokens / (time.monotonic() - began)
                run.progress(trainer.step, trainer.steps, loss=metrics["loss"], tokens_per_s=speed)
            checkpoints.after(trainer.step, trainer.state, last=trainer.step == trainer.steps)


Watch = Callable[[Role, Ranks, int], dict[str, float]]  # what a model is like after a step: metrics


class Items(Protocol):
    """Anything numbered: a list, or rows put together when they are asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def shuffled(items: Items, seed: int, batch_size: int) -> Callable[[int], list[Any]]:
    """`examples` for fit: every item once an epoch, in a fresh order; step t's batch depends only on (seed, t).

    An epoch is cut into as few batches of at most `batch_size` as it takes, of equal size but for one item.
    """
    per_epoch = steps_per_epoch(len(items), batch_size)
    size, larger = divmod(len(items), per_epoch)

    @lru_cache(maxsize=1)
    def order(epoch: int) -> Tensor:
        # made anew from the seed: no generator's state to keep in a checkpoint
        return torch.randperm(len(items), generator=torch.Generator().manual_seed(seed + epoch))

    def batch(step: int) -> list[Any]:
        epoch, at = divmod(step - 1, per_epoch)
        # equal parts: in a small last batch every item would weigh more than in the others
        start = at * size + min(at, larger)
        return [items[i] for i in order(epoch)[start : start + size + (at < larger)].tolist()]

    return batch


def steps_per_epoch(items: int, batch_size: int) -> int:
    return max(1, math.ceil(items / batch_size))


def total_steps(items: int, batch_size: int, epochs: float) -> int:
    # epochs may be a fraction: at 1.25 a quarter of the items is seen twice
    return max(1, round(steps_per_epoch(items, batch_size) * epochs))


class Fitting(Config):
    """What every stage that fits shares."""

    optimiser: Optimiser = Field(Optimiser(), description="AdamW and its schedule")
    batch_size: int = Field(64, ge=1, description="sequences (or pairs, or groups) per optimiser step, in the world")
    epochs: float = Field(2, gt=0)
    tokens_per_micro_batch: int = Field(8192, ge=1, description="tokens of one forward pass on one device")
    checkpoint_every: int = Field(200, ge=1, description="optimiser steps between checkpoints")
    train_layers: int | Literal["all"] = Field("all", description="all, or only the last N blocks and the head")
    lora: Lora | None = Field(None, description="train an adapter of this rank instead: {rank, alpha, layers, targets}")
    dtype: Dtype = Field("auto", description="what the model computes in; weights stay fp32")

    @model_validator(mode="after")
    def _one_way_to_train_less(self) -> Fitting:
        if self.lora is not None and self.train_layers != "all":
            raise ValueError("train_layers and lora exclude each other; lora.layers says which blocks it adapts")
        return self

    def to_train(self, model: Transformer, run: Run) -> Transformer:
        """The model as this run trains it: whole, or an adapter on its frozen trunk."""
        return to_train(model, self.lora, seed_of(run.seed, run.name, "adapter"))

    def fit(
        self,
        model: Transformer,
        items: Items,
        objective: Objective,
        run: Run,
        *,
        dropout: float = 0.0,
        watch: Watch | None = None,
    ) -> None:
        """Epochs over the items in fresh orders; `watch` sees the model after every step, and may add metrics."""
        placement = Placement.of(run, self.dtype)
        freeze(model, self.train_layers)
        trainer = Trainer(
            Role(placement.place(model)),
            self.optimiser,
            steps=total_steps(len(items), self.batch_size, self.epochs),
            ranks=placement.ranks,
            tokens_per_micro_batch=self.tokens_per_micro_batch,
            dropout=Dropout(dropout, seed_of(run.seed, run.name, "dropout")) if dropout else None,
        )
        each = None if watch is None else partial(watch, trainer.role, placement.ranks)
        order = shuffled(items, seed_of(run.seed, run.name, "order"), self.batch_size)
        fit(trainer, order, objective, run, checkpoint_every=self.checkpoint_every, each=each)
