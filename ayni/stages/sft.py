"""Supervised fine-tuning on dialogues: the loss counts answer tokens only (paper §3.1).

Of comparisons the chosen answers are imitated: what DPO starts from (Rafailov et al. 2023, §4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from ayni.errors import BadInput
from ayni.evaluate.checkpoint_choice import Choice, Chooser
from ayni.evaluate.splits import check_split
from ayni.files import read_json
from ayni.formats.guidelines import taught
from ayni.formats.reading import read_comparisons, read_demonstrations, read_prompts_of
from ayni.introduction import Introduction, questions_of, read_introduction
from ayni.model.compute import Compute, of_tokens
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.model.shape import Shape
from ayni.model_directory import load_model, save_model
from ayni.records import Comparison, Demonstration, Message, TokenSequence, from_dict
from ayni.reward.model import load_reward
from ayni.run import Run
from ayni.seeds import rng
from ayni.stage import Face, Input
from ayni.text.chat import render
from ayni.text.tokenizer import Tokenizer
from ayni.train.objectives import NextToken
from ayni.train.trainer import Fitting, steps_per_epoch, total_steps

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
    choice: Choice = Field(Choice(), description="which step is kept, where validation prompts and a reward are given")
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
    chooser = chooser_of(config, inputs, tokenizer, len(kept), run)
    config.fit(model, kept, NextToken(), run, dropout=config.dropout, watch=chooser)
    if run.leads:
        if chooser is not None:
            step = chooser.restore(Role(model))
            run.say(f"the weights of step {step} are kept: a validation reward of {chooser.best:.3g}")
        parent = read_introduction(inputs["model"])
        drawn = config.ask or parent.ask or questions_of(demonstrations, rng(run.seed, run.name, "questions"))
        extra = Introduction(config.about or parent.about, drawn).extra()
        save_model(run.directory / "model", model, tokenizer, card={"stage": "sft"}, extra=extra)


def chosen_answers(comparisons: Sequence[Comparison], say: Callable[[str], None]) -> list[Demonstration]:
    """Each answer that the guideline of its prompt chose, once; those that `dpo` learns from by default."""
    found = (
        Demonstration((*c.prompt.dialog, Message("assistant", c.chosen)), "last", c.source, c.finished_chosen)
        for c in taught(comparisons, "own", say)
    )
    return list(dict.fromkeys(found))


def chooser_of(
    config: Config, inputs: dict[str, Any], tokenizer: Tokenizer, dialogues: int, run: Run
) -> Chooser | None:
    """Who looks at the model while it is trained; None where the last step is kept."""
    if bool(inputs.get("validation")) != bool(inputs.get("reward")):
        raise BadInput(
            "validation prompts and a reward belong together", field="validation", fix="give both, or neither"
        )
    if not inputs.get("validation"):
        return None
    prompts = read_prompts_of(inputs["validation"])
    check_split(prompts, final=False, path=inputs["validation"][0])
    if config.choice.first >= config.epochs:
        what = f"the first look is after {config.choice.first:g} epochs, and there are {config.epochs:g}"
        raise BadInput(what, field="choice.first", fix="look earlier, or train longer")
    reward = load_reward(inputs["reward"], Placement.of(run, config.dtype))
    steps = total_steps(dialogues, config.batch_size, config.epochs)
    looks = config.choice.looks(steps_per_epoch(dialogues, config.batch_size), steps)
    return Chooser(config.choice, looks, prompts, reward, tokenizer, run)


def epochs_for(spent: Sequence[Path], shape: Shape, sequences: Sequence[TokenSequence]) -> float:
    """Epochs over these sequences that take as many operations as the stages did whose compute.json are `spent`."""
    total = sum((from_dict(Compute, read_json(path), path=path) for path in map(Path, spent)), Compute())
    if not total.flops:
        raise BadInput("nothing was computed there", path=spent[0], field="spent", fix="give stages that train or draw")
    return total.flops / of_tokens(shape, sum(len(s.tokens) for s in sequences), backward=True).flops
