"""Rejection sampling: K answers per prompt, the best by reward becomes a demonstration (paper §3.2.3).

Earlier rounds' samples join the pool and are scored again with the newest reward models: what stopped the paper's
V3 from forgetting. The stage makes records; `sft` trains on them, and both in short rounds are RAFT (Dong et al. 2023).
A function or an endpoint of the user's may choose in a reward model's place (ayni.reward.function).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ayni.config import Config as Base
from ayni.errors import BadInput
from ayni.evaluate.results import Result, write_results
from ayni.evaluate.sampling_curve import sampling_curve, temperature_curve
from ayni.files import write_jsonl
from ayni.formats.reading import read_prompts_of
from ayni.maths.rewards import Join, penalise_cut
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.model.role import Role
from ayni.records import Demonstration, Message, Prompt, Sample, cluster_of, to_dict
from ayni.reward.combine import THRESHOLD, CombinedReward, Scores, cut_off, load_combined
from ayni.reward.ensemble import ensemble_of
from ayni.reward.function import FunctionReward, load_choice, outside_sources
from ayni.reward.model import TOKENS_PER_PASS
from ayni.rollout.engine import sampled_sequence, with_room
from ayni.rollout.local import LocalEngine, load_engine, load_reference
from ayni.rollout.sampling import Sampling
from ayni.rollout.store import kept_rollout, read_groups
from ayni.run import Run, name_of
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input
from ayni.train.reference import logprob_sums

VERSION = 3  # the curve is of this round alone; cut answers stay cut; two models are centred before they are combined
FACE = Face(
    "records",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("reward", "model", ("reward_model", "function"), optional=True, setting="reward_function"),
        Input("reward_ensemble", "model", ("reward_model",), many=True, optional=True),
        Input("reward_safety", "model", ("reward_model",), optional=True),
        Input("reference", "model", ("language_model",), optional=True),
        Input("prompts", "prompts-train.jsonl", ("prompts",), many=True),
        Input("earlier", "samples.jsonl", ("samples",), many=True, optional=True),
    ),
    leaves={"records.jsonl": "demonstrations", "samples.jsonl": "samples"},
)


class Config(Base):
    """K is unpublished; the paper's curves run to 100. Its best temperature moved from 1.0 to 1.2–1.3 with training."""

    n: int = Field(8, ge=1, le=1 << 16, description="answers per prompt")
    temperature: float = Field(1.0, gt=0)
    temperatures: tuple[float, ...] = Field(
        (), strict=False, description="tried on some prompts: the one whose best of n score highest draws the rest"
    )
    tried_prompts: int = Field(64, ge=1, description="prompts on which `temperatures` are tried")
    max_tokens: int = Field(256, ge=1)
    limit: int | None = Field(None, ge=1, description="draw for this many prompts, chosen at random by the seed")
    keep: Literal["best", "random", "quantile"] = Field(
        "best",
        description="of every prompt the best, or a random one (the control: no reward); or the best of all answers",
    )
    quantile: float = Field(0.2, gt=0, le=1, description="of all answers the share that keep: quantile keeps")
    beta: float = Field(
        0.0, ge=0, description="β of r − β log(π/π_0), by which answers then rank; π_0 is the input reference"
    )
    threshold: float = Field(
        THRESHOLD, ge=0, le=1, description="below this safety, safety decides; 0: on prompts tagged safety alone"
    )
    ensemble: Join = Field(
        "mean", description="with reward_ensemble, of normalised scores: mean, worst, or cautious (mean − deviation)"
    )
    finished_only: bool = Field(True, description="an answer cut off at max_tokens is never kept")
    reward_function: str | None = Field(
        None, description="of a Python file given as reward; or python:MODULE:FUNCTION, or an http address"
    )
    reward_version: str | int = Field(
        "", description="of the endpoint, or of what the function reads; it counts in the identity"
    )
    dtype: Dtype = "auto"


def also_hashed(config: Config, inputs: Mapping[str, Any]) -> list[Path]:
    """What the result depends on beside the inputs: the module of a function of the user's."""
    return outside_sources(inputs.get("reward"), config.reward_function)


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    placement = Placement.of(run, config.dtype)
    engine = load_engine(inputs["model"], placement, run.name)
    helpful = load_choice(inputs.get("reward"), config.reward_function, placement)
    joined = ensemble_of(helpful, inputs.get("reward_ensemble") or [], config.ensemble, placement)
    reward = load_combined(joined, inputs.get("reward_safety"), placement, engine.tokenizer, config.threshold)
    reference = reference_of(inputs, engine, config, placement)
    known = {p.id: p for p in read_prompts_of(inputs["prompts"])}
    prompts = with_room(list(known.values()), [engine], run.say, max_tokens=config.max_tokens, read=reward.context)
    if config.limit is not None:
        order = rng(run.seed, run.name, "prompts").permutation(len(prompts))[: config.limit]
        prompts = [prompts[i] for i in sorted(order)]
    if isinstance(helpful, FunctionReward) and prompts:
        helpful.try_out(prompts[0])
    pool: dict[str, list[Sample]] = {}
    for path in inputs.get("earlier") or []:
        for group in read_groups(Path(path)):
            pool.setdefault(group[0].prompt_id, []).extend(group)
    missing = next((id for id in pool if id not in known), None)
    if missing is not None:
        raise BadInput(
            f"an earlier round has samples of {missing!r}, which is in no prompt file given", field="prompts"
        )

    temperature, rows = config.temperature, list[Result]()
    where = {"judge": "reward", "model": name_of(inputs["model"])}
    if config.temperatures:
        temperature, rows = best_temperature(engine, prompts, reward, config, run, **where)
    groups = drawn(engine, prompts, temperature, config, run, "samples")
    for prompt, group in zip(prompts, groups, strict=True):
        pool.setdefault(prompt.id, []).extend(group)
    asked, pools = [known[id] for id in pool], list(pool.values())
    scores = reward(asked, pools)
    moved = None if reference is None else log_ratios(engine.role, reference, pools, placement)
    kept = select(
        asked, pools, scores.combined if moved is None else scores.combined - config.beta * moved, config, run
    )
    rows += gained(asked, pools, scores, config, run, drawn={prompt.id for prompt in prompts}, moved=moved, **where)
    write_jsonl(run.directory / "records.jsonl", map(to_dict, kept))
    write_results(run.directory / "results.json", rows)


def reference_of(inputs: dict[str, Any], engine: LocalEngine, config: Config, placement: Placement) -> Role | None:
    """π_0, where answers rank by r − β log(π/π_0); BadInput where half of what that needs is missing."""
    if bool(inputs.get("reference")) != (config.beta > 0):
        raise BadInput("beta and a reference belong together", field="beta", fix="give both, or neither")
    if not config.beta:
        return None
    return load_reference(inputs["reference"], engine, placement)


def log_ratios(policy: Role, reference: Role, groups: list[list[Sample]], placement: Placement) -> Tensor:
    """log π/π_0 of every answer, at temperature 1: (N,), in fp32 on the CPU."""
    sequences = [sampled_sequence(sample) for group in groups for sample in group]
    ours, theirs = (logprob_sums(r, sequences, TOKENS_PER_PASS, placement.ranks) for r in (policy, reference))
    return (ours.double() - theirs.double()).float()


def drawn(
    engine: LocalEngine, prompts: list[Prompt], temperature: float, config: Config, run: Run, name: str
) -> list[list[Sample]]:
    """n answers to every prompt at this temperature, kept in NAME.jsonl as they come."""
    sampling, seed = Sampling(temperature, 1.0, config.max_tokens), seed_of(run.seed, run.name)
    return kept_rollout(engine, prompts, run, name, n=config.n, sampling=sampling, seed=seed)


def best_temperature(
    engine: LocalEngine, prompts: list[Prompt], reward: CombinedReward, config: Config, run: Run, **where: Any
) -> tuple[float, list[Result]]:
    """The temperature at which the best of n answers score highest, and the rows of all (paper Figure 8).

    As it shifts with training, the paper looks for it anew in every round.
    """
    order = rng(run.seed, run.name, "tried").permutation(len(prompts))[: config.tried_prompts]
    tried = [prompts[i] for i in sorted(order)]
    found: dict[float, list[float]] = {}
    for temperature in config.temperatures:
        groups = drawn(engine, tried, temperature, config, run, f"tried-{temperature:g}")
        scores = reward(tried, groups).combined
        if config.finished_only:
            # what is never kept gains nothing
            scores = penalise_cut(scores, cut_off([sample for group in groups for sample in group]))
        found[temperature] = scores.view(len(tried), config.n).amax(1).tolist()
    rows = temperature_curve(found, config.n, [cluster_of(prompt) for prompt in tried], **where)
    best = max(found, key=lambda t: sum(found[t]))
    shown = ", ".join(f"{sum(scores) / len(scores):.3f} at {t:g}" for t, scores in found.items())
    run.say(f"best of {config.n} on {len(tried)} prompts: {shown}; drawing at {best:g}")
    return best, rows


def select(
    prompts: list[Prompt],
    groups: list[list[Sample]],
    ranks: Tensor,
    config: Config,
    run: Run,
) -> list[Demonstration]:
    """The best (or a random) sample of every prompt's pool, or the best of all, as demonstrations: by the ranks of all,
    group by group."""
    rows = [row.tolist() for row in ranks.split([len(group) for group in groups])]
    fit = [
        [
            k
            for k, sample in enumerate(group)
            # silence is nothing to imitate
            if sample.text.strip() and (sample.finished == "stop" or not config.finished_only)
        ]
        for group in groups
    ]
    if config.keep == "quantile":
        count = max(1, round(config.quantile * sum(map(len, groups))))
        ranked = sorted(((i, k) for i, ks in enumerate(fit) for k in ks), key=lambda pick: -rows[pick[0]][pick[1]])
        picks = sorted(ranked[:count])
    elif config.keep == "best":
        picks = [(i, max(ks, key=rows[i].__getitem__)) for i, ks in enumerate(fit) if ks]
    else:
        draws = [rng(run.seed, run.name, "random", prompt.id) for prompt in prompts]
        picks = [(i, ks[int(draws[i].integers(len(ks)))]) for i, ks in enumerate(fit) if ks]
    if not picks:
        raise BadInput(
            "no answer says something and ends before max_tokens", field="max_tokens", fix="raise max_tokens"
        )
    kept = [demonstration(prompts[i], groups[i][k], run) for i, k in picks]
    answers = f"{len(kept)} answers to " if config.keep == "quantile" else ""
    run.say(f"kept {answers}{len({i for i, _ in picks})} of {len(prompts)} prompts")
    return kept


def demonstration(prompt: Prompt, sample: Sample, run: Run) -> Demonstration:
    answer = Message("assistant", sample.text)
    return Demonstration((*prompt.dialog, answer), "last", f"{run.name}:{prompt.id}", sample.finished)


def gained(
    prompts: list[Prompt],
    groups: list[list[Sample]],
    scores: Scores,
    config: Config,
    run: Run,
    drawn: Collection[str],
    moved: Tensor | None = None,
    **where: Any,
) -> list[Result]:
    """Figure 7 of the paper: what the best of n gains over the median, from each prompt's first n answers; logged for
    every n, as rows for some. `moved` are all samples' log π/π_0, where they count.

    All of this round: earlier samples are another model's, and count in `pool_best` alone, of the same prompts. Of the
    prompts `drawn` for in this round the pool ends with this round's n samples.
    """
    ours = [prompt.id in drawn for prompt in prompts]

    def pools(x: Tensor) -> list[Tensor]:
        return [pool for pool, asked in zip(x.split([len(g) for g in groups]), ours, strict=True) if asked]

    def own(x: Tensor) -> list[Tensor]:
        return [pool[-config.n :] for pool in pools(x)]

    rows = own(scores.combined)
    for n in range(1, min(map(len, rows)) + 1):
        best = sum(float(row[:n].max()) for row in rows) / len(rows)
        median = sum(float(row[:n].quantile(0.5)) for row in rows) / len(rows)
        run.log(n, n=n, best=best, median=median)
    pool_best = sum(float(pool.max()) for pool in pools(scores.combined)) / len(rows)
    means = {"helpfulness": float(torch.cat(own(scores.helpfulness)).mean())}
    if scores.safety is not None:
        means["safety"] = float(torch.cat(own(scores.safety)).mean())
    if moved is not None:
        means["log_ratio"] = float(torch.cat(own(moved)).mean())
    lengths = torch.tensor([len(s.tokens) for group in groups for s in group], dtype=torch.float)
    run.log(n, length=float(torch.cat(own(lengths)).mean()), pool_best=pool_best, **means)
    more = f"; best of all rounds {pool_best:.3f}" if pool_best > best else ""
    run.say(f"reward: best of {n} {best:.3f}, median {median:.3f}{more}")
    owners = [cluster_of(prompt) for prompt, asked in zip(prompts, ours, strict=True) if asked]
    return sampling_curve([row.tolist() for row in rows], owners, **where)
