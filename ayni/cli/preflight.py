"""`ayni doctor --gpus`: what runs otherwise on a GPU than on the CPU where ayni is tested, held against the CPU.

A tiny model does on the device what it does on the CPU; every check says how far apart they are, and may be.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from ayni.cli import VerbFailure
from ayni.errors import BadInput, BadNumbers
from ayni.model.attention import causal_attention, takes_variable_length
from ayni.model.layout import Layout
from ayni.model.role import Role
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise
from ayni.records import TokenSequence
from ayni.rollout.engine import Request
from ayni.rollout.local import LocalEngine
from ayni.rollout.sampling import Sampling
from ayni.text.tokenizer import Tokenizer
from ayni.train.objectives import NextToken
from ayni.train.trainer import Optimiser, Trainer

SHAPE = Shape(128, 2, 4, 2, 352, 512, 256)
LENGTHS = (5, 40, 96, 97, 200)
STEPS = 3


@dataclass(frozen=True)
class Finding:
    """One check: how far apart the device and the CPU are, and how far they may be."""

    name: str
    off: float
    allowed: float
    note: str = ""

    @property
    def sound(self) -> bool:
        return self.off <= self.allowed  # false of NaN


def preflight(as_json: bool) -> dict[str, Any] | VerbFailure:
    """{device, checks: [{name, off, allowed, sound, note}]}; BadInput without a GPU, BadNumbers where a check fails."""
    if not torch.cuda.is_available():
        raise BadInput("torch sees no GPU here", fix="ayni doctor says what it sees")
    # fp32 products of TF32 have 10 bits: not what is compared here
    torch.backends.cuda.matmul.allow_tf32 = False
    found = [finding for check in CHECKS for finding in check(torch.device("cuda"))]
    checks = [{**vars(finding), "sound": finding.sound} for finding in found]
    value = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "checks": checks}
    if not as_json:
        print(f"{value['device']}, torch {torch.__version__}")
        for finding in found:
            verdict = "sound" if finding.sound else "WRONG"
            print(f"{verdict}  {finding.name:52} {finding.off:.1e} of {finding.allowed:.0e}  {finding.note}".rstrip())
    if wrong := [finding.name for finding in found if not finding.sound]:
        return VerbFailure(value, BadNumbers(f"{len(wrong)} of {len(found)} checks are wrong: {', '.join(wrong)}"))
    return value


def model_on(device: torch.device, dtype: torch.dtype) -> Transformer:
    model = initialise(Transformer(SHAPE), 0).to(device)
    model.dtype = dtype
    return model


def examples() -> list[TokenSequence]:
    draw = torch.Generator().manual_seed(0)
    tokens = [torch.randint(3, SHAPE.vocab, (n,), generator=draw).tolist() for n in LENGTHS]
    return [TokenSequence(row, [False] * 2 + [True] * (len(row) - 2)) for row in tokens]


def apart(ours: Tensor, theirs: Tensor) -> float:
    """‖a − b‖ / ‖b‖"""
    a, b = (x.detach().double().cpu() for x in (ours, theirs))
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


def training(device: torch.device) -> list[Finding]:
    """Gradients, and weights after fused AdamW's steps, of a model that computes in fp32; the loss in bf16."""
    results = []
    for place, dtype in ((torch.device("cpu"), torch.float32), (device, torch.float32), (device, torch.bfloat16)):
        trainer = Trainer(Role(model_on(place, dtype)), Optimiser(lr=1e-2, warmup=0), steps=STEPS)
        first = trainer.gradient(examples(), NextToken())["loss"]
        gradient = torch.cat([p.grad.flatten() for p in trainer.parameters.values() if p.grad is not None])
        trainer.apply()
        for _ in range(STEPS - 1):
            last = trainer.update(examples(), NextToken())["loss"]
        weights = torch.cat([p.detach().flatten() for p in trainer.parameters.values()])
        results.append((first, gradient, weights, last))
    cpu, fp32, bf16 = results
    return [
        Finding("gradients in fp32", apart(fp32[1], cpu[1]), 1e-4),
        Finding(f"weights after {STEPS} steps of fused AdamW in fp32", apart(fp32[2], cpu[2]), 1e-3),
        Finding("loss in bf16, beside fp32", abs(bf16[0] - fp32[0]) / fp32[0], 1e-2),
        Finding(f"loss in bf16 after {STEPS} steps, of the first one", bf16[3] / bf16[0], 0.99),
    ]


def attention(device: torch.device) -> list[Finding]:
    """Attention over a flat batch in bf16, forward and backward, beside the CPU's in fp32."""
    draw = torch.Generator().manual_seed(1)
    sizes = [(sum(LENGTHS), heads, SHAPE.head_dim) for heads in (SHAPE.heads, SHAPE.kv_heads, SHAPE.kv_heads)]
    drawn = [torch.randn(size, generator=draw) for size in sizes]
    outcomes = []
    for place, dtype in ((torch.device("cpu"), torch.float32), (device, torch.bfloat16)):
        q, k, v = (x.to(place, dtype, copy=True).requires_grad_() for x in drawn)
        out = Layout.of(LENGTHS, place).attend(0, q, k, v)
        out.float().square().sum().backward()
        outcomes.append((out, *(cast(Tensor, x.grad) for x in (q, k, v))))
    cpu, ours = outcomes
    kernel = "variable-length kernel" if takes_variable_length(ours[0]) else "rows by length: no variable-length kernel"
    names = ("attention", "attention's gradient by q", "by k", "by v")
    return [
        Finding(name, apart(a, b), 0.02, kernel if name == "attention" else "")
        for name, a, b in zip(names, ours, cpu, strict=True)
    ]


def short_rows(device: torch.device) -> list[Finding]:
    """The fused kernel over rows with shared keys, which decoding and fp32 use."""
    draw = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(3, heads, 33, 32, generator=draw) for heads in (4, 2, 2))
    there = causal_attention(*(x.to(device) for x in (q, k, v)))
    return [Finding("attention over rows in fp32", apart(there, causal_attention(q, k, v)), 1e-5)]


def decoding(device: torch.device) -> list[Finding]:
    """Greedy answers of the engine: the same tokens, the same log-probabilities."""
    drawn = []
    for place in (torch.device("cpu"), device):
        never = cast(Tokenizer, SimpleNamespace(eos=-1))
        engine = LocalEngine(Role(model_on(place, torch.float32).requires_grad_(False)), never)
        prompts = [tuple(s.tokens[: len(s.tokens) // 3]) for s in examples()]
        asked = [Request(prompt, (0,), Sampling(0.0, 1.0, 24)) for prompt in prompts]
        drawn.append([answer for (answer,) in engine.generate(asked)])
    different = sum(a.tokens != b.tokens for a, b in zip(*drawn, strict=True))
    off = max(abs(x - y) for a, b in zip(*drawn, strict=True) for x, y in zip(a.logprobs, b.logprobs, strict=True))
    return [
        Finding("greedy answers that differ", different, 0),
        Finding("their log-probabilities, in nats", off, 1e-3),
    ]


def copies(device: torch.device) -> list[Finding]:
    """Weights that travel to the device and back are the same bits."""
    there = model_on(device, torch.float32)
    back = copy.deepcopy(there).to("cpu")
    start = model_on(torch.device("cpu"), torch.float32)
    different = sum(not torch.equal(a, b) for a, b in zip(back.parameters(), start.parameters(), strict=True))
    return [Finding("weights changed by moving them", different, 0)]


CHECKS: list[Callable[[torch.device], list[Finding]]] = [copies, short_rows, attention, training, decoding]
