"""What somebody meets who asks the village's chat model: is it right, honest, unbroken; and what its judge prefers.

Answers are drawn at chat's settings. The stage may look at the hidden scores, so no stage may learn from what it
writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from ayni.evaluate.items import Item, rows_of
from ayni.evaluate.judges import GoldScorer
from ayni.evaluate.results import write_results
from ayni.evaluate.splits import Evaluation, check_split
from ayni.evaluate.village_answers import (
    FACTS,
    Difference,
    broken_items,
    content_gains,
    content_items,
    differing_pairs,
    preference_items,
)
from ayni.files import write_jsonl
from ayni.formats.reading import read_prompts_of
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.records import Prompt, Sample, to_dict
from ayni.reward.model import load_reward
from ayni.rollout.conversations import own_answers
from ayni.rollout.engine import rollout, with_room
from ayni.rollout.local import LocalEngine, load_compared
from ayni.rollout.sampling import Sampling
from ayni.run import Run
from ayni.seeds import seed_of
from ayni.stage import Face, Input

VERSION = 2  # items.jsonl
FACE = Face(
    "evaluates",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("against", "model", ("language_model",), optional=True),
        Input("reward", "model", ("reward_model",), optional=True),
        Input("prompts", "prompts-validation.jsonl", ("prompts",), many=True),
    ),
    leaves={"samples.jsonl": "answers"},
)


class Config(Evaluation):
    temperature: float = Field(0.6, ge=0, description="as `ayni chat` samples")
    top_p: float = Field(0.9, gt=0, le=1, description="as `ayni chat` samples")
    max_tokens: int = Field(256, ge=1)
    fact_answers: int = Field(
        8, ge=2, description="answers a prompt among which pairs are sought that differ in a fact"
    )
    fact_pairs: int = Field(500, ge=1, description="such pairs at most, and of each other difference")
    safety_answers: int = Field(
        0, ge=0, description="answers a prompt of safety among which pairs of a safe and an unsafe one are sought"
    )
    samples: int = Field(40, ge=0, description="answers to write to samples.jsonl for the report")
    dtype: Dtype = "auto"


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    prompts = read_prompts_of(inputs["prompts"])
    check_split(prompts, final=config.final, path=inputs["prompts"][0])
    placement = Placement.of(run, config.dtype)
    engines = load_compared(inputs, placement)
    prompts = with_room(prompts, list(engines.values()), run.say)
    gold = GoldScorer(prompts).gold
    reward = load_reward(Path(inputs["reward"]), placement) if inputs.get("reward") else None
    items: list[Item] = []
    answers: dict[str, list[str]] = {}
    for role, engine in engines.items():
        drawn, conversations = asked(engine, prompts, config, run)
        compared = [] if reward is None else candidates(engine, prompts, config, run)
        if not run.leads:  # the processes share what is drawn; the first one judges it
            continue
        where: dict[str, Any] = {"model": engine.name, "split": config.split}
        answers[role] = [sample.text for sample in drawn]
        items += content_items(gold, prompts, answers[role], **where)
        items += broken_items(gold, talks_of(prompts), conversations, **where)
        for difference, about, groups in compared:
            assert reward is not None  # it is what the candidates are for
            pairs = differing_pairs(difference, gold, about, groups, config.fact_pairs, run.seed)
            run.say(f"{len(pairs)} pairs of {engine.name}'s answers differ in {difference} and in nothing else")
            drawn_pairs = [[first, second] for _, first, second in pairs]
            scores = reward.score_samples([p for p, *_ in pairs], drawn_pairs, engine.tokenizer)
            names = {"model": reward.name, "against": engine.name}
            items += preference_items(difference, pairs, scores, split=config.split, **names)
    if not run.leads:
        return
    if "against" in answers:
        names = {"model": engines["model"].name, "against": engines["against"].name}
        both = answers["model"], answers["against"]
        items += content_gains(gold, prompts, *both, split=config.split, **names)
    write_jsonl(run.directory / "items.jsonl", map(to_dict, items))
    write_results(run.directory / "results.json", rows_of(items, run.seed))
    shown = [
        {"prompt": to_dict(prompt), "answers": {engines[role].name: answers[role][i] for role in answers}}
        for i, prompt in enumerate(prompts[: config.samples])
    ]
    write_jsonl(run.directory / "samples.jsonl", shown)


def asked(
    engine: LocalEngine, prompts: list[Prompt], config: Config, run: Run
) -> tuple[list[Sample], list[list[Sample]]]:
    """One answer to every prompt, and whole conversations of the model's own."""
    sampling = Sampling(config.temperature, config.top_p, config.max_tokens)
    run.say(f"{engine.name} answers {len(prompts)} prompts")
    drawn = rollout(engine, prompts, n=1, sampling=sampling, seed=seed_of(run.seed, "examine"))
    seed = seed_of(run.seed, "examine", "talks")
    conversations = own_answers(engine, talks_of(prompts), sampling=sampling, seed=seed, say=run.say)
    return [sample for (sample,) in drawn], conversations


def candidates(
    engine: LocalEngine, prompts: list[Prompt], config: Config, run: Run
) -> list[tuple[Difference, list[Prompt], list[list[Sample]]]]:
    """What differs, and where to seek pairs that do: prompts, and several answers to each, as training draws them."""
    training, seed = Sampling(1.0, 1.0, config.max_tokens), seed_of(run.seed, "examine", "facts")
    about = facts_of(prompts)
    groups = rollout(engine, about, n=config.fact_answers, sampling=training, seed=seed)
    found: list[tuple[Difference, list[Prompt], list[list[Sample]]]] = [
        (difference, about, groups) for difference in ("fact", "style", "length")
    ]
    risky = [prompt for prompt in prompts if prompt.task == "safety"]
    if config.safety_answers and risky:
        seed = seed_of(run.seed, "examine", "safety")
        answers = rollout(engine, risky, n=config.safety_answers, sampling=training, seed=seed)
        found.append(("safety", risky, answers))
    return found


def facts_of(prompts: list[Prompt]) -> list[Prompt]:
    """Prompts whose right answer is one fact."""
    return [prompt for prompt in prompts if prompt.category in FACTS]


def talks_of(prompts: list[Prompt]) -> list[Prompt]:
    """Prompts with a history: whole conversations can be held along them."""
    return [prompt for prompt in prompts if len(prompt.dialog) > 1]
