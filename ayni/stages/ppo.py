"""PPO and its relatives against a helpfulness and a safety reward model (paper §3.2.3).

The roles: the policy (trained), the critic (trained, from the helpfulness reward model, where the estimator reads
values), the reference (the policy it starts from, frozen) and the reward models (frozen). The loop is ayni.online.loop.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ayni.errors import BadInput
from ayni.formats.reading import read_prompts_of
from ayni.introduction import read_introduction
from ayni.maths.rewards import Join
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.model.score_scale import ScoreScale
from ayni.model.trainable import to_train
from ayni.model_directory import Trunks, load_model, save_model
from ayni.online.algorithm import Algorithm
from ayni.online.loop import Loop
from ayni.reward.combine import THRESHOLD, load_combined
from ayni.reward.ensemble import ensemble_of
from ayni.reward.model import RewardModel, load_reward
from ayni.rollout.engine import with_room
from ayni.rollout.local import LocalEngine
from ayni.run import Run
from ayni.seeds import seed_of
from ayni.stage import Face, Input
from ayni.text.tokenizer import Tokenizer

VERSION = (
    2  # cut answers are worse than finished ones; exact batches; the critic starts normalised; the start is validated
)
FACE = Face(
    "online",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("reward_helpfulness", "model", ("reward_model",)),
        Input("reward_ensemble", "model", ("reward_model",), many=True, optional=True),
        Input("reward_safety", "model", ("reward_model",), optional=True),
        Input("reward_watch", "model", ("reward_model",), optional=True),
        Input("prompts", "prompts-train.jsonl", ("prompts",), many=True),
        Input("validation", "prompts-validation.jsonl", ("prompts",), many=True, optional=True),
    ),
    leaves={
        "model": "language_model",
        "critic": "critic",
        "snapshots": "snapshots",
        "snapshots/*/model": "language_model",
    },
)


class Config(Algorithm):
    """Paper: β 0.01 (7B, 13B) or 0.005, batch 512, mini-batch 64, one step each, clip 0.2, constant LR 1e-6."""

    threshold: float = Field(
        THRESHOLD, ge=0, le=1, description="below this safety, safety decides; 0: on prompts tagged safety alone"
    )
    ensemble: Join = Field(
        "mean", description="with reward_ensemble, of normalised scores: mean, worst, or cautious (mean − deviation)"
    )


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    placement = Placement.of(run, config.precision())
    trunks = Trunks() if config.lora else None  # all roles that are adapters of one trunk share it
    start, tokenizer = load_model(inputs["model"], expect="logits", trunks=trunks)
    model = to_train(start, config.lora, seed_of(run.seed, run.name, "policy"), keep=True)
    policy, reference = (Role(placement.place(each)) for each in (model, start.requires_grad_(False)))
    engine = LocalEngine(policy, tokenizer, run.name, placement.ranks)
    helpful = load_reward(inputs["reward_helpfulness"], placement, trunks)
    joined = ensemble_of(helpful, inputs.get("reward_ensemble") or [], config.ensemble, placement, trunks)
    reward = load_combined(joined, inputs.get("reward_safety"), placement, tokenizer, config.threshold, trunks)
    watch = None
    if inputs.get("reward_watch"):
        if not config.validate_every:
            raise BadInput("a reward model that watches needs validate_every", field="validate_every")
        watcher = load_reward(inputs["reward_watch"], placement, trunks)
        watch = load_combined(watcher, inputs.get("reward_safety"), placement, tokenizer, config.threshold, trunks)
    prompts = read_prompts_of(inputs["prompts"])
    validation = read_prompts_of(inputs.get("validation") or [])
    if not prompts:
        raise BadInput("no prompts", path=inputs["prompts"][0])
    read = min(each.context for each in (reward, watch) if each is not None)
    prompts, validation = (
        with_room(given, [engine], run.say, max_tokens=config.max_tokens, read=read) for given in (prompts, validation)
    )
    if config.validate_every and not validation:
        raise BadInput("validate_every needs validation prompts", field="validation")
    if (wanted := config.batch_size // config.n) > len(prompts):
        run.say(f"{len(prompts)} prompts for {wanted} groups of answers an iteration: prompts are asked several times")
    estimator, critic = config.estimated(), None
    if estimator.critic:
        critic = config.critic(critic_of(helpful, tokenizer, config, inputs, run), placement)
        if helpful.scale.normalisation is None:
            run.say("the critic starts at raw scores: its reward model has no normalisation")
    loop = Loop(
        config,
        run,
        engine=engine,
        policy=config.policy(policy, placement),
        reward=reward,
        estimator=estimator,
        reference=reference,
        critic=critic,
        watch=watch,
        ranks=placement.ranks,
    )

    def keep(iteration: int) -> None:
        if run.leads:
            save_model(run.directory / "snapshots" / f"{iteration:06d}" / "model", model, tokenizer)

    loop.train(prompts, validation, keep)
    if run.leads:
        extra = read_introduction(inputs["model"]).extra()
        save_model(run.directory / "model", model, tokenizer, card={"stage": "ppo"}, extra=extra)
        if critic is not None:
            card, noted = {"stage": "ppo (critic)"}, ScoreScale(None, critic.role.normalisation).noted("critic")
            save_model(run.directory / "critic", critic.role.model, tokenizer, card=card, extra=noted)


def critic_of(reward: RewardModel, tokenizer: Tokenizer, config: Config, inputs: dict[str, Any], run: Run) -> Role:
    """The critic starts as the reward model, normalised, and reads the policy's tokens: BadInput if that cannot.

    Whitened rewards have mean 0 and deviation 1, and so have its first values of the start policy's answers.
    """
    if reward.tokenizer.fingerprint != tokenizer.fingerprint:
        raise BadInput(
            "the critic starts from this reward model and reads the policy's tokens, but their tokenizers differ",
            path=inputs["reward_helpfulness"],
            fix="train the reward model from a checkpoint of the policy's family",
        )
    model = to_train(reward.role.model, config.lora, seed_of(run.seed, run.name, "critic"), keep=True)
    return Role(model, reward.scale.normalisation)
