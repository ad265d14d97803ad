"""Red teaming: what adversarial prompts get out of a model, and what harmless ones no longer get (paper §4.2.3, §4.4).

Answers are drawn at chat's settings. The stage may look at the hidden scores, so no stage may learn from what it
writes.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ayni.errors import BadInput
from ayni.evaluate.items import Item, rows_of
from ayni.evaluate.judges import GoldScorer
from ayni.evaluate.red_team import asked_kindly, attacked, by_phrases, differences, fit, per_session, sessions, talks
from ayni.evaluate.results import write_results
from ayni.evaluate.splits import Evaluation, check_split, named_split
from ayni.files import write_jsonl
from ayni.formats.reading import read_prompts_of
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.records import Prompt, to_dict
from ayni.rollout.conversations import own_answers
from ayni.rollout.engine import rollout, with_room
from ayni.rollout.local import LocalEngine, load_compared
from ayni.rollout.sampling import Sampling
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input
from ayni.village.gold import Gold

VERSION = 1
FACE = Face(
    "evaluates",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("against", "model", ("language_model",), optional=True),
        Input("prompts", "prompts-validation.jsonl", ("prompts",), many=True),
    ),
    leaves={"samples.jsonl": "answers"},
)


class Config(Evaluation):
    temperature: float = Field(0.6, ge=0, description="as `ayni chat` samples")
    top_p: float = Field(0.9, gt=0, le=1, description="as `ayni chat` samples")
    max_tokens: int = Field(256, ge=1)
    session: int = Field(5, ge=1, description="attacks on one topic that make a session")
    limit: int | None = Field(None, ge=1, description="prompts per task, chosen by the seed")
    samples: int = Field(40, ge=0, description="answers to write to samples.jsonl for the report")
    dtype: Dtype = "auto"


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    prompts = read_prompts_of(inputs["prompts"])
    check_split(prompts, final=config.final, path=inputs["prompts"][0])
    placement = Placement.of(run, config.dtype)
    engines = load_compared(inputs, placement)
    known = [prompt for prompt in prompts if named_split(prompt) is not None]
    gold = GoldScorer(known).gold if known else None
    prompts = chosen(with_room(askable(prompts, gold, run), list(engines.values()), run.say), config, run)
    items: dict[str, list[Item]] = {}
    answers: dict[str, list[str]] = {}
    for role, engine in engines.items():
        answers[role], items[role] = examined(engine, prompts, gold, config, run)
    if not run.leads:  # the processes share what is drawn; the first one judges it
        return
    every = [item for found in items.values() for item in found]
    if "against" in items:
        every += differences(items["model"], items["against"], engines["against"].name)
    write_jsonl(run.directory / "items.jsonl", map(to_dict, every))
    rows = rows_of(every, run.seed)
    write_results(run.directory / "results.json", rows + per_session(rows, config.session))
    write_jsonl(run.directory / "samples.jsonl", shown(prompts, engines, answers, config, run))


def askable(prompts: list[Prompt], gold: Gold | None, run: Run) -> list[Prompt]:
    """The prompts of which it can be told whether an answer refuses; BadInput if none."""
    strangers = [prompt for prompt in prompts if named_split(prompt) is None]
    known = fit(gold, [prompt for prompt in prompts if named_split(prompt) is not None]) if gold is not None else []
    if len(known) + len(strangers) < len(prompts):
        left = len(prompts) - len(known) - len(strangers)
        run.say(f"{left} prompts are left out: their right answers read like refusals")
    if not known and not strangers:
        raise BadInput("no prompt of which a refusal can be told", field="prompts", fix="give others beside them")
    return known + strangers


def chosen(prompts: list[Prompt], config: Config, run: Run) -> list[Prompt]:
    """At most `limit` prompts of each task, in a random order."""
    order = [prompts[i] for i in rng(run.seed, "redteam", "prompts").permutation(len(prompts))]
    return [p for task in ("safety", "helpfulness") for p in [p for p in order if p.task == task][: config.limit]]


def examined(
    engine: LocalEngine, prompts: list[Prompt], gold: Gold | None, config: Config, run: Run
) -> tuple[list[str], list[Item]]:
    """One model's answer to every prompt, and what was measured of them."""
    sampling = Sampling(config.temperature, config.top_p, config.max_tokens)
    run.say(f"{engine.name} answers {len(prompts)} prompts")
    drawn = rollout(engine, prompts, n=1, sampling=sampling, seed=seed_of(run.seed, "redteam"))
    known = {prompt.id for prompt in prompts if named_split(prompt) is not None}
    adversarial = [prompt for prompt in prompts if prompt.task == "safety" and prompt.id in known]
    along = [prompt for prompt in adversarial if len(prompt.dialog) > 1]
    seed = seed_of(run.seed, "redteam", "talks")
    conversations = own_answers(engine, along, sampling=sampling, seed=seed, say=run.say)
    where: dict[str, Any] = {"model": engine.name, "split": config.split}
    said = {prompt.id: sample.text for prompt, (sample,) in zip(prompts, drawn, strict=True)}
    items: list[Item] = []
    if gold is not None:
        texts = [said[prompt.id] for prompt in adversarial]
        kind = [prompt for prompt in prompts if prompt.task == "helpfulness" and prompt.id in known]
        items += attacked(gold, adversarial, texts, **where)
        items += sessions(gold, adversarial, texts, config.session, run.seed, **where)
        items += talks(gold, along, conversations, **where)
        items += asked_kindly(gold, kind, [said[prompt.id] for prompt in kind], **where)
    others = [prompt for prompt in prompts if prompt.id not in known]
    items += by_phrases(others, [said[prompt.id] for prompt in others], **where)
    return [said[prompt.id] for prompt in prompts], items


def shown(
    prompts: list[Prompt], engines: dict[str, LocalEngine], answers: dict[str, list[str]], config: Config, run: Run
) -> list[dict[str, Any]]:
    """Some answers side by side, for the report."""
    order = rng(run.seed, "redteam", "shown").permutation(len(prompts))[: config.samples]
    return [
        {"prompt": to_dict(prompts[i]), "answers": {engines[role].name: answers[role][i] for role in answers}}
        for i in sorted(order)
    ]
