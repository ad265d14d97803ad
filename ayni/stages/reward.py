"""A reward model from comparisons: ranking loss with margins, safety auxiliary loss (paper §3.2.2).

Its directory says what is known of the scale of its scores: the safety labels they are anchored to, and their mean and
deviation on answers of the model it started from (departure 30).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from ayni.config import Config as Base
from ayni.errors import BadInput
from ayni.evaluate.leads import LEADS, baseline_results, leads_of
from ayni.evaluate.results import Result, result, write_results
from ayni.evaluate.reward_accuracy import HALF, accuracy_gains, accuracy_parts, reward_accuracy, threshold_report
from ayni.files import write_jsonl
from ayni.formats.folds import Fold, conversations, fold_order, part_of
from ayni.formats.reading import read_comparisons
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.model.score_head import with_score_head
from ayni.model.score_scale import Anchor, Normalisation, ScoreScale
from ayni.model_directory import load_model, save_model
from ayni.records import RATINGS, Comparison, Prompt, Rating, Sample, Task, margin_of, root_of, safe_answers, to_dict
from ayni.reward.model import RewardModel, load_reward
from ayni.rollout.engine import rollout, with_room
from ayni.rollout.local import LocalEngine
from ayni.rollout.sampling import Sampling
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input
from ayni.text.chat import compared_tokens
from ayni.text.tokenizer import Tokenizer
from ayni.train.batch import Pair
from ayni.train.objectives import Ranking
from ayni.train.trainer import Fitting, Optimiser

VERSION = 2  # anchored, held out by conversation, cut answers without EOS, at least 5 steps of warm-up
FACE = Face(
    "fits",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("data", "records.jsonl", ("comparisons",), many=True),
        Input("heldout", "heldout.jsonl", ("comparisons",), many=True, optional=True),
        Input("against", "model", ("reward_model",), optional=True),
    ),
    leaves={"model": "reward_model", "leads.jsonl": "leads"},
)


# Paper §3.2.2: 10% of the safety model's pairs are about helpfulness. Its helpfulness model takes as many of others as
# of its own; here that is asked for.
OTHER_SHARE: dict[Task, float] = {"helpfulness": 0.0, "safety": 0.1}


class Margins(Base):
    """By how much the chosen answer's score should lead."""

    significantly_better: float = Field(ge=0)
    better: float = Field(ge=0)
    slightly_better: float = Field(ge=0)
    negligibly_better_or_unsure: float = Field(ge=0)

    @model_validator(mode="after")
    def _fall(self) -> Margins:
        given = list(self.table().values())
        if given != sorted(given, reverse=True):
            raise ValueError("a weaker preference must not have a larger margin")
        return self

    def table(self) -> dict[Rating, float]:
        return {rating: getattr(self, rating) for rating in RATINGS}


Named = Literal["none", "small", "large"]
Margin = Annotated[
    Annotated[Named, Tag("name")] | Annotated[Margins, Tag("table")],
    # so that an error is about what was meant
    Discriminator(lambda given: "name" if isinstance(given, str) else "table"),
]


class Config(Fitting):
    """Paper: 1 epoch (more overfits), 512 pairs, LR 1e-5 (5e-6 for 70B)."""

    epochs: float = Field(1, gt=0)
    # paper §3.2.2: a warm-up of 3% of the steps, at least 5
    optimiser: Optimiser = Field(Optimiser(lr=1e-5, least_warmup=5), description="AdamW and its schedule")
    batch_size: int = Field(512, ge=1, description="pairs per step")
    task: Literal["helpfulness", "safety"] = Field("helpfulness", description="whose comparisons are at home here")
    data_task: Literal["helpfulness", "safety"] | None = Field(
        None, description="set on every comparison read; hh-rlhf files, for one, do not say their task"
    )
    other_share: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of pairs taken from the other task; default: 0.1 of safety's (paper), else 0",
    )
    margin: Margin = Field("small", description="margin table by rating: none, small, large, or one of your own")
    weights: dict[str, Annotated[float, Field(gt=0, le=1e6)]] | None = Field(
        None, description="{SOURCE: weight}: how much the pairs of a source count; those of others count 1"
    )
    safety_weight: float | None = Field(
        None,
        ge=0,
        description="λ of the safety auxiliary loss; default: 1 for safety, given labels of both kinds, else 0",
    )
    heldout_share: float = Field(0.1, ge=0, lt=1, description="of the conversations, if no held-out input is given")
    fold: Fold | None = Field(None, description="2/5: instead, the second of five parts of all of them")
    start_answers: int = Field(
        256, ge=0, description="answers of the start model whose scores' mean and deviation are kept; 0: none"
    )
    max_tokens: int = Field(256, ge=1, description="the longest of these answers")


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    language_model, tokenizer = load_model(inputs["model"], expect="logits")
    model = with_score_head(config.to_train(language_model, run), seed_of(run.seed, run.name, "head"))
    comparisons, heldout = (
        [c for path in inputs.get(name) or [] for c in read_comparisons(Path(path), task=config.data_task, say=run.say)]
        for name in ("data", "heldout")
    )
    if not any(c.task == config.task for c in comparisons):
        raise BadInput(f"no comparison of the task {config.task}", path=inputs["data"][0])
    if config.fold is not None and inputs.get("heldout"):
        raise BadInput("a part of data cannot be held out beside heldout", field="fold", fix="give one of them")
    order, before_split = fold_order(run.seed), len(comparisons)
    comparisons, heldout = split(comparisons, heldout, config, order)
    if inputs.get("heldout") and len(comparisons) < before_split:
        run.say(f"{before_split - len(comparisons)} comparisons are of conversations held out, and not trained on")
    train = mixed(comparisons, config, order)
    if not any(c.task == config.task for c in train):
        raise BadInput("every prompt to train on is held out", field="heldout", fix="hold others out, or none")
    check_weights(config, {c.source for c in train}, inputs["data"][0])
    pairs = [pair_of(c, tokenizer, config) for c in train]
    train = [c for c, p in zip(train, pairs, strict=True) if fits(p, model.shape.context)]
    kept = [p for p in pairs if fits(p, model.shape.context)]
    if not kept:
        raise BadInput(f"no pair fits the context of {model.shape.context} tokens", path=inputs["data"][0])
    at_home = [c for c in heldout if c.task == config.task]
    judged = [c for c in at_home if fits(pair_of(c, tokenizer, config), model.shape.context)]
    dropped = f"{len(pairs) - len(kept)} and {len(at_home) - len(judged)} dropped as too long"
    anchor = anchor_of(kept, config)
    others = sum(c.task != config.task for c in train)
    run.say(f"{len(kept)} pairs, {others} of the other task; {len(judged)} held out ({dropped})")
    run.say(f"safety anchor: {anchor}")
    placement = Placement.of(run, config.dtype)
    before = load_reward(inputs["against"], placement) if inputs.get("against") else None
    config.fit(model, evenly(kept), Ranking(anchor.safety_weight), run)
    speaker = LocalEngine(Role(placement.place(language_model)), tokenizer, run.name, placement.ranks)
    at_home_prompts = list({c.prompt.dialog: c.prompt for c in [*train, *judged] if c.task == config.task}.values())
    drawn = start_answers(speaker, at_home_prompts, config, run)
    if not run.leads:
        return
    reward = RewardModel(Role(model), tokenizer, run.name)
    scale = ScoreScale(anchor, normalisation_of(reward, drawn, run))
    card = {"stage": f"reward ({config.task})"}
    save_model(run.directory / "model", model, tokenizer, card=card, extra=scale.noted())
    scores = scores_of(reward, judged)
    rows = heldout_results(*scores, judged, axis=config.task, model=run.name)
    if away := [
        c for c in heldout if c.task != config.task and fits(pair_of(c, tokenizer, config), reward.role.context)
    ]:
        rows.append(elsewhere(reward, away))
    if before is not None:
        rows += gains(np.subtract(*scores), before, judged, axis=config.task, model=run.name, seed=run.seed)
    leads = leads_of(np.subtract(*scores), train, judged) if judged else []
    write_jsonl(run.directory / LEADS, map(to_dict, leads))
    if leads:
        where = {"axis": config.task, "split": "heldout", "judge": "labels", "model": run.name, "seed": run.seed}
        rows += baseline_results(leads, **where)
    write_results(run.directory / "results.json", rows)


def split(
    comparisons: list[Comparison], heldout: list[Comparison], config: Config, order: np.random.Generator
) -> tuple[list[Comparison], list[Comparison]]:
    """(to train on, held out): a share, or one of several parts, of the task's own where none are held out already.

    By conversation: its pairs, of any turn and of either task, never stand on both sides.
    """
    if heldout:
        apart = {root_of(c.prompt.dialog) for c in heldout}
    else:
        home = [c for c in comparisons if c.task == config.task]
        if config.fold is None:
            roots = conversations(home)
            apart = {roots[i] for i in order.permutation(len(roots))[: round(config.heldout_share * len(roots))]}
        else:
            apart = part_of(comparisons, config.fold, order)
        heldout = [c for c in home if root_of(c.prompt.dialog) in apart]
        if config.fold is not None and not heldout:
            what = f"no comparison of the task {config.task} is in the part {config.fold}"
            raise BadInput(what, field="fold", fix="hold out another part, or fewer parts")
    return [c for c in comparisons if root_of(c.prompt.dialog) not in apart], heldout


def mixed(comparisons: list[Comparison], config: Config, order: np.random.Generator) -> list[Comparison]:
    """The task's own comparisons, and of the other task's as many as its share asks for."""
    home = [c for c in comparisons if c.task == config.task]
    # a prompt that is judged at home too would be judged by two guidelines that contradict each other
    own = {c.prompt.dialog for c in home}
    other = [c for c in comparisons if c.task != config.task and c.prompt.dialog not in own]
    share = OTHER_SHARE[config.task] if config.other_share is None else config.other_share
    wanted = min(len(other), round(len(home) * share / (1 - share)))
    return home + [other[i] for i in order.permutation(len(other))[:wanted]]


def anchor_of(pairs: Sequence[Pair], config: Config) -> Anchor:
    """What the scores are fitted to beside the ranking: the labels of these pairs, at the weight set or the default."""
    labels = [safe for pair in pairs for safe in pair.safe]
    safe, unsafe = labels.count(True), labels.count(False)
    weight = config.safety_weight
    if weight is None:
        # labels of one kind would push every score one way
        weight = 1.0 if config.task == "safety" and safe and unsafe else 0.0
    return Anchor(weight, safe, unsafe)


def start_answers(
    engine: LocalEngine, prompts: list[Prompt], config: Config, run: Run
) -> list[tuple[Prompt, list[Sample]]]:
    """Answers that the model it started from draws, to prompts chosen by the seed, as far as they ended."""
    if not config.start_answers:
        return []
    prompts = with_room(prompts, [engine], run.say)
    order = rng(run.seed, run.name, "start").permutation(len(prompts))[: config.start_answers]
    asked, sampling = [prompts[i] for i in order], Sampling(1.0, 1.0, config.max_tokens)
    groups = rollout(engine, asked, n=1, sampling=sampling, seed=seed_of(run.seed, run.name, "start"))
    # a score is read at EOS: of a cut-off answer it would be another thing's
    return [(p, group) for p, group in zip(asked, groups, strict=True) if group[0].finished == "stop"]


def normalisation_of(
    reward: RewardModel, drawn: Sequence[tuple[Prompt, list[Sample]]], run: Run
) -> Normalisation | None:
    """Of the scores of these answers; says so where there is none."""
    if drawn:
        scores = reward.score_samples([p for p, _ in drawn], [group for _, group in drawn], reward.tokenizer)
        if (found := Normalisation.of(scores)) is not None:
            run.say(f"raw scores: {found}")
            return found
    run.say("no mean and deviation of its scores: the start model has finished no answers, or was asked for none")
    return None


def pair_of(c: Comparison, tokenizer: Tokenizer, config: Config) -> Pair:
    """A comparison as a pair of sequences, its margin and its safety labels."""
    chosen, rejected = compared_tokens(c, tokenizer)
    table = config.margin if isinstance(config.margin, str) else config.margin.table()
    weight = (config.weights or {}).get(c.source, 1.0)
    # a probability says how much better already: the margin of its rating would say it twice
    margin = margin_of(c, table) if c.probability is None else c.margin or 0.0
    return Pair(chosen, rejected, margin, safe_answers(c), weight=weight, probability=c.probability or 1.0)


def check_weights(config: Config, sources: set[str], path: Path) -> None:
    """BadInput where a weight is for a source that no pair has: a name misspelt would count 1 in silence."""
    for name in config.weights or {}:
        if name not in sources:
            known = ", ".join(sorted(sources - {""})) or "none has one"
            raise BadInput(f"no pair has the source {name!r}", path=path, field="weights", fix=f"sources: {known}")


def evenly(pairs: list[Pair]) -> list[Pair]:
    """The same weights beside each other, with mean 1: a step's mean loss stays one of pairs."""
    mean = sum(p.weight for p in pairs) / len(pairs)
    return pairs if mean == 1 else [replace(p, weight=p.weight / mean) for p in pairs]


def fits(pair: Pair, context: int) -> bool:
    return max(len(pair.chosen.tokens), len(pair.rejected.tokens)) <= context


def heldout_results(
    chosen: np.ndarray, rejected: np.ndarray, heldout: list[Comparison], *, axis: str, model: str
) -> list[Result]:
    """Accuracy overall, by rating and by part, calibration, and how well σ = 0.15 and 0.5 divide safe from unsafe; from
    the scores of the chosen and of the rejected answers (P,)."""
    where = {"axis": axis, "model": model, "split": "heldout"}
    asked = [root_of(c.prompt.dialog) for c in heldout]
    rows = reward_accuracy(chosen, rejected, [c.rating for c in heldout], asked).results(**where)
    parts = accuracy_parts(chosen - rejected, heldout)
    rows += [result(f"accuracy_{name}", part, judge="labels", **where) for name, part in parts.items()]
    labelled = [
        (score, safe, root)
        for c, root, *scores in zip(heldout, asked, chosen, rejected, strict=True)
        for score, safe in zip(scores, safe_answers(c), strict=True)
        if safe is not None
    ]
    if not all(safe for _, safe, _ in labelled):
        of, safe, owners = zip(*labelled, strict=True)
        rows += threshold_report(of, safe, owners).results(**where)
        rows += threshold_report(of, safe, owners, HALF).results(**where)
    return rows


def elsewhere(reward: RewardModel, away: list[Comparison]) -> Result:
    """Row `accuracy_elsewhere`, on the other task's axis: at home each model should be the better (paper Table 7)."""
    asked = [root_of(c.prompt.dialog) for c in away]
    found = reward_accuracy(*scores_of(reward, away), [c.rating for c in away], asked).accuracy
    return result("accuracy_elsewhere", found, axis=away[0].task, judge="labels", model=reward.name, split="heldout")


def gains(now: np.ndarray, before: RewardModel, heldout: list[Comparison], **where: Any) -> list[Result]:
    """Rows `accuracy_gain` and `accuracy_gain:RATING`: this model's accuracy, from its differences `now` (P,), minus
    the earlier one's."""
    then = np.subtract(*scores_of(before, heldout))
    found = accuracy_gains(now, then, [c.rating for c in heldout], [root_of(c.prompt.dialog) for c in heldout])
    where |= {"against": before.name, "split": "heldout"}
    return [
        result(f"accuracy_gain:{rating}" if rating else "accuracy_gain", gain, judge="labels", **where)
        for rating, gain in found.items()
    ]


def scores_of(reward: RewardModel, comparisons: list[Comparison]) -> tuple[np.ndarray, np.ndarray]:
    """Raw scores of the chosen and of the rejected answers: (P,), (P,)."""
    rows = [[s.tokens for s in compared_tokens(c, reward.tokenizer)] for c in comparisons]
    chosen, rejected = (reward.score_tokens([pair[side] for pair in rows]).numpy() for side in (0, 1))
    return chosen, rejected
