"""Reward modelling: steps of 8 comparisons, ours flat, beside TRL's RewardTrainer, padded.

python -m benchmarks.reward --shape A --dtype fp32 bf16
"""

from __future__ import annotations

from dataclasses import replace

from ayni.model.role import Role
from ayni.model.score_head import with_score_head
from ayni.model.transformer import Transformer
from ayni.parallel import Ranks
from ayni.train.objectives import Ranking
from ayni.train.trainer import Trainer
from benchmarks import flops
from benchmarks.data import LONGEST, ROWS, SHAPES, pairs, start
from benchmarks.options import Options
from benchmarks.sft import OPTIMISER
from benchmarks.side import Turns
from benchmarks.work import OURS, Work, main


def scorer(shape: str) -> Transformer:
    return with_score_head(start(shape), 1)


def ours(options: Options, turns: Turns) -> None:
    turns.imported()
    data = [pairs(options.shape, step) for step in range(options.all_steps)]
    model = scorer(options.shape).to(options.device)
    model.dtype = options.torch_dtype
    trainer = Trainer(Role(model), OPTIMISER, steps=options.all_steps, ranks=Ranks(device=options.device))
    for turn in turns:
        mine = data[turn * options.steps : (turn + 1) * options.steps]
        losses = [trainer.update(batch, Ranking())["loss"] for batch in mine]
        rows = [row for batch in mine for pair in batch for row in flops.rows_of(pair)]
        read_at_the_end = (replace(row, asked=(row.length - 1,)) for row in rows)
        needed = flops.TRAINING * flops.forward(model.shape, read_at_the_end)
        turns.end(sum(row.length for row in rows), losses=losses, flops=needed)


def trl(options: Options, turns: Turns) -> None:
    from trl import RewardConfig, RewardTrainer

    from benchmarks.trl_side import dataset, settings, taking_turns, theirs, tokenizer

    turns.imported()
    rows = [p for step in range(options.all_steps) for p in pairs(options.shape, step)]
    columns = {"chosen_ids": [p.chosen.tokens for p in rows], "rejected_ids": [p.rejected.tokens for p in rows]}
    trainer = taking_turns(RewardTrainer, turns, options)(
        model=theirs(scorer(options.shape)),
        args=RewardConfig(**settings(options, OPTIMISER, ROWS // 2), max_length=LONGEST),
        train_dataset=dataset(columns),
        processing_class=tokenizer(SHAPES[options.shape].vocab),
    )
    trainer.train()


SIDES = {OURS: ours, "trl": trl}
WORK = Work("reward", "tokens/s", SIDES, tolerance={"fp32": 1e-4, "bf16": 2e-2})

if __name__ == "__main__":
    main(WORK, __doc__ or "")
