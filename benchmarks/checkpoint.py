"""Checkpoints: how long a training step waits for one, ours beside torch.save of the same tensors.

    python -m benchmarks.checkpoint --shape B

Weights and Adam's two moments after a step. Ours writes safetensors beside, syncs, hashes and renames, and keeps two;
torch.save writes and returns, and so may lose everything to a power cut: `synced` adds the fsync, no more. Each also
says how long a training step of 16 dialogues takes: the share of a step that a save every step would block.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ayni.model.role import Role
from ayni.parallel import Ranks
from ayni.train.checkpoint import save_checkpoint
from ayni.train.objectives import NextToken
from ayni.train.trainer import Trainer
from benchmarks.data import sequences, start
from benchmarks.options import Options
from benchmarks.sft import OPTIMISER
from benchmarks.side import Turns
from benchmarks.work import OURS, Work, main

Save = Callable[[Path, Trainer], None]


def ours(place: Path, trainer: Trainer) -> None:
    save_checkpoint(place, trainer.step, *trainer.state())


def torch_save(sync: bool, place: Path, trainer: Trainer) -> None:
    tensors, _ = trainer.state()
    kept: dict[str, Tensor] = {name: tensor.detach() for name, tensor in tensors.items()}
    with open(place / f"{trainer.step % 2}.pt", "wb") as file:
        torch.save(kept, file)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def side(save: Save, options: Options, turns: Turns) -> None:
    """A turn is `steps` saves, each after a training step, which is timed apart."""
    turns.imported()
    model = start(options.shape).to(options.device)
    model.dtype = options.torch_dtype
    trainer = Trainer(Role(model), OPTIMISER, steps=options.all_steps, ranks=Ranks(device=options.device))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        for turn in turns:
            stepping = saving = 0.0
            for step in range(turn * options.steps, (turn + 1) * options.steps):
                began = time.perf_counter()
                trainer.update(sequences(options.shape, step), NextToken())
                stepped = time.perf_counter()
                save(Path(directory), trainer)
                stepping, saving = stepping + stepped - began, saving + time.perf_counter() - stepped
            turns.end(options.steps, saving, split={"a training step": stepping})


SIDES = {
    OURS: partial(side, ours),
    "torch.save": partial(side, partial(torch_save, False)),
    "torch.save synced": partial(side, partial(torch_save, True)),
}
WORK = Work("checkpoint", "saves/s", SIDES, ceiling=False, needs="torch")

if __name__ == "__main__":
    main(WORK, __doc__ or "")
