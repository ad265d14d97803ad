"""Several tries of a method: the one whose answers a reward model likes best, on validation prompts, goes on (§3.4.1).

Every try answers the same prompts beside the model they all started from. The paper chooses among its ablations by its
newest reward models, and asks people about the chosen ones alone; so does a recipe that compares methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from ayni.config import Config as Base
from ayni.errors import BadInput
from ayni.evaluate.results import Result, result, write_results
from ayni.evaluate.splits import check_split
from ayni.evaluate.win_rate import compare_scores
from ayni.files import write_json
from ayni.formats.reading import read_prompts_of
from ayni.introduction import read_introduction
from ayni.maths.clustered import clustered_mean, clustered_share
from ayni.maths.rewards import penalise_cut
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.model_directory import load_model, save_model
from ayni.records import Prompt, cluster_of
from ayni.reward.combine import THRESHOLD, CombinedReward, cut_off, load_combined
from ayni.reward.model import load_reward
from ayni.rollout.engine import rollout, with_room
from ayni.rollout.local import LocalEngine, load_engine
from ayni.rollout.sampling import Sampling
from ayni.run import Run, name_of
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input

VERSION = 2  # an answer that was cut off loses against any that ended
CHOSEN = "chosen.json"  # which try it was, and of how many
Scored = tuple[Tensor, Tensor]  # rewards, and which answers were cut off
FACE = Face(
    "evaluates",
    inputs=(
        Input("models", "model", ("language_model",), many=True),
        Input("start", "model", ("language_model",)),
        Input("reward", "model", ("reward_model",)),
        Input("reward_safety", "model", ("reward_model",), optional=True),
        Input("prompts", "prompts-validation.jsonl", ("prompts",), many=True),
    ),
    leaves={"model": "language_model"},
)


class Config(Base):
    limit: int | None = Field(None, ge=1, description="prompts, chosen by the seed")
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1)
    threshold: float = Field(THRESHOLD, ge=0, le=1, description="below this safety, safety decides")
    dtype: Dtype = "auto"


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    placement = Placement.of(run, config.dtype)
    helpful = load_reward(inputs["reward"], placement)
    start = load_engine(inputs["start"], placement, name_of(inputs["start"]))
    reward = load_combined(helpful, inputs.get("reward_safety"), placement, start.tokenizer, config.threshold)
    prompts = read_prompts_of(inputs["prompts"])
    check_split(prompts, final=False, path=inputs["prompts"][0])
    prompts = with_room(prompts, [start], run.say, max_tokens=config.max_tokens, read=reward.context)
    order = rng(run.seed, "choose", "prompts").permutation(len(prompts))[: config.limit]
    prompts = [prompts[i] for i in sorted(order)]
    before = scores_of(start, prompts, reward, config, run)
    tries: dict[str, list[float]] = {}
    for i, path in enumerate(inputs["models"]):
        engine = load_engine(path, placement, name_of(path))
        if engine.name in tries or engine.name == start.name:
            raise BadInput(f"two of the models are called {engine.name}", path=path, fix="give each once")
        if engine.tokenizer.fingerprint != start.tokenizer.fingerprint or engine.context < start.context:
            raise BadInput(f"did not start from {start.name}: another tokenizer or context", path=path)
        tries[engine.name] = preferred(prompts, scores_of(engine, prompts, reward, config, run), before)
        run.progress(i + 1, len(inputs["models"]), "try", preferred=sum(tries[engine.name]) / len(prompts))
    best = max(tries, key=lambda name: sum(tries[name]))
    path = inputs["models"][list(tries).index(best)]
    if not run.leads:
        return
    write_results(run.directory / "results.json", rows_of(tries, best, start.name, prompts, helpful.name, run.seed))
    write_json(run.directory / CHOSEN, {"chosen": best, "of": list(tries)})
    run.say(f"{best} is the best of {len(tries)}: preferred to {start.name} {sum(tries[best]) / len(prompts):.0%}")
    model, tokenizer = load_model(path, dtype=None)
    extra = read_introduction(path).extra()
    save_model(run.directory / "model", model, tokenizer, card={"stage": "choose", "chosen": best}, extra=extra)


def scores_of(engine: LocalEngine, prompts: list[Prompt], reward: CombinedReward, config: Config, run: Run) -> Scored:
    """Of one answer to each prompt: the combined reward (N,), and whether it was cut off (N,)."""
    sampling = Sampling(config.temperature, config.top_p, config.max_tokens)
    groups = rollout(engine, prompts, n=1, sampling=sampling, seed=seed_of(run.seed, "choose"))
    return reward(prompts, groups).combined, cut_off([sample for (sample,) in groups])


def preferred(prompts: Sequence[Prompt], after: Scored, before: Scored) -> list[float]:
    """1, ½ or 0 of each prompt (N,): whether the one scores above the other. Cut answers are worth the same in both."""
    both = penalise_cut(torch.cat([after[0], before[0]]), torch.cat([after[1], before[1]]))
    ours, theirs = both.chunk(2)
    return [outcome.score for outcome in compare_scores(prompts, ours.tolist(), theirs.tolist())]


def rows_of(
    tries: dict[str, list[float]], best: str, start: str, prompts: list[Prompt], judge: str, seed: int
) -> list[Result]:
    """`preferred` of every try, ties half; `preferred_gain` of the best over each other, prompt by prompt."""
    clusters = [cluster_of(prompt) for prompt in prompts]
    where: dict[str, Any] = {"judge": judge, "split": "validation", "seed": seed}
    rows = [
        result("preferred", clustered_share(scores, clusters), model=name, against=start, **where)
        for name, scores in tries.items()
    ]
    for name, scores in tries.items():
        if name != best:
            gains = [ours - theirs for ours, theirs in zip(tries[best], scores, strict=True)]
            rows.append(result("preferred_gain", clustered_mean(gains, clusters), model=best, against=name, **where))
    return rows
