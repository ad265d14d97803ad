"""Checkpoints: how long a training step waits for one, ours beside torch.save of the same tensors.

    python -m benchmarks.checkpoint --shape B

Weights and Adam's two moments after a step. Ours copies them and writes beside the training that goes on: safetensors,
synced, hashed and renamed, two kept. torch.save writes and returns, and so may lose everything to a power cut; `synced`
adds the fsync, no more. The split says how long a training step of 16 dialogues takes alone, and right after a save.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ayni.model.role import Role
from ayni.parallel import Ranks
from ayni.run import Run
from ayni.train.checkpoint import Checkpoints
from ayni.train.objectives import NextToken
from ayni.train.trainer import Trainer
from benchmarks.data import sequences, start
from benchmarks.options import Options
from benchmarks.sft import OPTIMISER
from benchmarks.side import Turns
from benchmarks.work import OURS, Work, main

Save = Callable[[ExitStack, Path, Trainer], None]  # what goes on beside training ends with the stack


def ours(stack: ExitStack, place: Path, trainer: Trainer) -> None:
    stack.enter_context(Checkpoints(Run(place, name="checkpoint"), 1)).save(trainer.step, *trainer.state())


def torch_save(sync: bool, stack: ExitStack, place: Path, trainer: Trainer) -> None:
    tensors, _ = trainer.state()
    kept: dict[str, Tensor] = {name: tensor.detach() for name, tensor in tensors.items()}
    with open(place / f"{trainer.step % 2}.pt", "wb") as file:
        torch.save(kept, file)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def side(save: Save, options: Options, turns: Turns) -> None:
    """A turn is `steps` saves, each between two training steps, which are timed apart."""
    turns.imported()
    model = start(options.shape).to(options.device)
    model.dtype = options.torch_dtype
    trainer = Trainer(Role(model), OPTIMISER, steps=2 * options.all_steps, ranks=Ranks(device=options.device))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        for turn in turns:
            alone = saving = beside = 0.0
            for step in range(turn * options.steps, (turn + 1) * options.steps):
                batch = sequences(options.shape, step)
                alone += seconds(lambda batch=batch: trainer.update(batch, NextToken()))
                with ExitStack() as stack:
                    saving += seconds(lambda stack=stack: save(stack, Path(directory), trainer))
                    beside += seconds(lambda batch=batch: trainer.update(batch, NextToken()))
            turns.end(options.steps, saving, split={"a training step": alone, "the step after a save": beside})


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


SIDES = {
    OURS: partial(side, ours),
    "torch.save": partial(side, partial(torch_save, False)),
    "torch.save synced": partial(side, partial(torch_save, True)),
}
WORK = Work("checkpoint", "saves/s", SIDES, ceiling=False, needs="torch")

if __name__ == "__main__":
    main(WORK, __doc__ or "")
