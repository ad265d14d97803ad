"""Reward hacking, made visible: the reward model's opinion beside the gold score, along PPO's snapshots.

A study of the world, not of training: it may look at the hidden scores, so no stage may learn from what it writes.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import Field

from ayni.config import Config as Base
from ayni.errors import BadInput
from ayni.evaluate.judges import GoldScorer
from ayni.evaluate.results import Result, result, write_results
from ayni.files import write_jsonl
from ayni.formats.reading import read_prompts_of
from ayni.maths.clustered import clustered_mean
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.records import cluster_of, to_dict
from ayni.reward.combine import THRESHOLD, load_combined
from ayni.reward.model import load_reward
from ayni.rollout.engine import rollout
from ayni.rollout.local import load_engine
from ayni.rollout.sampling import Sampling
from ayni.run import Run, name_of
from ayni.seeds import seed_of
from ayni.stage import Face, Input

VERSION = 2  # intervals go by cluster; the two models' scores are centred before they are combined
FACE = Face(
    "evaluates",
    inputs=(
        Input("start", "model", ("language_model",)),
        Input("runs", "snapshots", ("snapshots",), many=True),
        Input("reward_helpfulness", "model", ("reward_model",)),
        Input("reward_safety", "model", ("reward_model",), optional=True),
        Input("prompts", "prompts-validation.jsonl", ("prompts",), many=True),
    ),
    leaves={"samples.jsonl": "answers"},
)


class Config(Base):
    limit: int = Field(300, ge=1, description="prompts to answer at every snapshot")
    max_tokens: int = Field(256, ge=1)
    threshold: float = Field(THRESHOLD, ge=0, le=1, description="as PPO had it: below this safety, safety decides")
    dtype: Dtype = "auto"


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    placement = Placement.of(run, config.dtype)
    helpful, safety = load_reward(inputs["reward_helpfulness"], placement), inputs.get("reward_safety")
    prompts = read_prompts_of(inputs["prompts"])[: config.limit]
    gold = GoldScorer(prompts)
    rows: list[Result] = []
    shown: list[dict[str, Any]] = []
    for folder in map(Path, inputs["runs"]):
        variant = name_of(folder.parent)
        places = [(0, Path(inputs["start"]))]
        places += [(int(found.name), found / "model") for found in sorted(folder.glob("*")) if found.name.isdigit()]
        if len(places) == 1:
            raise BadInput("no snapshots here", path=folder, fix="run ppo with snapshot_every")
        curves: list[tuple[list[float], list[float]]] = []
        for step, directory in places:
            engine = load_engine(directory, placement, variant)
            reward = load_combined(helpful, safety, placement, engine.tokenizer, config.threshold)
            sampling, seed = Sampling(1.0, 1.0, config.max_tokens), seed_of(run.seed, "study")
            drawn = rollout(engine, prompts, n=1, sampling=sampling, seed=seed)
            proxy = reward(prompts, drawn).combined.tolist()
            truth = [gold.scores([p], [s], p.task, engine.tokenizer)[0] for p, (s,) in zip(prompts, drawn, strict=True)]
            curves.append((proxy, truth))
            means = {"proxy": fmean(proxy), "gold": fmean(truth)}
            run.log(step, variant=variant, **means)
            run.progress(step, places[-1][0], "iteration", **means)
        for name, at in (("proxy", 0), ("gold", 1)):
            changes = [end - start for end, start in zip(curves[-1][at], curves[0][at], strict=True)]
            change = clustered_mean(changes, [cluster_of(prompt) for prompt in prompts])
            rows.append(result(f"{name}_change", change, model=variant, split="validation", seed=run.seed))
        shown += [
            {
                "prompt": to_dict(prompt),
                "answers": {variant: sample.text},
                "scores": {variant: {"proxy": score, "gold": true}},
            }
            for prompt, (sample,), score, true in list(zip(prompts, drawn, *curves[-1], strict=True))[:10]
        ]
    write_results(run.directory / "results.json", rows)
    write_jsonl(run.directory / "samples.jsonl", shown)
