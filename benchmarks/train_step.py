"""Tokens per second of one training step: ours on flat batches, beside transformers' Llama on padded ones.

Both train the same shape from the same weights on the same ragged sequences with AdamW; steps alternate, so that a
drift of the machine's speed meets both. Prints one JSON object. Run: python benchmarks/train_step.py
"""

from __future__ import annotations

import json
import platform
import statistics
import time

import torch
import transformers

from ayni.cli.environment import prepare
from ayni.model.hugging_face import config_of, their_tensors
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise
from ayni.records import TokenSequence
from ayni.seeds import rng
from ayni.train.objectives import NextToken
from ayni.train.trainer import Optimiser, Trainer

SHAPE = Shape(192, 4, 6, 2, 512, 1024, 256)
ROWS, SHORTEST, LONGEST, STEPS, WARM = 64, 20, 80, 15, 3


def batches() -> list[list[list[int]]]:
    draw = rng("benchmark")
    lengths = draw.integers(SHORTEST, LONGEST, (STEPS + WARM, ROWS))
    return [[draw.integers(3, SHAPE.vocab, n).tolist() for n in row] for row in lengths]


def padded_step(model: torch.nn.Module, adam: torch.optim.Optimizer, rows: list[list[int]], dtype: torch.dtype) -> None:
    """The usual way: right padding, an attention mask, −100 labels, the library's own loss."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    adam.zero_grad()


def main() -> None:
    prepare()
    data = batches()
    report: dict[str, object] = {
        "cores": torch.get_num_threads(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "rows": ROWS,
        "lengths": [SHORTEST, LONGEST],
        "steps": STEPS,
    }
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        ours = initialise(Transformer(SHAPE), 0)
        ours.dtype = dtype
        theirs = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**config_of(SHAPE, dtype=torch.float32, bos=1, eos=2, pad=0))
        )
        theirs.load_state_dict(dict(their_tensors(ours)))
        trainer = Trainer(ours, Optimiser(lr=1e-4), steps=1000)
        adam = torch.optim.AdamW(theirs.parameters(), lr=1e-4, betas=(0.9, 0.95), eps=1e-5, fused=True)
        objective = NextToken()
        speeds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for rows in data:
            tokens = sum(map(len, rows))
            began = time.perf_counter()
            sequences = [TokenSequence(row, [False] + [True] * (len(row) - 1)) for row in rows]
            trainer.update([objective.batch(sequences)], objective)
            middle = time.perf_counter()
            padded_step(theirs, adam, rows, dtype)
            speeds["ours"].append(tokens / (middle - began))
            speeds["theirs"].append(tokens / (time.perf_counter() - middle))
        kept = {who: values[WARM:] for who, values in speeds.items()}
        ratios = [a / b for a, b in zip(kept["ours"], kept["theirs"], strict=True)]
        report[name] = {
            **{f"{who}_tokens_per_s": round(statistics.median(values)) for who, values in kept.items()},
            "ratio": round(statistics.median(ratios), 2),
            "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
