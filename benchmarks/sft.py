"""Supervised fine-tuning: steps of 16 ragged dialogues, ours flat, beside TRL's SFTTrainer, padded and packed.

    python -m benchmarks.sft --shape A --dtype fp32 bf16

`wrapped` cuts a stream of dialogues into rows of 512, across which attention sees; `bfd` keeps them apart by a mask.
"""

from __future__ import annotations

from functools import partial

from ayni.model.role import Role
from ayni.parallel import Ranks
from ayni.train.objectives import NextToken
from ayni.train.trainer import Optimiser, Trainer
from benchmarks import flops
from benchmarks.data import LONGEST, MEDIAN, ROWS, SHAPES, sequences, start
from benchmarks.options import Options
from benchmarks.side import Turns
from benchmarks.work import OURS, Take, Work, main

OPTIMISER = Optimiser(lr=1e-4, schedule="constant", warmup=0)


def ours(options: Options, turns: Turns) -> None:
    turns.imported()
    data = [sequences(options.shape, step) for step in range(options.all_steps)]
    model = start(options.shape).to(options.device)
    model.dtype = options.torch_dtype
    trainer = Trainer(Role(model), OPTIMISER, steps=options.all_steps, ranks=Ranks(device=options.device))
    for turn in turns:
        mine = data[turn * options.steps : (turn + 1) * options.steps]
        losses = [trainer.update(batch, NextToken())["loss"] for batch in mine]
        tokens = sum(len(s.tokens) for batch in mine for s in batch)
        turns.end(tokens, losses=losses, flops=sum(flops.training(model.shape, batch) for batch in mine))


def trl(packing: str, options: Options, turns: Turns) -> None:
    from trl import SFTConfig, SFTTrainer

    from benchmarks.trl_side import dataset, settings, taking_turns, theirs, tokenizer

    turns.imported()
    rows = [s for step in range(options.all_steps) for s in sequences(options.shape, step)]
    columns = {"input_ids": [s.tokens for s in rows], "completion_mask": [list(map(int, s.mask)) for s in rows]}
    size = ROWS
    if packing:  # as many real tokens a step; what is left over at the end must still fill the last step
        size = max(1, round(ROWS * MEDIAN / LONGEST))
    config = SFTConfig(
        **settings(options, OPTIMISER, size),
        completion_only_loss=True,
        max_length=LONGEST,
        packing=bool(packing),
        packing_strategy=packing or "bfd",
    )
    trainer = taking_turns(SFTTrainer, turns, options)(
        model=theirs(start(options.shape)),
        args=config,
        train_dataset=dataset(columns),
        processing_class=tokenizer(SHAPES[options.shape].vocab),
    )
    trainer.train()


SIDES: dict[str, Take] = {
    OURS: ours,
    "trl padded": partial(trl, ""),
    "trl wrapped": partial(trl, "wrapped"),
    "trl bfd": partial(trl, "bfd"),
}
WORK = Work(
    "sft",
    "tokens/s",
    SIDES,
    tolerance={"fp32": 1e-4, "bf16": 1e-2},
    loosely={"trl wrapped": 0.01, "trl bfd": 0.01},
)

if __name__ == "__main__":
    main(WORK, __doc__ or "")
