"""KTO: learn from single judgements, thumbs up and down, without pairs; the reference is the model it starts from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from ayni.errors import BadInput
from ayni.formats.folds import Fold, but_for
from ayni.formats.guidelines import GUIDELINE, Guideline, taught, under
from ayni.formats.pairing import liked
from ayni.formats.reading import scan
from ayni.introduction import read_introduction
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.model_directory import load_model, save_model
from ayni.records import Comparison, Dialog, Finished, Judgement, TokenSequence
from ayni.run import Run
from ayni.seeds import rng
from ayni.stage import Face, Input
from ayni.text.chat import answer_tokens
from ayni.train.kto import KTO, Thumb, with_references
from ayni.train.trainer import Fitting, Optimiser

VERSION = 4  # of less than an epoch, references are read of what is learnt from alone
FACE = Face(
    "fits",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("data", "records.jsonl", ("judgements", "comparisons"), many=True),
    ),
    leaves={"model": "language_model"},
)


class Config(Fitting):
    """Ethayarajh et al.: β 0.1, LR 5e-7 … 5e-6, one epoch, λ_D n_D ≈ λ_U n_U."""

    optimiser: Optimiser = Field(Optimiser(lr=5e-6), description="AdamW and its schedule")
    epochs: float = Field(1, gt=0)
    beta: float = Field(0.1, gt=0)
    desirable_weight: float = Field(1.0, ge=0, description="λ_D, of answers that are liked")
    undesirable_weight: float = Field(1.0, ge=0, description="λ_U, of the others")
    liked_from: float | None = Field(None, description="least score of a liked answer, where answers have scores")
    task: Guideline = Field("own", description=GUIDELINE)
    fold: Fold | None = Field(None, description="2/5: of comparisons, all conversations but this part, as `dpo` has it")


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    start, tokenizer = load_model(inputs["model"], expect="logits")
    model = config.to_train(start, run)
    judged = read_thumbs([Path(path) for path in inputs["data"]], config, run.seed, run.say)
    if len({each.liked for each in judged}) < 2:
        raise BadInput("every answer is judged alike", path=inputs["data"][0], fix="give liked and disliked answers")
    others = mismatched([each.dialog for each in judged], rng(run.seed, run.name, "mismatched"))

    def after(dialog: Dialog, said: JudgedAnswer) -> TokenSequence:
        return answer_tokens(dialog, said.answer, tokenizer, said.finished)

    thumbs = [
        Thumb(after(each.dialog, each), each.liked, after(each.dialog, judged[others[i]]))
        for i, each in enumerate(judged)
    ]
    context = model.shape.context
    kept = [t for t in thumbs if max(len(t.sequence.tokens), len(t.mismatched.tokens)) <= context]
    if not kept:
        raise BadInput(f"no answer fits the context of {context} tokens", path=inputs["data"][0])
    if config.epochs < 1:  # nobody needs the references of what is not learnt from
        some = rng(run.seed, run.name, "share").permutation(len(kept))[: math.ceil(config.epochs * len(kept))]
        kept, config = [kept[i] for i in some], config.model_copy(update={"epochs": 1})
    ups = sum(t.desirable for t in kept)
    run.say(f"{ups} liked, {len(kept) - ups} disliked answers, {len(thumbs) - len(kept)} dropped as too long")
    placement = Placement.of(run, config.dtype)
    reference = Role(placement.place(model))  # before it learns
    kept = with_references(kept, reference, config.tokens_per_micro_batch, placement.ranks)
    config.fit(model, kept, KTO(config.beta, config.desirable_weight, config.undesirable_weight), run)
    if run.leads:
        extra = read_introduction(inputs["model"]).extra()
        save_model(run.directory / "model", model, tokenizer, card={"stage": "kto"}, extra=extra)


def mismatched(dialogs: Sequence[Dialog], draw: np.random.Generator) -> list[int]:
    """For each answer another one, of another dialogue: the next such in a random order. BadInput if there is none."""
    if len(set(dialogs)) < 2:
        raise BadInput("all answers are to one prompt", field="data", fix="KTO needs answers to several prompts")
    count = len(dialogs)
    order = draw.permutation(count).tolist()
    found = [0] * count
    for at, i in enumerate(order):
        after = (order[(at + step) % count] for step in range(1, count))
        found[i] = next(j for j in after if dialogs[j] != dialogs[i])
    return found


class JudgedAnswer(NamedTuple):
    """An answer to a dialogue, and whether it is liked."""

    dialog: Dialog
    answer: str
    finished: Finished | None
    liked: bool


def read_thumbs(paths: Sequence[Path], config: Config, seed: int, say: Callable[[str], None]) -> list[JudgedAnswer]:
    """Of comparisons, whose chosen answers are liked, and of judgements."""
    comparisons: list[Comparison] = []
    judged: list[JudgedAnswer] = []
    for path in paths:
        scanned = scan(path)
        if scanned.left_out:
            say(f"{path}: {scanned.left_out}")
        for record in scanned.records:
            if isinstance(record, Comparison):
                comparisons.append(record)
                continue
            if not isinstance(record, Judgement):
                raise BadInput("holds neither judgements nor comparisons", path=path)
            if not under(config.task, record.prompt.task, record.prompt.task):
                continue
            if record.label is not None:
                up = bool(liked(record.label))
            elif config.liked_from is None or record.score is None:
                raise BadInput("the answers have scores", path=path, field="liked_from", fix="say from which score on")
            else:
                up = record.score >= config.liked_from
            judged.append(JudgedAnswer(record.prompt.dialog, record.response, record.finished, up))
    paired = [
        each
        for c in taught(but_for(comparisons, config.fold, seed), config.task, say)
        for each in (
            JudgedAnswer(c.prompt.dialog, c.chosen, c.finished_chosen, True),
            JudgedAnswer(c.prompt.dialog, c.rejected, c.finished_rejected, False),
        )
    ]
    return paired + judged
