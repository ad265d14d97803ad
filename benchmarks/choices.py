"""Each choice the code makes for a CPU beside the other way: attention, number format, rounded rows, processes.

The two ways alternate, so that a drift of the machine's speed meets both; what is printed is the median ratio of
neighbours (above 1: our choice is faster) with the smallest and largest, as one JSON object.
Run: python benchmarks/choices.py
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F

from ayni.cli.environment import prepare
from ayni.model import attention, heads
from ayni.model import rounding as rounding_rules
from ayni.model.role import Role
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise
from ayni.parallel import Ranks, leave
from ayni.records import TokenSequence
from ayni.seeds import rng
from ayni.train.objectives import NextToken
from ayni.train.trainer import Optimiser, Trainer

SHAPE = Shape(192, 4, 6, 2, 512, 1024, 256, tied=True)
REPEATS = 9


def ragged(draw: np.random.Generator) -> list[TokenSequence]:
    """32 dialogues as the village has them, 20 to 80 tokens each."""
    return rows(draw, draw.integers(20, 80, 32).tolist())


def packed(draw: np.random.Generator) -> list[TokenSequence]:
    """16 full rows, as in pretraining."""
    return rows(draw, [128] * 16)


def rows(draw: np.random.Generator, lengths: list[int]) -> list[TokenSequence]:
    tokens = [draw.integers(3, SHAPE.vocab, n).tolist() for n in lengths]
    return [TokenSequence(row, [False] + [True] * (len(row) - 1)) for row in tokens]


BATCHES = {"packed": packed, "ragged": ragged}


class Learner:
    """A model that takes steps on fresh batches, as training does: no two ragged batches are of one length."""

    def __init__(self, dtype: torch.dtype) -> None:
        model = initialise(Transformer(SHAPE), 0)
        model.dtype = dtype
        self.trainer, self.objective = (
            Trainer(Role(model), Optimiser(lr=1e-4), steps=10**6, ranks=Ranks.current()),
            NextToken(),
        )
        self.draw = rng("benchmark", "steps")

    def steps(self, kind: str, count: int = 12) -> float:
        """Seconds per token."""
        began, tokens = time.perf_counter(), 0
        for _ in range(count):
            examples = BATCHES[kind](self.draw)
            tokens += sum(len(s.tokens) for s in examples)
            self.trainer.update(examples, self.objective)
        return (time.perf_counter() - began) / tokens


def ratios(ours: Callable[[], float], theirs: Callable[[], float], repeats: int = REPEATS) -> dict[str, float]:
    ours(), theirs()
    seen = sorted(1 / (ours() / theirs()) for _ in range(repeats))
    return {"ratio": round(statistics.median(seen), 2), "least": round(seen[0], 2), "most": round(seen[-1], 2)}


def attention_rows(length: int) -> dict[str, float]:
    """Plain softmax(QKᵀ)V beside torch's fused kernel, forward and backward, bf16."""

    def once(f: Callable[..., torch.Tensor]) -> Callable[[], float]:
        size = (4096 // length, 6, length, 32)
        q, k, v = (torch.randn(size, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))

        def run() -> float:
            began = time.perf_counter()
            for _ in range(5):
                f(q, k, v).sum().backward()
            return time.perf_counter() - began

        return run

    def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    return ratios(once(attention.plain_attention), once(fused))


@contextlib.contextmanager
def unrounded() -> Iterator[None]:
    def as_it_is(rows: int, dtype: torch.dtype, device: torch.device) -> int:
        return rows

    with patch.object(rounding_rules, "rounded", as_it_is), patch.object(heads, "rounded", as_it_is):
        yield


def rounding() -> dict[str, float]:
    """Ragged batches with rows rounded up, beside batches as they come; on one thread, as one of two processes."""
    torch.set_num_threads(1)
    ours, theirs = Learner(torch.bfloat16), Learner(torch.bfloat16)

    def as_they_come() -> float:
        with unrounded():
            return theirs.steps("ragged")

    return ratios(lambda: ours.steps("ragged"), as_they_come)


def formats(kind: str) -> dict[str, float]:
    """bf16 beside fp32."""
    ours, theirs = Learner(torch.bfloat16), Learner(torch.float32)
    return ratios(lambda: ours.steps(kind), lambda: theirs.steps(kind))


def processes(kind: str) -> dict[str, float]:
    """Two processes of one thread beside one process of two."""

    def run(count: int) -> float:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            port = str(server.getsockname()[1])
        env = {**os.environ, "OMP_NUM_THREADS": str(2 // count), "WORLD_SIZE": str(count), "MASTER_PORT": port}
        env["MASTER_ADDR"] = "127.0.0.1"
        command = [sys.executable, __file__, "--worker", kind]
        started = [
            subprocess.Popen(command, env={**env, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
            for rank in range(count)
        ]
        printed = [child.communicate()[0] for child in started]
        return float(printed[0])

    return ratios(lambda: run(2), lambda: run(1), repeats=3)


def worker(kind: str) -> None:
    learner = Learner(torch.bfloat16)
    learner.steps(kind)
    print(learner.steps(kind, 60))
    leave(0)


def main() -> None:
    prepare()
    if sys.argv[1:2] == ["--worker"]:
        return worker(sys.argv[2])
    print(f"measuring on {torch.get_num_threads()} threads; a few minutes", file=sys.stderr)
    report: dict[str, object] = {"cores": torch.get_num_threads(), "torch": torch.__version__}
    report["plain attention, by row length"] = {n: attention_rows(n) for n in (32, 64, 128, 256, 512)}
    report["bf16"] = {kind: formats(kind) for kind in BATCHES}
    report["two processes of one thread"] = {kind: processes(kind) for kind in BATCHES}
    report["rounded rows"] = rounding()
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
