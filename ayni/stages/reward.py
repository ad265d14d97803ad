"""A reward model from comparisons: ranking loss with margins, safety auxiliary loss (paper §3.2.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ayni.errors import BadInput
from ayni.evaluate.results import Result, result, write_results
from ayni.evaluate.reward_accuracy import accuracy_gains, reward_accuracy, threshold_report
from ayni.formats.reading import read_comparisons
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.model.score_head import with_score_head
from ayni.model_directory import load_model, save_model
from ayni.records import Comparison, margin_of, root_of, safe_answers
from ayni.reward.model import RewardModel, load_reward
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input
from ayni.text.chat import answer_tokens
from ayni.text.tokenizer import Tokenizer
from ayni.train.batch import Pair
from ayni.train.objectives import Ranking
from ayni.train.trainer import Fitting, Optimiser

VERSION = 2  # intervals go by conversation
FACE = Face(
    "fits",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("data", "records.jsonl", ("comparisons",), many=True),
        Input("heldout", "heldout.jsonl", ("comparisons",), many=True, optional=True),
        Input("against", "model", ("reward_model",), optional=True),
    ),
    leaves={"model": "reward_model"},
)


class Config(Fitting):
    """Paper: 1 epoch (more overfits), 512 pairs, LR 1e-5 (5e-6 for 70B)."""

    epochs: float = Field(1, gt=0)
    optimiser: Optimiser = Field(Optimiser(lr=1e-5), description="AdamW and its schedule")
    batch_size: int = Field(512, ge=1, description="pairs per step")
    task: Literal["helpfulness", "safety"] = Field("helpfulness", description="whose comparisons are at home here")
    data_task: Literal["helpfulness", "safety"] | None = Field(
        None, description="set on every comparison read; hh-rlhf files, for one, do not say their task"
    )
    other_share: float = Field(0.0, ge=0, lt=1, description="share of pairs taken from the other task (paper: 10%)")
    margin: Literal["none", "small", "large"] = Field("small", description="margin table by rating")
    safety_weight: float = Field(0.0, ge=0, description="λ of the safety auxiliary loss")
    heldout_share: float = Field(0.1, ge=0, lt=1, description="held out of `data` if no held-out input is given")


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    language_model, tokenizer = load_model(inputs["model"], expect="logits")
    model = with_score_head(config.to_train(language_model, run), seed_of(run.seed, run.name, "head"))
    comparisons, heldout = (
        [c for path in inputs.get(name) or [] for c in read_comparisons(Path(path), task=config.data_task, say=run.say)]
        for name in ("data", "heldout")
    )
    home = [c for c in comparisons if c.task == config.task]
    if not home:
        raise BadInput(f"no comparison of the task {config.task}", path=inputs["data"][0])
    order = rng(run.seed, run.name, "split")
    if not heldout:
        # by prompt: pairs of one prompt, of either task, never stand on both sides
        asked = sorted({c.prompt.dialog for c in home}, key=repr)
        count = round(config.heldout_share * len(asked))
        apart = {asked[i] for i in order.permutation(len(asked))[:count]}
        heldout = [c for c in home if c.prompt.dialog in apart]
        comparisons = [c for c in comparisons if c.prompt.dialog not in apart]
        home = [c for c in comparisons if c.task == config.task]
    elif leaks := {c.prompt.dialog for c in heldout} & {c.prompt.dialog for c in comparisons}:
        comparisons = [c for c in comparisons if c.prompt.dialog not in leaks]
        home = [c for c in comparisons if c.task == config.task]
        run.say(f"{len(leaks)} prompts are held out, so their comparisons are not trained on")
        if not home:
            raise BadInput("every prompt to train on is held out", field="heldout", fix="hold others out, or none")
    other = [c for c in comparisons if c.task != config.task]
    wanted = min(len(other), round(len(home) * config.other_share / (1 - config.other_share)))
    train = home + [other[i] for i in order.permutation(len(other))[:wanted]]
    pairs = [pair_of(c, tokenizer, config) for c in train]
    kept = [p for p in pairs if fits(p, model.shape.context)]
    if not kept:
        raise BadInput(f"no pair fits the context of {model.shape.context} tokens", path=inputs["data"][0])
    at_home = [c for c in heldout if c.task == config.task]
    judged = [c for c in at_home if fits(pair_of(c, tokenizer, config), model.shape.context)]
    dropped = f"{len(pairs) - len(kept)} and {len(at_home) - len(judged)} dropped as too long"
    run.say(f"{len(kept)} pairs, {len(judged)} held out ({dropped})")
    before = load_reward(inputs["against"], Placement.of(run, config.dtype)) if inputs.get("against") else None
    config.fit(model, kept, Ranking(config.safety_weight), run)
    if not run.leads:
        return
    save_model(run.directory / "model", model, tokenizer, card={"stage": f"reward ({config.task})"})
    reward = RewardModel(Role(model), tokenizer, run.name)
    rows = heldout_results(reward, judged, config.task)
    if before is not None:
        rows += gains(reward, before, judged, config.task, run.seed)
    write_results(run.directory / "results.json", rows)


def pair_of(c: Comparison, tokenizer: Tokenizer, config: Config) -> Pair:
    """A comparison as a pair of sequences, its margin and its safety labels."""
    chosen, rejected = (answer_tokens(c.prompt.dialog, text, tokenizer) for text in (c.chosen, c.rejected))
    return Pair(chosen, rejected, margin_of(c, config.margin), safe_answers(c))


def fits(pair: Pair, context: int) -> bool:
    return max(len(pair.chosen.tokens), len(pair.rejected.tokens)) <= context


def heldout_results(reward: RewardModel, heldout: list[Comparison], task: str) -> list[Result]:
    """Accuracy overall and by rating, calibration, and how well σ = 0.15 divides safe from unsafe answers."""
    chosen, rejected = scores_of(reward, heldout)
    where = {"axis": task, "model": reward.name, "split": "heldout"}
    asked = [root_of(c.prompt.dialog) for c in heldout]
    rows = reward_accuracy(chosen, rejected, [c.rating for c in heldout], asked).results(**where)
    labelled = [
        (score, safe, root)
        for c, root, *scores in zip(heldout, asked, chosen, rejected, strict=True)
        for score, safe in zip(scores, safe_answers(c), strict=True)
        if safe is not None
    ]
    if not all(safe for _, safe, _ in labelled):
        of, safe, owners = zip(*labelled, strict=True)
        rows += threshold_report(of, safe, owners).results(**where)
    return rows


def gains(reward: RewardModel, before: RewardModel, heldout: list[Comparison], task: str, seed: int) -> list[Result]:
    """Rows `accuracy_gain` and `accuracy_gain:RATING`: this model's accuracy minus the earlier one's."""
    now, then = (np.subtract(*scores_of(model, heldout)) for model in (reward, before))
    found = accuracy_gains(now, then, [c.rating for c in heldout], [root_of(c.prompt.dialog) for c in heldout])
    where: dict[str, Any] = {
        "axis": task,
        "model": reward.name,
        "against": before.name,
        "split": "heldout",
        "seed": seed,
    }
    return [
        result(f"accuracy_gain:{rating}" if rating else "accuracy_gain", gain, judge="labels", **where)
        for rating, gain in found.items()
    ]


def scores_of(reward: RewardModel, comparisons: list[Comparison]) -> tuple[np.ndarray, np.ndarray]:
    """Raw scores of the chosen and of the rejected answers: (P,), (P,)."""
    prompts = [c.prompt for c in comparisons]
    chosen, rejected = [c.chosen for c in comparisons], [c.rejected for c in comparisons]
    return reward.score_answers(prompts, chosen).numpy(), reward.score_answers(prompts, rejected).numpy()
