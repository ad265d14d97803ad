"""DPO: steps of 8 comparisons, ours flat, beside TRL's DPOTrainer, padded.

    python -m benchmarks.dpo --shape A --dtype fp32 bf16

TRL reads its reference in every step. Ours reads it once before training; for an epoch that is as often, so a turn of
ours reads the reference of its own pairs first.
"""

from __future__ import annotations

from itertools import chain, islice

from ayni.model.role import Role
from ayni.parallel import Ranks
from ayni.train.objectives import DPO
from ayni.train.reference import with_reference
from ayni.train.trainer import Trainer
from benchmarks import flops
from benchmarks.data import LONGEST, ROWS, SHAPES, answer_of, pairs, prompt_of, start
from benchmarks.options import Options
from benchmarks.sft import OPTIMISER
from benchmarks.side import Turns
from benchmarks.work import OURS, Work, main

BETA = 0.1


def ours(options: Options, turns: Turns) -> None:
    turns.imported()
    data = [pairs(options.shape, step) for step in range(options.all_steps)]
    policy, reference = (start(options.shape).to(options.device) for _ in range(2))
    policy.dtype = reference.dtype = options.torch_dtype
    reference.requires_grad_(False)
    trainer = Trainer(Role(policy), OPTIMISER, steps=options.all_steps, ranks=Ranks(device=options.device))
    for turn in turns:
        mine = data[turn * options.steps : (turn + 1) * options.steps]
        # all at once, as the stage does
        pairs_read = iter(with_reference(list(chain(*mine)), Role(reference), trainer.tokens_per_micro_batch))
        losses = [trainer.update(list(islice(pairs_read, len(batch))), DPO(BETA))["loss"] for batch in mine]
        once = flops.forward(policy.shape, (row for batch in mine for pair in batch for row in flops.rows_of(pair)))
        tokens = sum(len(s.tokens) for batch in mine for p in batch for s in (p.chosen, p.rejected))
        turns.end(tokens, losses=losses, flops=(flops.TRAINING + 1) * once)


def trl(options: Options, turns: Turns) -> None:
    from trl import DPOConfig, DPOTrainer

    from benchmarks.trl_side import dataset, frozen, settings, taking_turns, theirs, tokenizer, words

    turns.imported()
    rows = [p for step in range(options.all_steps) for p in pairs(options.shape, step)]
    columns = {  # it tokenises by itself, before training
        "prompt": [words(prompt_of(p.chosen)) for p in rows],
        "chosen": [f" {words(answer_of(p.chosen))}" for p in rows],
        "rejected": [f" {words(answer_of(p.rejected))}" for p in rows],
    }
    model = theirs(start(options.shape))
    trainer = taking_turns(DPOTrainer, turns, options)(
        model=model,
        ref_model=frozen(model, options.torch_dtype),
        args=DPOConfig(**settings(options, OPTIMISER, ROWS // 2), beta=BETA, max_length=LONGEST),
        train_dataset=dataset(columns),
        processing_class=tokenizer(SHAPES[options.shape].vocab),
    )
    trainer.train()


SIDES = {OURS: ours, "trl": trl}
WORK = Work("dpo", "tokens/s", SIDES, tolerance={"fp32": 2e-4, "bf16": 1e-2})

if __name__ == "__main__":
    main(WORK, __doc__ or "")
