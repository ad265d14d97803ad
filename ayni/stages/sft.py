"""Supervised fine-tuning on dialogues: the loss counts answer tokens only (paper §3.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from ayni.errors import BadInput
from ayni.formats.reading import read_demonstrations
from ayni.model_directory import load_model, save_model
from ayni.run import Run
from ayni.stage import Face, Input
from ayni.text.chat import render
from ayni.train.objectives import NextToken
from ayni.train.trainer import Fitting

VERSION = 2  # answers that were cut off have no EOS
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
        save_model(run.directory / "model", model, tokenizer, card={"stage": "sft"})
