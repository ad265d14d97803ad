"""Preferences from the village: two answers of two model variants, graded by its annotators (paper §3.2.1).

Prompts tagged safety are judged once by each guideline: helpfulness annotators reward doing what was asked, safety
annotators reward not doing it. That is the tension the two reward models carry (paper §3.2.2).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from ayni.config import Config as Base
from ayni.errors import BadInput
from ayni.files import write_jsonl
from ayni.model_directory import load_model, name_of
from ayni.records import RATINGS, Comparison, Prompt, Sample, to_dict
from ayni.rollout.engine import Policy, chunk_prompts, rollout, with_room
from ayni.rollout.sampling import Sampling
from ayni.rollout.store import draw_all
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.text.formats import read_prompts
from ayni.train.parallel import world
from ayni.train.precision import DTYPES, NAMES, Dtype, compute_dtype
from ayni.world.annotators import Annotators
from ayni.world.village import Village

VERSION = 5  # the annotators changed
INPUTS = {"model": "model", "other?": "model", "prompts*": "prompts-train.jsonl"}


class Config(Base):
    """Two variants: the newest model and `other` (an earlier one), or one model at two temperatures."""

    temperatures: tuple[float, float] = Field((0.8, 1.1), strict=False, description="of the first and second variant")
    pairs_per_prompt: int = Field(1, ge=1)
    limit: int | None = Field(None, ge=1, description="prompts to ask, chosen by the seed")
    safety_copies: int = Field(1, ge=1, description="judgements of every safety-tagged pair by the safety guideline")
    helpfulness_share: float = Field(0.2, ge=0, le=1, description="safety prompts also judged for helpfulness")
    heldout_share: float = Field(0.12, ge=0, lt=1, description="of the prompts, for the reward models' test set")
    max_tokens: int = Field(256, ge=1)
    annotators_seed: int = 0
    batch: str = Field("1", description="the name of this batch")
    dtype: Dtype = "auto"


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.rewind(-1)  # what a killed run logged is logged again
    place = world()
    dtype = DTYPES[run.tuned(dtype=NAMES[compute_dtype(config.dtype, place.device)])["dtype"]]
    paths = [inputs["model"], inputs.get("other") or inputs["model"]]
    policies = []
    for path in paths:
        model, tokenizer = load_model(path)
        model = model.to(place.device, dtype).requires_grad_(False)
        policies.append(Policy(model, tokenizer, name_of(path)))
    prompts = [p for path in inputs["prompts"] for p in read_prompts(Path(path))]
    prompts = with_room(prompts, policies, run.say)
    order = rng(run.seed, run.name, "prompts").permutation(len(prompts))[: config.limit]
    prompts = [prompts[i] for i in order]
    seeds = {p.source for p in prompts}
    if len(seeds) != 1 or not next(iter(seeds)).startswith("village-"):
        raise BadInput("the village's annotators judge the prompts of one village", path=inputs["prompts"][0])
    annotators = Annotators(Village(int(next(iter(seeds)).removeprefix("village-"))), config.annotators_seed)

    answers: list[list[list[Sample]]] = []
    for variant, (policy, temperature) in enumerate(zip(policies, config.temperatures, strict=True)):
        sampling = Sampling(temperature, 1.0, config.max_tokens)
        seed = seed_of(run.seed, run.name, variant)
        answers.append(
            draw_all(
                run.directory / f"samples-{variant}.jsonl",
                prompts,
                lambda part, p=policy, s=sampling, d=seed: place.gather(  # type: ignore[misc]
                    rollout(p, place.share(part), n=config.pairs_per_prompt, sampling=s, seed=d)
                ),
                chunk=chunk_prompts(config.pairs_per_prompt),
                progress=lambda done, total: run.progress(done, total, "prompt"),
            )
        )
    comparisons = [
        (i, c)
        for i, (prompt, first, second) in enumerate(zip(prompts, *answers, strict=True))
        for c in judge(prompt, first, second, annotators, config, run)
    ]
    heldout = round(config.heldout_share * len(prompts))
    test = [c for i, c in comparisons if i < heldout]
    train = [c for i, c in comparisons if i >= heldout]
    write_jsonl(run.directory / "heldout.jsonl", map(to_dict, test))
    write_jsonl(run.directory / "records.jsonl", map(to_dict, train))
    shares = {rating: sum(c.rating == rating for c in train) / max(len(train), 1) for rating in RATINGS}
    run.log(0, train=len(train), heldout=len(test), **shares)
    run.say(f"{len(train)} comparisons and {len(test)} held out; degrees {[f'{s:.0%}' for s in shares.values()]}")


def judge(
    prompt: Prompt, first: list[Sample], second: list[Sample], annotators: Annotators, config: Config, run: Run
) -> list[Comparison]:
    """The comparisons of one prompt's pairs; equal answers and discarded pairs give none."""
    found = []
    for k, (a, b) in enumerate(zip(first, second, strict=True)):
        if a.text == b.text or not a.text.strip() or not b.text.strip():
            continue
        tasks: list[Any] = ["helpfulness"]
        if prompt.task == "safety":
            also = rng(run.seed, run.name, "task", prompt.id, k).random() < config.helpfulness_share
            tasks = ["safety"] * config.safety_copies + (["helpfulness"] if also else [])
        for copy, task in enumerate(tasks):
            key = (config.batch, run.name, k, copy)
            comparison = annotators.compare(
                prompt, a.text, b.text, task=task, key=key, model_a=a.model, model_b=b.model, batch=config.batch
            )
            if comparison is not None:
                found.append(comparison)
    return found
