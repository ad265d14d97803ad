"""Supervised fine-tuning on dialogues: the loss counts answer tokens only (paper §3.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from ayni.errors import BadInput
from ayni.formats.reading import read_demonstrations
from ayni.introduction import Introduction, questions_of, read_introduction
from ayni.model_directory import load_model, save_model
from ayni.run import Run
from ayni.seeds import rng
from ayni.stage import Face, Input
from ayni.text.chat import render
from ayni.train.objectives import NextToken
from ayni.train.trainer import Fitting

VERSION = 2  # answers that were cut off have no EOS; the model introduces itself
FACE = Face(
    "fits",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("data", "records.jsonl", ("demonstrations",), many=True),
    ),
    leaves={"model": "language_model"},
)


class Config(Fitting):
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
    demonstrations = [d for path in inputs["data"] for d in read_demonstrations(Path(path))][: config.limit]
    rendered = [render(d.dialog, tokenizer, d.train, d.finished) for d in demonstrations]
    kept = [s for s in rendered if len(s.tokens) <= longest]
    if not kept:
        raise BadInput(f"no dialogue fits in {longest} tokens", path=inputs["data"][0])
    run.say(f"{len(kept)} dialogues, {len(rendered) - len(kept)} dropped as longer than {longest} tokens")
    config.fit(model, kept, NextToken(), run)
    if run.leads:
        parent = read_introduction(inputs["model"])
        drawn = config.ask or parent.ask or questions_of(demonstrations, rng(run.seed, run.name, "questions"))
        extra = Introduction(config.about or parent.about, drawn).extra()
        save_model(run.directory / "model", model, tokenizer, card={"stage": "sft"}, extra=extra)
