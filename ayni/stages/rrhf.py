"""RRHF and PRO: K candidates ranked by reward; raise the better ones' likelihood, imitate the best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from ayni.errors import BadInput
from ayni.formats.reading import read_comparisons, read_prompts_of
from ayni.introduction import read_introduction
from ayni.maths.rewards import penalise_cut
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.model_directory import Trunks, load_model, save_model
from ayni.records import Dialog, Prompt, Sample
from ayni.reward.combine import THRESHOLD, CombinedReward, load_combined
from ayni.reward.model import load_reward
from ayni.rollout.beams import diverse_rollout
from ayni.rollout.engine import chunk_prompts, quoted_sample, rollout, sampled_sequence, with_room
from ayni.rollout.local import LocalEngine
from ayni.rollout.sampling import Sampling
from ayni.rollout.store import draw_all
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input
from ayni.text.tokenizer import Tokenizer
from ayni.train.batch import Group
from ayni.train.rrhf import PRO, RRHF
from ayni.train.trainer import Fitting

VERSION = 5  # the best answer is imitated token by token; what cannot be imitated ranks last, and is not
FACE = Face(
    "fits",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("reward", "model", ("reward_model",)),
        Input("reward_safety", "model", ("reward_model",), optional=True),
        Input("prompts", "prompts-train.jsonl", ("prompts",), many=True, optional=True),
        Input("data", "records.jsonl", ("comparisons",), many=True, optional=True),
    ),
    leaves={"model": "language_model", "samples.jsonl": "samples"},
)
Asked = tuple[Prompt, list[Sample]]  # a prompt, and the data's own answers to it


class Config(Fitting):
    """Yuan et al. 2023 draw 4 by diverse beam search, and add the data's own two answers."""

    loss: Literal["rrhf", "pro"] = Field(
        "rrhf", description="what ranks: rrhf, pair by pair, or pro, each against all that are worse (Song et al. 2023)"
    )
    epochs: float = Field(3, gt=0)
    candidates: Literal["sampled", "diverse_beams"] = Field("sampled", description="where the candidates come from")
    n: int = Field(4, ge=1, le=1 << 10, description="candidates per prompt; of diverse_beams, the groups")
    temperature: float = Field(1.0, gt=0)
    penalty: float = Field(
        1.0, ge=0, description="of diverse_beams, in nats: what a token costs that an earlier group has just taken"
    )
    max_tokens: int = Field(256, ge=1)
    ranking: float = Field(1.0, ge=0, description="weight of the ranking; 0: rejection sampling")
    imitation: float | None = Field(
        None,
        ge=0,
        description="weight of the cross-entropy of the best answer; null: 1, for pro 0.05 (l − 1)², l candidates",
    )
    limit: int | None = Field(None, ge=1, description="prompts to use, chosen by the seed")
    finished_only: bool = Field(True, description="an answer cut off at max_tokens is never imitated")
    threshold: float = Field(
        THRESHOLD, ge=0, le=1, description="below this safety, safety decides; 0: on prompts tagged safety alone"
    )


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    placement = Placement.of(run, config.dtype)
    trunks = Trunks() if config.lora else None  # the policy and reward models that are adapters of one trunk share it
    start, tokenizer = load_model(inputs["model"], expect="logits", trunks=trunks)
    model = config.to_train(start, run)
    engine = LocalEngine(Role(placement.place(model)), tokenizer, run.name, placement.ranks)
    helpful = load_reward(inputs["reward"], placement, trunks)
    reward = load_combined(helpful, inputs.get("reward_safety"), placement, tokenizer, config.threshold, trunks)
    asked = asked_of(inputs, tokenizer, min(engine.context, reward.context), config, run)
    known = {prompt.id: own for prompt, own in asked}
    prompts = with_room([p for p, _ in asked], [engine], run.say, max_tokens=config.max_tokens, read=reward.context)
    order = rng(run.seed, run.name, "prompts").permutation(len(prompts))[: config.limit]
    prompts = [prompts[i] for i in order]
    samples = draw_all(
        run.directory / "samples.jsonl",
        prompts,
        lambda part: candidates(engine, part, config, run),
        chunk=chunk_prompts(config.n),
        progress=lambda done, total: run.progress(done, total, "prompt"),
    )
    pools = [[*drawn, *known[prompt.id]] for prompt, drawn in zip(prompts, samples, strict=True)]
    groups = ranked(prompts, pools, reward, config, run)
    config.fit(model, groups, objective(config, len(pools[0])), run)
    if run.leads:
        extra = read_introduction(inputs["model"]).extra()
        save_model(run.directory / "model", model, tokenizer, card={"stage": "rrhf"}, extra=extra)


def ranked(
    prompts: list[Prompt], pools: list[list[Sample]], reward: CombinedReward, config: Config, run: Run
) -> list[Group]:
    """The candidates with their rewards, unfit ones below all others. A prompt without one to imitate is left out."""
    unfit = torch.tensor([not sample.fit for pool in pools for sample in pool])
    rewards = penalise_cut(reward(prompts, pools).combined, unfit).view(len(pools), -1).tolist()
    groups = [
        Group(tuple(map(sampled_sequence, pool)), tuple(row))
        for pool, row in zip(pools, rewards, strict=True)
        if any(sample.fit or (sample.text.strip() and not config.finished_only) for sample in pool)
    ]
    if not groups:
        raise BadInput(
            "no answer says something and ends before max_tokens", field="max_tokens", fix="raise max_tokens"
        )
    if len(groups) < len(pools):
        run.say(f"{len(pools) - len(groups)} of {len(pools)} prompts have no candidate to imitate; left out")
    return groups


def objective(config: Config, size: int) -> RRHF:
    """What groups of `size` candidates are fitted by."""
    if config.loss == "rrhf":
        return RRHF(1.0 if config.imitation is None else config.imitation, config.ranking)
    # Song et al. 2023, §4.2: the longer the list, the more its ranking outweighs
    return PRO(0.05 * (size - 1) ** 2 if config.imitation is None else config.imitation, config.ranking)


def candidates(engine: LocalEngine, prompts: Sequence[Prompt], config: Config, run: Run) -> list[list[Sample]]:
    if config.candidates == "diverse_beams":
        return diverse_rollout(engine, prompts, groups=config.n, penalty=config.penalty, max_tokens=config.max_tokens)
    sampling, seed = Sampling(config.temperature, 1.0, config.max_tokens), seed_of(run.seed, run.name)
    return rollout(engine, prompts, n=config.n, sampling=sampling, seed=seed)


def asked_of(inputs: dict[str, Any], tokenizer: Tokenizer, context: float, config: Config, run: Run) -> list[Asked]:
    """The prompts, with no answers; or those of the comparisons, each once, with the two answers of its first one.

    Which of the two was chosen is not read: the reward ranks them like the rest. Answers beyond `context` tokens drop
    their prompt.
    """
    if bool(inputs.get("prompts")) == bool(inputs.get("data")):
        raise BadInput(
            "candidates are for prompts, or for those of comparisons", field="prompts", fix="give one of both"
        )
    if not inputs.get("data"):
        if config.n < 2:
            raise BadInput("a single candidate has no rank", field="n", fix="draw 2 at least, or give data")
        return [(prompt, []) for prompt in read_prompts_of(inputs["prompts"])]
    found: dict[Dialog, Asked] = {}
    names: dict[str, Dialog] = {}
    read = [(c, path) for path in inputs["data"] for c in read_comparisons(Path(path), say=run.say)]
    for c, path in read:
        if names.setdefault(c.prompt.id, c.prompt.dialog) != c.prompt.dialog:
            raise BadInput(f"{c.prompt.id!r} is the id of another prompt too", path=path, field="id")
        ends = ((c.chosen, c.finished_chosen), (c.rejected, c.finished_rejected))
        found.setdefault(
            c.prompt.dialog, (c.prompt, [quoted_sample(c.prompt, text, end, tokenizer) for text, end in ends])
        )
    kept = [
        (prompt, own)
        for prompt, own in found.values()
        if all(len(s.prompt_tokens) + len(s.tokens) <= context for s in own)
    ]
    if not kept:
        raise BadInput(f"no pair fits the context of {context:.0f} tokens", path=inputs["data"][0])
    run.say(
        f"the pairs of {len(kept)} prompts, {len(found) - len(kept)} dropped as too long; "
        f"{len(read) - len(found)} more comparisons of the same prompts left out"
    )
    return kept
