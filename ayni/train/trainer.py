"""The trainer (one optimiser step from any cut of its examples) and `fit`, THE loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import Any, Literal

import torch
from torch import Tensor

from ayni.config import Config, Field
from ayni.errors import BadInput, BadNumbers
from ayni.model.adapters import adapter_of
from ayni.model.layout import Layout
from ayni.model.transformer import Transformer
from ayni.run import Run
from ayni.seeds import seed_of
from ayni.train.batch import cut
from ayni.train.checkpoint import load_checkpoint, save_checkpoint
from ayni.train.objectives import Metrics, Objective
from ayni.train.parallel import World, world
from ayni.train.precision import DTYPES, NAMES, Dtype, compute_dtype


class Optimiser(Config):
    """AdamW and its schedule; the defaults are the paper's (§2.2, §3.1)."""

    lr: float = Field(2e-5, gt=0, description="peak learning rate")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="after the warm-up")
    warmup: float = Field(0.03, ge=0, description="steps of linear warm-up; below 1, a share of all steps")
    floor: float = Field(0.1, ge=0, le=1, description="the cosine ends at this share of the peak")
    weight_decay: float = Field(0.1, ge=0, description="on matrices, not on norms")
    betas: tuple[float, float] = Field((0.9, 0.95), strict=False)
    eps: float = Field(1e-5, gt=0)
    clip: float = Field(1.0, gt=0, description="largest global gradient norm")

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate of step 1…steps: peak·t/warm-up, then cosine to floor·peak (RECIPE §2)."""
        warmup = self.warmup if self.warmup >= 1 else math.ceil(self.warmup * steps)
        if step <= warmup:
            return self.lr * step / max(warmup, 1)
        if self.schedule == "constant":
            return self.lr
        done = (step - warmup) / max(steps - warmup, 1)
        return self.lr * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


class Trainer:
    """A model, its optimiser, and the step counter they share."""

    def __init__(
        self,
        model: Transformer,
        optimiser: Optimiser,
        *,
        steps: int,
        world: World | None = None,
        train_layers: int | Literal["all"] = "all",
    ) -> None:
        self.model, self.optimiser, self.steps, self.step = model, optimiser, steps, 0
        self.world = world or World()
        freeze(model, train_layers)
        if adapter_of(model) is None:
            model.base = None  # its weights are about to leave what their directory holds
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
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

    def update(self, micro_batches: Many[Any], objective: Objective) -> dict[str, float]:
        """One optimiser step: forward and backward of each micro-batch, reduce, clip, step.

        The loss is a sum divided once by the world's count, so neither the cut nor the world size changes the
        gradient. Returns loss, gradient norm, learning rate and the objective's metrics. Raises BadNumbers.
        """
        batches = [batch.to(self.model.device) for batch in micro_batches]
        count = self.world.sum(_total([objective.count(b) for b in batches], self.model))
        sums: list[Tensor] = []
        seen: list[Metrics] = []
        for batch in batches:
            loss, metrics = objective.loss(self.model, batch)
            (loss / count).backward()
            sums.append(loss.detach())
            seen.append(metrics)
        for _ in range(self.world.max(len(batches)) - len(batches)):
            idle(self.model).backward()
        self.world.sum_gradients(self.parameters.values())
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.optimiser.clip)
        loss = self.world.sum(_total(sums, self.model)) / count
        if not torch.isfinite(norm) or not torch.isfinite(loss):
            self.adam.zero_grad()
            raise BadNumbers(
                f"step {self.step + 1}: loss {loss:.4g}, gradient norm {norm:.4g}; lower the learning rate"
            )
        self.step += 1
        lr = self.optimiser.lr_at(self.step, self.steps)
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        self.adam.zero_grad()
        return {"loss": float(loss), "norm": float(norm), "lr": lr, **self._divide(seen)}

    def _divide(self, seen: list[Metrics]) -> dict[str, float]:
        # a process that ran no micro-batch has seen no name, and must still take part in the sum
        names = sorted(set().union(*self.world.gather([{name for metrics in seen for name in metrics}])))
        totals = torch.zeros(len(names), 2, dtype=torch.float64, device=self.model.device)
        for metrics in seen:
            for i, name in enumerate(names):
                if name in metrics:
                    totals[i] += torch.stack([x.double() for x in metrics[name]])
        totals = self.world.sum(totals) if names else totals
        return {name: float(s / n) for name, (s, n) in zip(names, totals.tolist(), strict=True) if n}

    def state(self, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything a resume needs: the weights that learn and Adam's moments by name, and the step."""
        tensors: dict[str, Tensor] = {f"{prefix}model.{name}": p for name, p in self.parameters.items()}
        for name, p in self.parameters.items():
            for key, value in self.adam.state[p].items():
                tensors[f"{prefix}adam.{key}.{name}"] = value
        return tensors, {f"{prefix}step": self.step}

    def load(self, tensors: dict[str, Tensor], numbers: dict[str, Any], prefix: str = "") -> None:
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(tensors[f"{prefix}model.{name}"])
        for name, p in self.parameters.items():
            keys = ("step", "exp_avg", "exp_avg_sq")
            moments = {key: tensors.get(f"{prefix}adam.{key}.{name}") for key in keys}
            if moments["step"] is not None:
                self.adam.state[p] = {key: value.to(p.device) for key, value in moments.items() if value is not None}
        self.step = numbers[f"{prefix}step"]


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
    first = model.shape.layers - train_layers
    for name, parameter in model.named_parameters():
        block = int(name.split(".")[1]) if name.startswith("layers.") else None
        parameter.requires_grad = block >= first if block is not None else not name.startswith("tok_embeddings")


def idle(model: Transformer) -> Tensor:
    """A zero that touches every parameter: what a rank with fewer micro-batches runs, so that none waits."""
    hidden = model(torch.zeros(1, dtype=torch.long, device=model.device), Layout.of([1], model.device))
    return 0 * (hidden.sum() + model.head.sum())


def _total(parts: list[Tensor], model: Transformer) -> Tensor:
    zero = torch.zeros((), dtype=torch.float64, device=model.device)
    return torch.stack([zero, *(p.double() for p in parts)]).sum()


def fit(
    trainer: Trainer,
    examples: Callable[[int], Many[Any]],
    objective: Objective,
    run: Run,
    *,
    tokens_per_micro_batch: int,
    checkpoint_every: int,
    each: Callable[[int], dict[str, float]] | None = None,
) -> None:
    """Train until `trainer.steps`: step t learns from `examples(t)`, which must depend on t alone.

    Resumes from the newest checkpoint in `run.directory/checkpoints` to identical bits. `each(step)` may add metrics
    (an evaluation, say). Under torchrun every process takes its share of each step's examples.
    """
    place = trainer.world
    checkpoints = run.directory / "checkpoints"
    if saved := load_checkpoint(checkpoints):
        step, tensors, numbers = saved
        trainer.load(tensors, numbers)
        run.say(f"resumed at step {step}")
    if place.rank == 0:
        run.rewind(trainer.step)
    if (warmup := trainer.optimiser.warmup) > trainer.steps:
        run.say(f"{warmup:.0f} of {trainer.steps} steps are warm-up; optimiser.warmup=0.03 would make it 3% of them")
    while trainer.step < trainer.steps:
        began = time.monotonic()
        mine = place.share(examples(trainer.step + 1))
        batches = [objective.batch(part) for part in cut(mine, tokens_per_micro_batch)]
        tokens = sum(len(batch.tokens) for batch in batches)
        metrics = trainer.update(batches, objective)
        if each is not None:
            metrics |= each(trainer.step)
        if place.rank == 0:
            speed = tokens * place.size / (time.monotonic() - began)
            run.log(trainer.step, tokens=tokens, **metrics)
            run.progress(trainer.step, trainer.steps, loss=metrics["loss"], tokens_per_s=speed)
        if trainer.step % checkpoint_every == 0 and trainer.step < trainer.steps:
            if place.rank == 0:
                save_checkpoint(checkpoints, trainer.step, *trainer.state())
            place.barrier()


def shuffled(items: Many[Any], seed: int, batch_size: int) -> Callable[[int], list[Any]]:
    """`examples` for fit: every item once an epoch, in a fresh order; step t's batch depends only on (seed, t).

    An epoch is cut into as few batches of at most `batch_size` as it takes, of equal size but for one item.
    """
    per_epoch = steps_per_epoch(len(items), batch_size)

    def batch(step: int) -> list[Any]:
        epoch, at = divmod(step - 1, per_epoch)
        generator = torch.Generator().manual_seed(seed + epoch)
        order = torch.randperm(len(items), generator=generator)
        return [items[i] for i in order.tensor_split(per_epoch)[at].tolist()]

    return batch


def steps_per_epoch(items: int, batch_size: int) -> int:
    return max(1, math.ceil(items / batch_size))


def total_steps(items: int, batch_size: int, epochs: float) -> int:
    return max(1, round(steps_per_epoch(items, batch_size) * epochs))


class Fitting(Config):
    """What every stage that fits shares."""

    optimiser: Optimiser = Field(Optimiser(), description="AdamW and its schedule")
    batch_size: int = Field(64, ge=1, description="sequences (or pairs, or groups) per optimiser step, in the world")
    epochs: float = Field(2, gt=0)
    tokens_per_micro_batch: int = Field(8192, ge=1, description="tokens of one forward pass on one device")
    checkpoint_every: int = Field(200, ge=1, description="optimiser steps between checkpoints")
    train_layers: int | Literal["all"] = Field("all", description="all, or only the last N blocks and the head")
    dtype: Dtype = Field("auto", description="what the model computes in; weights stay fp32")

    def settle(self, model: Transformer, run: Run) -> World:
        """Puts the model on this process's device, in the dtype that is chosen once and kept on resume."""
        place = world()
        model.to(place.device).dtype = DTYPES[run.tuned(dtype=NAMES[compute_dtype(self.dtype, place.device)])["dtype"]]
        return place

    def trainer(self, model: Transformer, items: int, run: Run) -> Trainer:
        """The trainer of this run, over `items` examples."""
        place, steps = self.settle(model, run), total_steps(items, self.batch_size, self.epochs)
        return Trainer(model, self.optimiser, steps=steps, world=place, train_layers=self.train_layers)

    def fit(self, model: Transformer, items: Many[Any], objective: Objective, run: Run) -> None:
        """Epochs over the items in fresh orders."""
        trainer = self.trainer(model, len(items), run)
        fit(
            trainer,
            shuffled(items, seed_of(run.seed, run.name, "order"), self.batch_size),
            objective,
            run,
            tokens_per_micro_batch=self.tokens_per_micro_batch,
            checkpoint_every=self.checkpoint_every,
        )
