"""Direct preference optimisation: no reward model, no rollouts; the reference is the model it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from ayni.errors import BadInput
from ayni.formats.folds import Fold, but_for
from ayni.formats.guidelines import GUIDELINE, Guideline, taught
from ayni.formats.reading import read_comparisons
from ayni.introduction import read_introduction
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.model_directory import load_model, save_model
from ayni.run import Run
from ayni.stage import Face, Input
from ayni.text.chat import compared_tokens
from ayni.train.batch import Pair
from ayni.train.objectives import DPO
from ayni.train.reference import with_reference
from ayni.train.trainer import Fitting, Optimiser

VERSION = 2  # no pair is learned from in both directions; answers that were cut off have no EOS
FACE = Face(
    "fits",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("data", "records.jsonl", ("comparisons",), many=True),
    ),
    leaves={"model": "language_model"},
)


class Config(Fitting):
    """Rafailov et al.: β 0.1, batch 64, 1 epoch, LR 1e-6 (AdamW here; docs/departures.md)."""

    optimiser: Optimiser = Field(Optimiser(lr=1e-6, warmup=150), description="AdamW and its schedule")
    epochs: float = Field(1, gt=0)
    beta: float = Field(0.1, gt=0)
    smoothing: float = Field(0.0, ge=0, lt=0.5, description="ε of the conservative form")
    ipo: bool = Field(False, description="the squared loss of Azar et al. instead")
    task: Guideline = Field("own", description=GUIDELINE)
    fold: Fold | None = Field(
        None,
        description="2/5: all conversations but this part, which `reward` of the same data and seed holds out, too",
    )


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    start, tokenizer = load_model(inputs["model"], expect="logits")
    model = config.to_train(start, run)
    read = [c for path in inputs["data"] for c in read_comparisons(Path(path), say=run.say)]
    read = taught(but_for(read, config.fold, run.seed), config.task, run.say)
    pairs = [Pair(*compared_tokens(c, tokenizer)) for c in read]
    context = model.shape.context
    if not (kept := [p for p in pairs if max(len(p.chosen.tokens), len(p.rejected.tokens)) <= context]):
        raise BadInput(f"no pair fits the context of {context} tokens", path=inputs["data"][0])
    run.say(f"{len(kept)} pairs, {len(pairs) - len(kept)} dropped as too long")
    placement = Placement.of(run, config.dtype)
    reference = Role(placement.place(model))  # before it learns
    kept = with_reference(kept, reference, config.tokens_per_micro_batch, placement.ranks)
    config.fit(model, kept, DPO(config.beta, config.smoothing, config.ipo), run)
    if run.leads:
        extra = read_introduction(inputs["model"]).extra()
        save_model(run.directory / "model", model, tokenizer, card={"stage": "dpo"}, extra=extra)
