"""One gradient whatever the cut, the order and the number of processes, for every objective; two gloo processes."""

from __future__ import annotations

import json
import os
import socket
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as processes
from objective_cases import CASES, Case
from online_parts import LIKED, PROMPTS, SeededEngine, loop_of
from small_stages import Small, prepare
from tiny import answered, language_model, tokenizer

from ayni.model.adapters import Lora
from ayni.model.role import Role
from ayni.model_directory import load_weights
from ayni.parallel import Ranks, leave
from ayni.run import Run
from ayni.train import checkpoint
from ayni.train.gradient import micro_batches
from ayni.train.objectives import NextToken
from ayni.train.trainer import Optimiser, Trainer, fit, shuffled

Gradients = dict[str, torch.Tensor]
EOS = tokenizer().eos
LIMIT = {torch.float64: 1e-10, torch.float32: 1e-5}
DTYPES = list(LIMIT)
COUNT = 7  # examples of a step
WHOLE = 10**9  # a budget for one micro-batch
# What two processes do: (examples, budget) → how many micro-batches each runs
SPLITS = {(7, WHOLE): (1, 1), (7, 1): (4, 3), (1, 1): (1, 0)}


def gradient(
    case: Case, examples: list[Any], dtype: torch.dtype, budget: int, ranks: Ranks | None = None
) -> tuple[Gradients, dict[str, float], int]:
    """What the trainer hands to Adam (before any clipping), its metrics, and its number of micro-batches."""
    role = Role(case.model(dtype=dtype))
    trainer = Trainer(role, Optimiser(clip=1e30), steps=1, ranks=ranks, tokens_per_micro_batch=budget)
    found: Gradients = {}

    def step() -> None:
        found.update({name: p.grad.clone() for name, p in trainer.parameters.items() if p.grad is not None})

    trainer.adam.step = step  # type: ignore[method-assign,assignment]
    metrics = trainer.update(examples, case.objective)
    assert found.keys() == trainer.parameters.keys()
    return found, metrics, sum(map(len, micro_batches(trainer.role, examples, case.objective, trainer.ranks, budget)))


@cache
def whole(name: str, dtype: torch.dtype, count: int = COUNT) -> tuple[Gradients, dict[str, float], int]:
    """The reference: one process, one micro-batch."""
    return gradient(CASES[name], CASES[name].examples(count), dtype, WHOLE)


def assert_agree(ours: Gradients, theirs: Gradients, dtype: torch.dtype) -> None:
    """Relative L2 of every parameter's gradient."""
    for name, gradient in theirs.items():
        scale = gradient.double().norm()
        assert scale > 0, name
        assert (ours[name].double() - gradient.double()).norm() / scale <= LIMIT[dtype], name


def assert_same_metrics(ours: dict[str, float], theirs: dict[str, float]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp64", "fp32"])
@pytest.mark.parametrize("name", CASES)
def test_any_cut_gives_the_same_gradient(name: str, dtype: torch.dtype) -> None:
    theirs, metrics, one = whole(name, dtype)
    assert one == 1
    numbers = set()
    for budget in (1, 30, 60, 120):
        ours, ours_metrics, number = gradient(CASES[name], CASES[name].examples(COUNT), dtype, budget)
        assert_agree(ours, theirs, dtype)
        assert_same_metrics(ours_metrics, metrics)
        numbers.add(number)
    assert len(numbers) >= 3


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp64", "fp32"])
@pytest.mark.parametrize("name", CASES)
def test_any_number_of_cores_gives_the_same_gradient_and_always_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype
) -> None:
    theirs, metrics, _ = whole(name, dtype)
    monkeypatch.setattr("ayni.train.gradient.TOKENS", 1)
    torch.set_num_threads(3)
    try:
        runs = [gradient(CASES[name], CASES[name].examples(COUNT), dtype, 120) for _ in range(3)]
    finally:
        torch.set_num_threads(1)
    for ours, ours_metrics, number in runs:
        assert number >= 3
        assert_agree(ours, theirs, dtype)
        assert_same_metrics(ours_metrics, metrics)
        for parameter, values in ours.items():
            assert torch.equal(values, runs[0][0][parameter])


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp64", "fp32"])
@pytest.mark.parametrize("name", CASES)
def test_any_order_gives_the_same_gradient(name: str, dtype: torch.dtype) -> None:
    theirs, metrics, _ = whole(name, dtype)
    examples = CASES[name].examples(COUNT)
    for seed, budget in ((1, WHOLE), (2, 60)):
        order = np.random.default_rng(seed).permutation(len(examples))
        ours, ours_metrics, _ = gradient(CASES[name], [examples[i] for i in order], dtype, budget)
        assert_agree(ours, theirs, dtype)
        assert_same_metrics(ours_metrics, metrics)


# Two processes. They are started once; each writes what it found, and the tests read it.


def fitted(directory: Path, ranks: Ranks, steps: int = 6) -> Trainer:
    """A few steps through THE loop, in fp64."""
    examples = [answered(np.random.default_rng(i), vocab=40) for i in range(11)]
    role, optimiser = Role(language_model(1, vocab=40, dtype=torch.float64)), Optimiser(lr=1e-3, warmup=0)
    trainer = Trainer(role, optimiser, steps=steps, ranks=ranks, tokens_per_micro_batch=16)
    run = Run(directory, name="fit", quiet=True)
    fit(trainer, shuffled(examples, 0, 3), NextToken(), run, checkpoint_every=2)
    return trainer


LOOPS: dict[str, dict[str, Any]] = {
    "whole": {},
    "lora": {"lora": Lora(rank=4, alpha=8)},
    # goes back after the first iteration and after the last: every process must come to the same conclusion
    "stateful": {
        "iterations": 4,
        "kl_budget": 1.0,
        "over_budget": "rollback",
        "adaptive_kl": {"target": 1.0, "horizon": 50},
        "value_normalisation": True,
        "reward_clip": 1.5,
    },
}
SCRIPT = [[LIKED, LIKED, EOS], [40, 41], [LIKED, EOS], [40, 41, 42, EOS], [LIKED]]


def scripted(directory: Path, ranks: Ranks, **settings: Any) -> dict[str, torch.Tensor]:
    """The weights of policy and critic after a few iterations of a scripted engine and a scripted reward."""
    loop = loop_of(directory, engine=SeededEngine(SCRIPT, ranks), ranks=ranks, **{"iterations": 3, "n": 2, **settings})
    loop.train(PROMPTS)
    assert loop.critic is not None
    learners = {"policy": loop.policy, "critic": loop.critic}
    return {f"{role} {name}": p.detach() for role, of in learners.items() for name, p in of.role.trainable().items()}


def work(rank: int, port: int, directory: Path, ppo: Small) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
    ranks, save = Ranks.current(), checkpoint.save_checkpoint
    assert (ranks.rank, ranks.size) == (rank, 2)

    def slowly(*given: Any) -> None:
        time.sleep(0.3)
        save(*given)

    checkpoint.save_checkpoint = slowly  # a disk that takes its time: nobody may go on as if it had written
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        for dtype in DTYPES:
            for count, budget in SPLITS:
                found[f"{name} {dtype} {count} {budget}"] = gradient(case, case.examples(count), dtype, budget, ranks)
    found["sum"] = ranks.sum(torch.tensor([rank + 1.0, 10.0])).tolist()
    found["max"] = ranks.max(3 - rank)
    found["gathered"] = [ranks.gather(ranks.share(list(range(n)))) for n in (0, 1, 2, 7)]
    found["fit"] = fitted(directory / "fit", ranks).state()[0]
    found["resumed"] = fitted(directory / "fit", ranks, steps=6).step
    for name, settings in LOOPS.items():
        found[f"loop, {name}"] = scripted(directory / name, ranks, **settings)
    found["ppo"] = [ppo.execute(directory / "ppo"), ppo.execute(directory / "ppo")]
    ranks.barrier()
    torch.save(found, directory / f"rank-{rank}.pt")
    leave(0)  # as every command of several processes does: Python taking it apart would abort it now and then


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    directory = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = (port, directory, prepare(directory / "inputs")["ppo"])
    context = processes.start_processes(work, given, nprocs=2, join=False, start_method="spawn")
    try:
        for _ in range(240):
            if context.join(timeout=1):
                break
        else:
            pytest.fail("the two processes wait for each other")
    finally:
        for process in context.processes:
            process.kill()
    found = [torch.load(directory / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]
    return [{**part, "directory": str(directory)} for part in found]


@pytest.mark.parametrize("split", SPLITS, ids=["even", "uneven", "one idle"])
@pytest.mark.parametrize("dtype", DTYPES, ids=["fp64", "fp32"])
@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_the_same_gradient(
    name: str, dtype: torch.dtype, split: tuple[int, int], two: list[dict[str, Any]]
) -> None:
    theirs, metrics, _ = whole(name, dtype, split[0])
    numbers = []
    for found in two:
        ours, ours_metrics, number = found[f"{name} {dtype} {split[0]} {split[1]}"]
        assert_agree(ours, theirs, dtype)
        assert_same_metrics(ours_metrics, metrics)
        numbers.append(number)
    assert sorted(numbers, reverse=True) == list(SPLITS[split])  # one process idled where it has fewer


def test_collectives(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert found["sum"] == [3, 20]
        assert found["max"] == 3
        assert found["gathered"] == [list(range(n)) for n in (0, 1, 2, 7)]


def test_a_whole_fit_in_two_processes_ends_at_the_same_weights(two: list[dict[str, Any]], tmp_path: Path) -> None:
    alone = fitted(tmp_path, Ranks()).state()[0]
    for found in two:
        assert found["resumed"] == 6
        for name, tensor in alone.items():
            torch.testing.assert_close(found["fit"][name], tensor, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("name", LOOPS)
def test_the_online_loop_given_its_parts_in_two_processes(name: str, two: list[dict[str, Any]], tmp_path: Path) -> None:
    """Whole models and adapters; the engine and the reward are scripted, nothing is patched."""
    alone = scripted(tmp_path, Ranks(), **LOOPS[name])
    assert ("over_budget" in (tmp_path / "metrics.jsonl").read_text()) == (name == "stateful")
    start = loop_of(tmp_path / "start", lora=LOOPS[name].get("lora")).policy.role.trainable()
    moved = {key: (alone[f"policy {key}"] - p).abs().max().item() for key, p in start.items()}
    assert max(moved.values()) > 1e-3
    for found in two:
        assert found[f"loop, {name}"].keys() == alone.keys()
        for key, tensor in alone.items():
            torch.testing.assert_close(found[f"loop, {name}"][key], tensor, rtol=1e-3, atol=1e-5, msg=key)


def test_ppo_in_two_processes_is_ppo(two: list[dict[str, Any]], tmp_path: Path) -> None:
    """Rollouts, scores and gradients are shared out, and put together in the same order."""
    directory = Path(two[0]["directory"])
    prepare(tmp_path / "inputs")["ppo"].execute(tmp_path / "ppo")
    shared, alone = (
        [json.loads(line) for line in (place / "ppo" / "metrics.jsonl").read_text().splitlines()]
        for place in (directory, tmp_path)
    )
    assert [found["ppo"] for found in two] == [["ran", "reused"]] * 2
    assert len(shared) == len(alone) == 8  # five iterations and three looks at validation prompts
    for ours, theirs in zip(shared, alone, strict=True):
        assert_same_metrics(ours, theirs)
    weights = [load_weights(place / "ppo" / "model") for place in (directory, tmp_path)]
    for ours, theirs in zip(*(model.parameters() for model in weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_alone_every_collective_is_the_identity() -> None:
    ranks = Ranks()
    x = torch.tensor([1.0, 2.0])
    assert ranks.sum(x) is x
    assert ranks.max(5) == 5
    assert ranks.share([1, 2, 3]) == [1, 2, 3]
    assert ranks.gather([1, 2, 3]) == [1, 2, 3]
    ranks.barrier()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_are_even_and_complete(size: int) -> None:
    for count in range(12):
        shares = [Ranks(rank, size).share(list(range(count))) for rank in range(size)]
        assert sorted(x for share in shares for x in share) == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
