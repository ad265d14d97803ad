"""TRL 1.12.0's PPOTrainer as a side of benchmarks.ppo: the same four models, prompts, lengths and optimiser."""

from __future__ import annotations

import os
from typing import Any

from transformers import TrainerCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer

from ayni.text.chat import render_prompt
from ayni.train.trainer import Optimiser
from benchmarks.data import ROWS, SHAPES, start
from benchmarks.number_text import number_tokenizer
from benchmarks.options import Options
from benchmarks.ppo import ANSWER, PARTS, SETTINGS, prompts
from benchmarks.reward import scorer
from benchmarks.side import Turns
from benchmarks.trl_side import dataset, frozen, settings, theirs, tokenizer


class _Turn(TrainerCallback):
    """An iteration is one step of its loop, which hands what it measured to `log` just before."""

    def __init__(self, turns: Turns, steps: int) -> None:
        self.turns, self.steps = turns, steps
        self.entropies: list[float] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.turns.begin()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if len(self.entropies) == self.steps:
            self.turns.end(ROWS * self.steps, losses=self.entropies)
            self.entropies = []
            self.turns.begin()


def train(options: Options, turns: Turns) -> None:
    turns.imported()
    if options.dtype == "bf16":
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"  # this trainer asks nobody else
    shape, learned = SHAPES[options.shape], Optimiser(**SETTINGS["optimiser"])
    rows = [render_prompt(p.dialog, number_tokenizer()) for p in prompts(options)]
    config = PPOConfig(
        **settings(options, learned, ROWS),
        total_episodes=ROWS * options.all_steps,
        num_ppo_epochs=1,
        num_mini_batches=PARTS,
        gradient_accumulation_steps=1,
        local_rollout_forward_batch_size=ROWS,
        num_sample_generations=0,
        response_length=ANSWER,
        temperature=1.0,
        kl_coef=SETTINGS["beta"],
    )
    callback = _Turn(turns, options.steps)

    class Taking(PPOTrainer):
        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            callback.entropies.append(logs["objective/entropy"] / ANSWER)
            super().log(logs, *args, **kwargs)

    policy, value = theirs(start(options.shape)), theirs(scorer(options.shape))
    trainer = Taking(
        args=config,
        # ids beyond the vocabulary are never drawn, and this trainer masks them before a model reads them
        processing_class=tokenizer(shape.vocab, pad=shape.vocab, side="left"),
        model=policy,
        ref_model=frozen(policy, options.torch_dtype),
        reward_model=frozen(value, options.torch_dtype),
        value_model=value,
        train_dataset=dataset({"input_ids": rows}),
        eval_dataset=dataset({"input_ids": rows[:ROWS]}),
        callbacks=[callback],
    )
    trainer.train()
