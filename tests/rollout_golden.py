"""Rollouts whose every bit was written down once, and what it takes to tell whether this machine must give them again.

python tests/rollout_golden.py    writes rollout_golden.json anew: only where a change of the bits is meant
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tiny import policy, prompts

from ayni.model.layout import Layout
from ayni.records import Sample
from ayni.rollout.engine import rollout
from ayni.rollout.local import LocalEngine
from ayni.rollout.sampling import Sampling
from ayni.text.chat import render_prompt

FILE = Path(__file__).with_suffix(".json")
SEED = 11
DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """A rollout of the tiny model. bf16 computes in bf16 with weights in fp32, as training does."""

    dtype: str
    sampling: Sampling
    count: int  # prompts
    n: int = 1
    context: int = 96


CASES = {
    f"{dtype} {name}": Case(dtype, *rest)
    for dtype in DTYPES
    for name, *rest in [
        ("one sample each", Sampling(1.0, 1.0, 24), 9),
        ("nucleus", Sampling(0.8, 0.9, 24), 9, 3),
        ("greedy", Sampling(0.0, 0.9, 16), 9),
        ("slots are refilled and halved", Sampling(1.3, 1.0, 40), 110, 3),  # 330 samples in 256 slots
        ("the nucleus in refilled slots", Sampling(1.0, 0.7, 12), 150, 2),
        ("the context is full", Sampling(1.0, 1.0, 99), 12, 3, 45),
        ("one token", Sampling(1.0, 1.0, 1), 5, 2),
    ]
}  # fmt: skip


def speaker(case: Case) -> LocalEngine:
    """The engine of a case."""
    engine = policy(context=case.context, dtype=torch.float64 if case.dtype == "fp64" else torch.float32)
    engine.model.dtype = DTYPES[case.dtype]
    engine.sync(engine)
    return engine


def written(groups: list[list[Sample]]) -> dict[str, Any]:
    samples = [sample for group in groups for sample in group]
    tokens = b"".join(struct.pack(f"<{len(s.tokens)}q", *s.tokens) + s.finished.encode() for s in samples)
    logprobs = b"".join(struct.pack(f"<{len(s.logprobs)}d", *s.logprobs) for s in samples)
    return {
        "tokens": hashlib.sha256(tokens).hexdigest()[:16],
        "logprobs": hashlib.sha256(logprobs).hexdigest()[:16],
        "length": sum(len(s.tokens) for s in samples),
        "logprob": math.fsum(x for s in samples for x in s.logprobs),
    }


@torch.no_grad()
def kernels(dtype: str) -> str:
    """A digest of what this machine's matrix kernels make of some of the same numbers: equal, they round alike."""
    found = hashlib.sha256()
    for bits in _bits(Case(dtype, Sampling(), 110)):
        found.update(bits)
    return found.hexdigest()[:16]


def _bits(case: Case) -> Iterator[bytes]:
    engine = speaker(case)
    rows = [render_prompt(p.dialog, engine.tokenizer) for p in prompts(case.count)]
    layout = Layout.of([len(row) for row in rows])
    hidden = engine.model(torch.tensor([t for row in rows for t in row]), layout)
    head = engine.model.head.to(hidden.dtype).t()
    for size in (1, 5, 37, 128, 256):
        logits = hidden[:size] @ head
        yield from (x.double().numpy().tobytes() for x in (logits, torch.softmax(logits.float(), -1), logits.exp()))


def main() -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {"kernels": {dtype: kernels(dtype) for dtype in DTYPES}}
    for name, case in CASES.items():
        groups = rollout(speaker(case), prompts(case.count), n=case.n, sampling=case.sampling, seed=SEED)
        found[name] = written(groups)
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
