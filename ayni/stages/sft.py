"""Supervised fine-tuning on dialogues: the loss counts answer tokens only (paper §3.1).

Of comparisons the chosen answers are imitated: what DPO starts from (Rafailov et al. 2023, §4).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from ayni.errors import BadInput
from ayni.evaluate.checkpoint_choice import CheckpointChoice, checkpoint_chooser
from ayni.formats.guidelines import chosen_answers
from ayni.formats.reading import read_comparisons, read_demonstrations
from ayni.introduction import Introduction, questions_of, read_introduction
from ayni.model.role import Role
from ayni.model_directory import load_model, save_model
from ayni.run import Run
from ayni.seeds import rng
from ayni.stage import Face, Input
from ayni.text.chat import render
from ayni.train.equal_compute import epochs_for
from ayni.train.objectives import NextToken
from ayni.train.trainer import Fitting

VERSION = 2  # answers that were cut off have no EOS; the model introduces itself
FACE = Face(
    "fits",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("data", "records.jsonl", ("demonstrations",), many=True, optional=True),
        Input("chosen", "records.jsonl", ("comparisons",), many=True, optional=True),
        Input("validation", "prompts-validation.jsonl", ("prompts",), many=True, optional=True),
        Input("reward", "model", ("reward_model",), optional=True),
        Input("spent", "compute.json", ("compute",), many=True, optional=True),
    ),
    leaves={"model": "language_model"},
)


class Config(Fitting):
    dropout: float = Field(
        0.0, ge=0, lt=1, description="residual dropout at the top block, rising linearly from none at the bottom"
    )
    choice: CheckpointChoice = Field(
        CheckpointChoice(), description="which step is kept, where validation prompts and a reward are given"
    )
    max_tokens: int | None = Field(None, ge=2, description="drop longer dialogues (counted); default: the context")
    limit: int | None = Field(None, ge=1, description="use only the first so many dialogues")
    about: str = Field("", description="what `ayni chat` says that the model knows; default: what its parent says")
    ask: tuple[str, ...] = Field(
        (), strict=False, description="questions that `ayni chat` suggests; default: the parent's, or three of the data"
    )


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    start, tokenizer = load_model(inputs["model"], expect="logits")
    model = config.to_train(start, run)
    longest = min(config.max_tokens or model.shape.context, model.shape.context)
    data, chosen = (inputs.get(name) or [] for name in ("data", "chosen"))
    if not data and not chosen:
        raise BadInput("nothing to learn from", field="data", fix="give data, or comparisons as chosen")
    demonstrations = [d for path in data for d in read_demonstrations(Path(path))]
    demonstrations += chosen_answers([c for path in chosen for c in read_comparisons(Path(path), say=run.say)], run.say)
    demonstrations = demonstrations[: config.limit]
    rendered = [render(d.dialog, tokenizer, d.train, d.finished) for d in demonstrations]
    kept = [s for s in rendered if len(s.tokens) <= longest]
    if not kept:
        raise BadInput(f"no dialogue fits in {longest} tokens", path=(data or chosen)[0])
    run.say(f"{len(kept)} dialogues, {len(rendered) - len(kept)} dropped as longer than {longest} tokens")
    if inputs.get("spent"):
        config = config.model_copy(update={"epochs": epochs_for(inputs["spent"], model.shape, kept)})
        run.say(f"{config.epochs:.3g} epochs compute as much as what is given as spent")
    chooser = checkpoint_chooser(config.choice, config, inputs, tokenizer, len(kept), run)
    config.fit(model, kept, NextToken(), run, dropout=config.dropout, watch=chooser)
    if run.leads:
        if chooser is not None:
            step = chooser.restore(Role(model))
            run.say(f"the weights of step {step} are kept: a validation reward of {chooser.best:.3g}")
        parent = read_introduction(inputs["model"])
        drawn = config.ask or parent.ask or questions_of(demonstrations, rng(run.seed, run.name, "questions"))
        extra = Introduction(config.about or parent.about, drawn).extra()
        save_model(run.directory / "model", model, tokenizer, card={"stage": "sft"}, extra=extra)
