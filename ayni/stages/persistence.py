"""Whether an instruction of the first turn is still kept in the twentieth: one model, or one beside another.

The instruction is said once; every answer is the model's own (paper §A.3.5, Table 30). Whether it is kept the village's
gold says, so no stage may learn from what this one writes. How much the models attend to it: Figure 10.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ayni.errors import BadInput
from ayni.evaluate.items import rows_of
from ayni.evaluate.judges import GoldScorer
from ayni.evaluate.persistence import (
    Conversation,
    attention_items,
    content_items,
    conversations,
    kept_gains,
    kept_items,
    measured,
)
from ayni.evaluate.results import write_results
from ayni.evaluate.splits import Evaluation, check_split
from ayni.files import write_jsonl
from ayni.formats.reading import read_constraints_of, read_prompts_of
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.records import Sample, to_dict
from ayni.rollout.conversations import own_answers
from ayni.rollout.local import load_compared
from ayni.rollout.sampling import Sampling
from ayni.run import Run
from ayni.seeds import seed_of
from ayni.stage import Face, Input

VERSION = 1
FACE = Face(
    "evaluates",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("against", "model", ("language_model",), optional=True),
        Input("prompts", "talks-validation.jsonl", ("prompts",), many=True),
        Input("constraints", "constraints-validation.jsonl", ("constraints",), many=True),
    ),
    leaves={"samples.jsonl": "answers"},
)


class Config(Evaluation):
    conversations: int = Field(60, ge=1, description="of kinds seen in training; as many of the unseen kind")
    temperature: float = Field(0.6, ge=0, description="as `ayni chat` samples")
    top_p: float = Field(0.9, gt=0, le=1, description="as `ayni chat` samples")
    max_tokens: int = Field(256, ge=1)
    attention: int = Field(30, ge=0, description="conversations of `model` in which attention is measured")
    samples: int = Field(20, ge=0, description="conversations to write to samples.jsonl for the report")
    dtype: Dtype = "auto"


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    prompts, constraints = read_prompts_of(inputs["prompts"]), read_constraints_of(inputs["constraints"])
    check_split(prompts, final=config.final, path=inputs["prompts"][0])
    check_split(constraints, final=config.final, path=inputs["constraints"][0])
    if any(prompt.category != "talk" for prompt in prompts):
        raise BadInput("holds other prompts than talks", path=inputs["prompts"][0], fix="give a village's talks")
    asked = conversations(prompts, constraints, config.conversations, run.seed)
    placement = Placement.of(run, config.dtype)
    engines = load_compared(inputs, placement)
    sampling = Sampling(config.temperature, config.top_p, config.max_tokens)
    seed, talks = seed_of(run.seed, "persistence"), [conversation.prompt for conversation in asked]
    answers: dict[str, list[list[Sample]]] = {}
    for role, engine in engines.items():
        run.say(f"{engine.name} holds {len(asked)} conversations")
        answers[role] = own_answers(engine, talks, sampling=sampling, seed=seed, say=run.say)
    if not run.leads:  # the processes share what is drawn; the first one judges it
        return
    gold = GoldScorer(prompts).gold
    kept = {
        role: kept_items(gold, asked, answers[role], model=engines[role].name, split=config.split) for role in engines
    }
    every = [item for role in engines for item in kept[role]]
    if "against" in engines:
        every += kept_gains(kept["model"], kept["against"], engines["against"].name)
    for role in engines:
        every += content_items(gold, asked, answers[role], model=engines[role].name, split=config.split)
    models = {engine.name: (engine.role.model, engine.tokenizer) for engine in engines.values()}
    watched = evenly(len(asked), config.attention)
    of_model = [answers["model"][i] for i in watched]
    every += attention_items(models, [asked[i] for i in watched], of_model, split=config.split)
    write_jsonl(run.directory / "items.jsonl", map(to_dict, every))
    write_results(run.directory / "results.json", rows_of(every, run.seed))
    shown = evenly(len(asked), config.samples)
    rows = (side_by_side(asked[i], {engines[role].name: answers[role][i] for role in engines}) for i in shown)
    write_jsonl(run.directory / "samples.jsonl", rows)


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` places, evenly spread."""
    return [i * count // wanted for i in range(wanted)] if wanted < count else list(range(count))


def side_by_side(asked: Conversation, answers: dict[str, list[Sample]]) -> dict[str, Any]:
    """The first message, and of every model the answers to it and to the turns that are measured."""
    prompt = to_dict(asked.prompt) | {"dialog": [to_dict(asked.prompt.dialog[0])], "category": asked.axis}
    told = {
        name: "\n".join(f"{turn}. {given[turn - 1].text}" for turn in (1, *measured(len(given)))[: len(given)])
        for name, given in answers.items()
    }
    return {"prompt": prompt, "answers": told}
