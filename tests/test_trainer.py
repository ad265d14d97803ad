"""The trainer's step against a hand-written AdamW, the schedule, freezing, order, and a loop that resumes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import answered, language_model, reward_model

from ayni.errors import BadInput, BadNumbers
from ayni.files import Killed
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.records import TokenSequence
from ayni.run import Run
from ayni.stages import reward
from ayni.train.objectives import NextToken
from ayni.train.trainer import (
    Fitting,
    Optimiser,
    Trainer,
    fit,
    freeze,
    shuffled,
    steps_per_epoch,
    total_steps,
)

VOCAB = 40


def sequences(count: int, seed: int = 0) -> list[TokenSequence]:
    draw = np.random.default_rng(seed)
    return [answered(draw, vocab=VOCAB) for _ in range(count)]


# The schedule


def recipe_lr(t: int, peak: float, warmup: int, total: int, floor: float) -> float:
    """RECIPE §2: t < W: peak·t/W; else min + ½(peak − min)(1 + cos(π(t − W)/(T − W)))."""
    if t < warmup:
        return peak * t / warmup
    least = floor * peak
    return least + 0.5 * (peak - least) * (1 + math.cos(math.pi * (t - warmup) / (total - warmup)))


def test_the_papers_schedule() -> None:
    paper = Optimiser(lr=3e-4, warmup=2000)
    for t in (1, 1000, 1999, 2000, 2001, 250_000, 500_000):
        assert paper.lr_at(t, 500_000) == pytest.approx(recipe_lr(t, 3e-4, 2000, 500_000, 0.1), rel=1e-12)
    assert paper.lr_at(2000, 500_000) == pytest.approx(3e-4)
    assert paper.lr_at(500_000, 500_000) == pytest.approx(3e-5)


def test_limas_line() -> None:
    lima = Optimiser(lr=1e-5, schedule="linear", warmup=0, floor=0.1)  # 1e-5 to 1e-6 (Zhou et al. 2023, §3)
    for t in (1, 40, 500):
        assert lima.lr_at(t, 500) == pytest.approx(1e-5 - 0.9e-5 * t / 500, rel=1e-12)
    assert lima.lr_at(600, 500) == pytest.approx(1e-6)


def test_a_share_of_warm_up_a_floor_and_a_constant() -> None:
    share = Optimiser(lr=1.0, warmup=0.03, floor=0.0)
    assert [share.lr_at(t, 100) for t in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert share.lr_at(100, 100) == pytest.approx(0, abs=1e-12)
    assert all(share.lr_at(t, 100) > share.lr_at(t + 1, 100) for t in range(3, 100))
    at_least = Optimiser(lr=1.0, warmup=0.03, least_warmup=5, floor=0.0)
    assert [at_least.lr_at(t, 100) for t in (1, 4, 5)] == pytest.approx([0.2, 0.8, 1])
    assert at_least.lr_at(15, 500) == 1  # 3% of 500 are more
    assert reward.Config().optimiser.warmup_steps(40) == 5  # paper §3.2.2
    assert Optimiser(warmup=0, least_warmup=5).warmup_steps(40) == 0
    assert Optimiser(warmup=2, least_warmup=5).warmup_steps(40) == 2
    constant = Optimiser(lr=0.5, schedule="constant", warmup=2)
    assert [constant.lr_at(t, 9) for t in (1, 2, 3, 9)] == [0.25, 0.5, 0.5, 0.5]
    none = Optimiser(lr=0.5, warmup=0)
    assert none.lr_at(1, 1) == pytest.approx(0.05)
    assert none.lr_at(1, 10**6) == pytest.approx(0.5)


# One step


def adamw(
    p: torch.Tensor, grads: list[torch.Tensor], rates: list[float], optimiser: Optimiser, decay: float
) -> torch.Tensor:
    """Loshchilov & Hutter 2019, algorithm 2, with ε outside the root."""
    (b1, b2), m, v = optimiser.betas, torch.zeros_like(p), torch.zeros_like(p)
    for t, (g, lr) in enumerate(zip(grads, rates, strict=True), 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        p = p - lr * decay * p - lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + optimiser.eps)
    return p


def test_three_steps_are_adamw_on_clipped_mean_gradients() -> None:
    settings = Optimiser(lr=1e-2, warmup=2, clip=0.5)
    model = language_model(1, vocab=VOCAB, dtype=torch.float64)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    twin = language_model(1, vocab=VOCAB, dtype=torch.float64)
    trainer, objective = Trainer(Role(model), settings, steps=3), NextToken()
    grads: dict[str, list[torch.Tensor]] = {name: [] for name in start}
    norms, rates = [], [settings.lr_at(t, 3) for t in (1, 2, 3)]
    for t in range(3):
        examples = sequences(4, t)
        batch = objective.batch(examples)
        twin.load_state_dict(model.state_dict())
        twin.zero_grad()
        (objective.loss(Role(twin), batch)[0] / batch.mask.sum()).backward()
        found = {name: p.grad.clone() for name, p in twin.named_parameters() if p.grad is not None}
        norm = math.sqrt(sum(float((g * g).sum()) for g in found.values()))
        for name, gradient in found.items():
            grads[name].append(gradient * min(1.0, settings.clip / norm))
        metrics = trainer.update(examples, objective)
        assert metrics["norm"] == pytest.approx(norm)
        assert metrics["lr"] == pytest.approx(rates[t])
        norms.append(norm)
    assert max(norms) > settings.clip
    for name, parameter in model.named_parameters():
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        expected = adamw(start[name], grads[name], rates, settings, decay)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recomputed_activations_are_the_same_bits_and_not_kept(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, kept = [], []
    for recompute in ("0", "1"):
        monkeypatch.setenv("AYNI_RECOMPUTE", recompute)
        model = Placement(dtype=dtype).place(language_model(1, vocab=VOCAB))
        trainer = Trainer(Role(model), Optimiser(lr=1e-2), steps=3)
        held = 0

        def pack(x: torch.Tensor) -> torch.Tensor:
            nonlocal held
            held += x.nbytes
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            NextToken().loss(trainer.role, NextToken().batch(sequences(6)))
        for step in range(3):
            trainer.update(sequences(6, step), NextToken())
        weights.append({name: p.detach() for name, p in model.named_parameters()})
        kept.append(held)
    assert kept[1] < 0.3 * kept[0]
    for name, weight in weights[0].items():
        assert torch.equal(weights[1][name], weight), name


def test_bad_numbers_change_nothing() -> None:
    model = language_model(1, vocab=VOCAB)
    trainer, objective = Trainer(Role(model), Optimiser(), steps=5), NextToken()
    with torch.no_grad():
        model.layers[0].attention.wq.weight[0, 0] = float("nan")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(BadNumbers, match="step 1: the loss is nan; lower the learning rate"):
        trainer.update(sequences(3), objective)
    assert trainer.step == 0
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.nan_to_num(), before[name].nan_to_num())
        assert parameter.grad is None


def test_idling_touches_every_parameter_and_adds_nothing() -> None:
    for model in (language_model(1, vocab=VOCAB), reward_model(1, vocab=VOCAB)):
        Role(model).idle().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() == 0, name


# Freezing


@pytest.mark.parametrize("last", [1, 2, 3])
def test_only_the_last_layers_and_the_head_learn(last: int) -> None:
    model = language_model(1, vocab=VOCAB, layers=3)
    freeze(model, last)
    trainer, objective = Trainer(Role(model), Optimiser(lr=1e-2), steps=2), NextToken()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer.update(sequences(3), objective)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    free = {f"layers.{i}." for i in range(3 - last, 3)}
    expected = {n for n in before if n.startswith(tuple(free)) or n in ("norm.weight", "output.weight")}
    assert moved == expected == set(trainer.parameters)


@pytest.mark.parametrize("last", [-1, 0, 3])
def test_layers_that_are_not_there_cannot_be_trained(last: int) -> None:
    with pytest.raises(BadInput, match=f"train_layers: {last} of 2 layers"):
        freeze(language_model(1, vocab=VOCAB), last)


# Order


@pytest.mark.parametrize(("count", "size"), [(12, 4), (13, 4), (100, 64), (5, 64), (1, 1), (7, 7)])
def test_every_item_once_an_epoch(count: int, size: int) -> None:
    items = list(range(count))
    batch, per_epoch = shuffled(items, 3, size), steps_per_epoch(count, size)
    epochs = [[batch(epoch * per_epoch + i + 1) for i in range(per_epoch)] for epoch in range(3)]
    for epoch in epochs:
        assert sorted(x for part in epoch for x in part) == items
        sizes = [len(part) for part in epoch]
        assert max(sizes) <= size
        assert max(sizes) - min(sizes) <= 1
    if count > 10:
        assert epochs[0] != epochs[1] != epochs[2]


def test_a_batch_depends_on_seed_and_step_only() -> None:
    items = list(range(50))
    forward = shuffled(items, 3, 8)
    backward = shuffled(items, 3, 8)
    there = [forward(step) for step in range(1, 30)]
    back = [backward(step) for step in range(29, 0, -1)][::-1]
    assert there == back
    assert [shuffled(items, 4, 8)(step) for step in range(1, 30)] != there


def test_how_many_steps() -> None:
    assert total_steps(27_540, 64, 2) == 2 * 431  # the paper's fine-tuning: 430.3 batches of 64
    assert total_steps(10, 64, 1) == 1
    assert total_steps(128, 64, 0.25) == 1
    assert total_steps(128, 64, 1.5) == 3


# The loop


def train(
    directory: Path, steps: int = 7, *, kill: int | None = None, each: Any = None, every: int = 3
) -> tuple[Trainer, list[dict[str, Any]]]:
    role = Role(language_model(1, vocab=VOCAB))
    trainer = Trainer(role, Optimiser(lr=1e-2), steps=steps, tokens_per_micro_batch=20)
    run = Run(directory, name="loop", quiet=True)
    order = shuffled(sequences(11), 0, 3)

    def examples(step: int) -> list[Any]:
        if step == kill:
            raise Killed(f"before step {step}")
        return order(step)

    fit(trainer, examples, NextToken(), run, checkpoint_every=every, each=each)
    return trainer, run.metrics()


@pytest.mark.parametrize("kill", range(1, 8))
def test_a_killed_loop_goes_on_to_the_same_bits(kill: int, tmp_path: Path) -> None:
    whole, metrics = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "killed", kill=kill)
    again, same = train(tmp_path / "killed")
    assert same == metrics
    assert [line["step"] for line in metrics] == [1, 2, 3, 4, 5, 6, 7]
    for key, tensor in whole.state()[0].items():
        assert torch.equal(tensor, again.state()[0][key]), key


def test_what_each_measures_is_logged_once(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, kill=6, each=lambda step: {"twice": 2 * step})
    _, metrics = train(tmp_path, each=lambda step: {"twice": 2 * step})
    assert [line["twice"] for line in metrics] == [2, 4, 6, 8, 10, 12, 14]
    assert all(line["tokens"] > 0 and line["loss"] > 0 for line in metrics)


def test_state_and_load_are_inverse() -> None:
    first, _objective = Trainer(Role(language_model(1, vocab=VOCAB)), Optimiser(lr=1e-2), steps=9), NextToken()
    for t in range(3):
        first.update(sequences(3, t), _objective)
    tensors, numbers = first.state("actor.")
    second = Trainer(Role(language_model(2, vocab=VOCAB)), Optimiser(lr=1e-2), steps=9)
    second.load({name: tensor.clone() for name, tensor in tensors.items()}, numbers, "actor.")
    assert second.step == 3
    for trainer in (first, second):
        trainer.update(sequences(3, 9), _objective)
    for key, tensor in first.state()[0].items():
        assert torch.equal(tensor, second.state()[0][key]), key


def test_the_dtype_is_chosen_once_and_kept(tmp_path: Path) -> None:
    run, model = Run(tmp_path, name="fit", quiet=True), language_model(1, vocab=VOCAB)
    Placement.of(run, "bf16").place(model)
    assert model.dtype == torch.bfloat16
    Placement.of(Run(tmp_path, name="fit", quiet=True), "fp32").place(model)
    assert model.dtype == torch.bfloat16
    assert model.head.dtype == torch.float32


def test_bf16_learns_too(tmp_path: Path) -> None:
    model, rows = language_model(1, vocab=VOCAB), sequences(8)
    config = Fitting(dtype="bf16", batch_size=8, epochs=30, optimiser=Optimiser(lr=1e-2))
    run = Run(tmp_path, name="fit", quiet=True)
    config.fit(model, rows, NextToken(), run)
    history = [line["loss"] for line in run.metrics()]
    assert len(history) == 30
    assert history[-1] < history[0] - 2
