"""Sampling: 16 rows at once, ours beside transformers' generate, and beside llama.cpp where it is built.

    python -m benchmarks.generate --variant ragged --dtype fp32 bf16

- `fixed`: 64 tokens of prompt, 128 new ones.
- `ragged`: prompts of 16–128, answers of 16–256. Where a row has ended, generate goes on with the batch until the
  longest has; only wanted tokens count.
- `samples`: 16 answers of 128 to one prompt of 256.

All draw from the whole distribution at temperature 1. Ours keeps every log-prob; the others return tokens only.
llama.cpp draws with one sampler a row and lets a row go where it ends, as ours does; its keys and values are of half
precision unless all is fp32 (its default).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import torch

from ayni.model.role import Role
from ayni.rollout.engine import Request
from ayni.rollout.local import LocalEngine
from ayni.rollout.sampling import Sampling
from ayni.seeds import rng
from ayni.text.tokenizer import Tokenizer
from benchmarks import flops
from benchmarks.data import PAD, ROWS, SHAPES, start, tokens
from benchmarks.options import Options
from benchmarks.side import Turns
from benchmarks.work import OURS, Work, main

LONGEST = {"fixed": 64 + 128, "ragged": 128 + 256, "samples": 256 + 128}
GREEDY = 8  # tokens that both sides draw first, to be the same


@dataclass(frozen=True)
class Wanted:
    """Prompts, how many answers each, and every prompt's number of new tokens."""

    prompts: list[list[int]]
    answers: int
    limits: list[int]

    @property
    def tokens(self) -> int:
        return self.answers * sum(self.limits)


def wanted(options: Options, turn: int) -> Wanted:
    draw = rng("benchmark", "generate", options.variant, turn)
    if options.variant == "samples":
        sizes, answers, limits = [256], ROWS, [128]
    elif options.variant == "ragged":
        sizes, answers, limits = draw.integers(16, 129, ROWS).tolist(), 1, draw.integers(16, 257, ROWS).tolist()
    else:
        sizes, answers, limits = [64] * ROWS, 1, [128] * ROWS
    return Wanted([tokens(draw, options.shape, n) for n in sizes], answers, limits)


def ours(options: Options, turns: Turns) -> None:
    turns.imported()
    model = start(options.shape).to(options.device).requires_grad_(False)
    model.dtype = options.torch_dtype
    never = cast(Tokenizer, SimpleNamespace(eos=-1))  # all an engine asks of it
    engine = LocalEngine(Role(model), never)

    def drawn(asked: Wanted, turn: int, temperature: float, limits: list[int]) -> list[list[Any]]:
        # seeds: any, as long as no two are alike
        seeds = [tuple(turn * 1000 + row * 100 + k for k in range(asked.answers)) for row in range(len(limits))]
        each = zip(asked.prompts, seeds, limits, strict=True)
        return engine.generate([Request(tuple(p), s, Sampling(temperature, 1.0, n)) for p, s, n in each])

    asked = wanted(options, 0)
    first = drawn(asked, 0, 0.0, [GREEDY] * len(asked.prompts))
    checked = [sum(x for group in first for answer in group for x in answer.logprobs)]
    for turn in turns:
        count = 0
        for step in range(turn * options.steps, (turn + 1) * options.steps):
            asked = wanted(options, step)
            answers = drawn(asked, step, 1.0, asked.limits)
            count += sum(len(answer.tokens) for group in answers for answer in group)
        turns.end(count, losses=checked, bytes=least_bytes(options, turn))


def theirs(options: Options, turns: Turns) -> None:
    from benchmarks.trl_side import theirs as their_model

    turns.imported()
    model = their_model(start(options.shape)).to(options.device, options.torch_dtype).eval()

    def drawn(asked: Wanted, limit: int, **how: Any) -> Any:
        longest = max(map(len, asked.prompts))
        ids = torch.tensor([[PAD] * (longest - len(p)) + p for p in asked.prompts], device=options.device)
        mask = (ids != PAD).long()
        given = {"num_return_sequences": asked.answers, "eos_token_id": None, "pad_token_id": PAD, **how}
        return model.generate(ids, attention_mask=mask, min_new_tokens=limit, max_new_tokens=limit, **given)

    # greedy draws the same for every answer to a prompt, and generate takes one only
    asked = wanted(options, 0)
    one = Wanted(asked.prompts, 1, asked.limits)
    first = drawn(one, GREEDY, do_sample=False, output_logits=True, return_dict_in_generate=True)
    best = sum(float(logits.float().log_softmax(-1).amax(-1).sum()) for logits in first.logits)
    for turn in turns:
        count = 0
        for step in range(turn * options.steps, (turn + 1) * options.steps):
            asked = wanted(options, step)
            drawn(asked, max(asked.limits), do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
            count += asked.tokens
        turns.end(count, losses=[best * asked.answers], bytes=least_bytes(options, turn))


def llama_cpp(options: Options, turns: Turns) -> None:
    from benchmarks.llama_cpp_side import Speaker

    turns.imported()
    model, columns = start(options.shape), LONGEST[options.variant]
    speaker = Speaker(model, options.torch_dtype, rows=ROWS, columns=columns, threads=options.threads)
    asked = wanted(options, 0)
    best = speaker.greedy(asked.prompts, GREEDY) * asked.answers
    for turn in turns:
        count = 0
        for step in range(turn * options.steps, (turn + 1) * options.steps):
            asked = wanted(options, step)
            count += speaker.draw(asked.prompts, asked.answers, asked.limits, step)
        turns.end(count, losses=[best], bytes=least_bytes(options, turn))


def least_bytes(options: Options, turn: int) -> int:
    """What the decode steps of a turn read at least: all weights once a step, in the compute dtype."""
    each = flops.decoding_bytes(SHAPES[options.shape], options.torch_dtype.itemsize)
    steps = range(turn * options.steps, (turn + 1) * options.steps)
    return each * sum(max(wanted(options, step).limits) for step in steps)


SIDES = {OURS: ours, "transformers": theirs}
if importlib.util.find_spec("llama_cpp") is not None:  # ten minutes to build: who has not is measured without it
    SIDES["llama.cpp"] = llama_cpp
WORK = Work(
    "generate",
    "tokens/s",
    SIDES,
    tolerance={"fp32": 1e-4, "bf16": 1e-2},
    loosely={"llama.cpp": 2e-3},  # of hundreds of tokens one may be as likely as another to the last digits
    variants=("fixed", "ragged", "samples"),
    needs="transformers",
)

if __name__ == "__main__":
    main(WORK, __doc__ or "")
