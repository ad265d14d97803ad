"""RRHF: K sampled answers ranked by reward; raise the better ones' likelihood, imitate the best (Yuan et al. 2023)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ayni.formats.reading import read_prompts_of
from ayni.introduction import read_introduction
from ayni.maths.rewards import penalise_cut
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.model_directory import Trunks, load_model, save_model
from ayni.reward.combine import THRESHOLD, cut_off, load_combined
from ayni.reward.model import load_reward
from ayni.rollout.engine import chunk_prompts, rollout, sampled_sequence, with_room
from ayni.rollout.local import LocalEngine
from ayni.rollout.sampling import Sampling
from ayni.rollout.store import draw_all
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input
from ayni.train.batch import Group
from ayni.train.objectives import RRHF
from ayni.train.trainer import Fitting

VERSION = 3  # a cut answer ranks below every finished one; two models are centred before they are combined
FACE = Face(
    "fits",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("reward", "model", ("reward_model",)),
        Input("reward_safety", "model", ("reward_model",), optional=True),
        Input("prompts", "prompts-train.jsonl", ("prompts",), many=True),
    ),
    leaves={"model": "language_model", "samples.jsonl": "samples"},
)


class Config(Fitting):
    """The paper draws 4 by diverse beam search; we sample (docs/departures.md)."""

    epochs: float = Field(3, gt=0)
    n: int = Field(4, ge=2, le=1 << 10, description="candidates per prompt")
    temperature: float = Field(1.0, gt=0)
    max_tokens: int = Field(256, ge=1)
    imitation: float = Field(1.0, ge=0, description="weight of the cross-entropy of the best answer")
    limit: int | None = Field(None, ge=1, description="prompts to use, chosen by the seed")
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
    asked = read_prompts_of(inputs["prompts"])
    prompts = with_room(asked, [engine], run.say, max_tokens=config.max_tokens, read=reward.context)
    order = rng(run.seed, run.name, "prompts").permutation(len(prompts))[: config.limit]
    prompts = [prompts[i] for i in order]
    sampling = Sampling(config.temperature, 1.0, config.max_tokens)
    seed = seed_of(run.seed, run.name)
    samples = draw_all(
        run.directory / "samples.jsonl",
        prompts,
        lambda part: rollout(engine, part, n=config.n, sampling=sampling, seed=seed),
        chunk=chunk_prompts(config.n),
        progress=lambda done, total: run.progress(done, total, "prompt"),
    )
    combined = reward(prompts, samples).combined
    cut = cut_off([sample for drawn in samples for sample in drawn])
    rewards = penalise_cut(combined, cut).view(-1, config.n).tolist()
    groups = [
        Group(tuple(map(sampled_sequence, drawn)), tuple(row)) for drawn, row in zip(samples, rewards, strict=True)
    ]
    config.fit(model, groups, RRHF(config.imitation), run)
    if run.leads:
        extra = read_introduction(inputs["model"]).extra()
        save_model(run.directory / "model", model, tokenizer, card={"stage": "rrhf"}, extra=extra)
