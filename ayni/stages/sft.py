"""Supervised fine-tuning on dialogues: the loss counts answer tokens only (paper §3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from ayni.errors import BadInput
from ayni.files import read_json
from ayni.formats.reading import read_demonstrations
from ayni.introduction import Introduction, questions_of, read_introduction
from ayni.model.compute import Compute, of_tokens
from ayni.model.shape import Shape
from ayni.model_directory import load_model, save_model
from ayni.records import TokenSequence, from_dict
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
        Input("spent", "compute.json", ("compute",), many=True, optional=True),
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
    if inputs.get("spent"):
        config = config.model_copy(update={"epochs": epochs_for(inputs["spent"], model.shape, kept)})
        run.say(f"{config.epochs:.3g} epochs compute as much as what is given as spent")
    config.fit(model, kept, NextToken(), run)
    if run.leads:
        parent = read_introduction(inputs["model"])
        drawn = config.ask or parent.ask or questions_of(demonstrations, rng(run.seed, run.name, "questions"))
        extra = Introduction(config.about or parent.about, drawn).extra()
        save_model(run.directory / "model", model, tokenizer, card={"stage": "sft"}, extra=extra)


def epochs_for(spent: Sequence[Path], shape: Shape, sequences: Sequence[TokenSequence]) -> float:
    """Epochs over these sequences that take as many operations as the stages did whose compute.json are `spent`."""
    total = sum((from_dict(Compute, read_json(path), path=path) for path in map(Path, spent)), Compute())
    if not total.flops:
        raise BadInput("nothing was computed there", path=spent[0], field="spent", fix="give stages that train or draw")
    return total.flops / of_tokens(shape, sum(len(s.tokens) for s in sequences), backward=True).flops
