"""How cost grows: with the length of sequences, the vocabulary, processes and records. Each beside what it should be.

    python -m benchmarks.growth > docs/results/growth.json

Medians of five turns, the sizes of one question in turn; nothing else may run.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from ayni.cli.environment import prepare
from ayni.files import write_jsonl
from ayni.formats.reading import read_demonstrations
from ayni.model.role import Role
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise
from ayni.parallel import Ranks, leave
from ayni.records import TokenSequence
from ayni.seeds import rng
from ayni.train.objectives import NextToken
from ayni.train.trainer import Optimiser, Trainer
from benchmarks import flops
from benchmarks.data import SHAPES, sequences
from benchmarks.machine import described

TURNS = 5
TOKENS = 8192
LENGTHS = (64, 128, 256, 512, 1024)
VOCABULARIES = (32_000, 64_000, 128_000)
RECORDS = (125_000, 250_000, 500_000, 1_000_000)


def learner(shape: Shape, dtype: torch.dtype) -> Trainer:
    model = initialise(Transformer(shape), 0)
    model.dtype = dtype
    return Trainer(Role(model), Optimiser(lr=1e-4), steps=10**6, ranks=Ranks.current())


def rows(vocab: int, length: int, count: int) -> list[TokenSequence]:
    draw = rng("benchmark", "growth", length)
    return [
        TokenSequence(draw.integers(3, vocab, length).tolist(), [False] + [True] * (length - 1)) for _ in range(count)
    ]


def in_turn(works: Sequence[Callable[[], object]]) -> list[float]:
    """Seconds of each, the median; the first turn warms up."""
    seen: list[list[float]] = [[] for _ in works]
    for _ in range(TURNS + 1):
        for work, found in zip(works, seen, strict=True):
            began = time.perf_counter()
            work()
            found.append(time.perf_counter() - began)
    return [statistics.median(found[1:]) for found in seen]


def lengths(dtype: torch.dtype) -> dict[int, dict[str, float]]:
    """A training step of 8,192 tokens in rows of L: t(L)/t(64) beside F(L)/F(64), F what must be multiplied."""
    shape = SHAPES["A"]
    trainer = learner(shape, dtype)
    batches = [rows(shape.vocab, length, TOKENS // length) for length in LENGTHS]
    seconds = in_turn([partial(trainer.update, batch, NextToken()) for batch in batches])
    work = [flops.training(shape, batch) for batch in batches]
    return {
        length: {"time": t / seconds[0], "flops": f / work[0], "excess": t / seconds[0] / (f / work[0])}
        for length, t, f in zip(LENGTHS, seconds, work, strict=True)
    }


def peak(vocab: int) -> None:
    """Prints the bytes that two training steps with this vocabulary add to a process, at most."""
    torch.set_num_threads(1)
    before = resident("VmRSS")
    trainer = learner(Shape(256, 2, 8, 4, 688, vocab, 1024), torch.float32)
    for _ in range(2):
        trainer.update(rows(vocab, 128, 16), NextToken())
    print(resident("VmHWM") - before)


def resident(which: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) * 1024
    raise SystemExit("needs Linux")


def vocabularies() -> list[dict[str, float]]:
    """Memory from one vocabulary to the next, beside 16 bytes a parameter: weight, gradient, two moments."""
    found = [int(child("--peak", str(vocab))) for vocab in VOCABULARIES]
    more = [16 * 2 * 256 * (b - a) for a, b in pairwise(VOCABULARIES)]  # embedding and head
    return [
        {"from": a, "to": b, "bytes": found[i + 1] - found[i], "of parameters": (found[i + 1] - found[i]) / more[i]}
        for i, (a, b) in enumerate(pairwise(VOCABULARIES))
    ]


def processes(shape: str) -> dict[str, float]:
    """Tokens a second of one process and of two that share its steps, each on one thread, in fp32."""
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(TURNS):
        for count, seen in speeds.items():
            seen.append(float(child("--worker", shape, count=count)))
    one, two = (statistics.median(seen) for seen in speeds.values())
    return {"one": one, "two": two, "ratio": two / one}


def worker(shape: str) -> None:
    trainer = learner(SHAPES[shape], torch.float32)
    data = [sequences(shape, step) for step in range(4)]
    trainer.update(data[0], NextToken())
    began = time.perf_counter()
    for batch in data[1:]:
        trainer.update(batch, NextToken())
    print(sum(len(s.tokens) for batch in data[1:] for s in batch) / (time.perf_counter() - began), flush=True)
    leave(0)


def child(*arguments: str, count: int = 1) -> str:
    """What the first of so many processes of this script prints."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(count), "MASTER_PORT": port}
    env["MASTER_ADDR"] = "127.0.0.1"
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.growth", *arguments],
            env={**env, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    return next(iter([process.communicate()[0] for process in started]))


def records() -> dict[int, float]:
    """Microseconds a demonstration, reading a .jsonl of so many."""
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        for count in RECORDS:
            path = Path(directory) / f"{count}.jsonl"
            ask = {"role": "user", "content": "What is a hare, and where does it sleep?"}
            answer = {"role": "assistant", "content": "A hare is an animal of the fields; it sleeps in a hollow."}
            write_jsonl(path, ({"messages": [ask, answer], "number": i} for i in range(count)))
            began = time.perf_counter()
            assert len(read_demonstrations(path)) == count
            found[count] = (time.perf_counter() - began) / count * 1e6
    return found


def main() -> None:
    prepare()
    if sys.argv[1:2] == ["--peak"]:
        return peak(int(sys.argv[2]))
    if sys.argv[1:2] == ["--worker"]:
        return worker(sys.argv[2])
    report: dict[str, Any] = described("cpu") | {"python": platform.python_version()}
    for part in (
        ("lengths, fp32", partial(lengths, torch.float32)),
        ("lengths, bf16", partial(lengths, torch.bfloat16)),
        ("vocabulary", vocabularies),
        ("processes", lambda: {shape: processes(shape) for shape in ("A", "B")}),
        ("records", records),
    ):
        print(part[0], file=sys.stderr, flush=True)
        report[part[0]] = part[1]()
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
