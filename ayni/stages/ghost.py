"""Ghost Attention: dialogues in which an instruction of the first turn is still kept in the last (paper §3.3, §A.3.5).

A constraint is attached to every message of the user while the model answers them all, turn by turn; the record keeps
it in the first message alone, and only the last answer is supervised. The stage makes records; `sft` trains on them.
Whether a constraint is kept no stage that trains may look at: what was sampled under it is imitated, as in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from ayni.config import Config as Base
from ayni.errors import BadInput
from ayni.files import write_jsonl
from ayni.formats.reading import read_constraints_of, read_prompts_of
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.records import (
    Constraint,
    Demonstration,
    Dialog,
    Message,
    Prompt,
    Sample,
    attached,
    instruction,
    to_dict,
    turns_of,
)
from ayni.reward.combine import THRESHOLD, CombinedReward, best_of, load_combined
from ayni.reward.model import load_reward
from ayni.rollout.conversations import own_answers
from ayni.rollout.engine import chunk_prompts, rollout, with_room
from ayni.rollout.local import LocalEngine, load_engine
from ayni.rollout.sampling import Sampling
from ayni.rollout.store import draw_all
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input
from ayni.text.chat import TAGS
from ayni.text.listed import listed

VERSION = 1
FACE = Face(
    "records",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("prompts", "talks-train.jsonl", ("prompts",), many=True),
        Input("constraints", "constraints-train.jsonl", ("constraints",), many=True, optional=True),
        Input("reward", "model", ("reward_model",), optional=True),
        Input("reward_safety", "model", ("reward_model",), optional=True),
    ),
    leaves={"records.jsonl": "demonstrations", "constraints.jsonl": "constraints"},
)


class Synthesis(Base):
    """Constraints of one kind that the model names itself: it is asked for a list, and {x} is what the list holds."""

    kind: str = Field("", description="of a kind a conversation has one constraint at most")
    ask: str = Field(min_length=1, description="what asks for the list: Name three hobbies.")
    long: str = Field(description="the constraint in full, with {x}")
    short: str = Field("", description="the same in a few words, with {x}")

    @field_validator("long", "short")
    @classmethod
    def _names_it(cls, form: str) -> str:
        if form and "{x}" not in form:
            raise ValueError("expected {x} where the name stands")
        return form

    @field_validator("ask", "long", "short")
    @classmethod
    def _can_be_said(cls, text: str) -> str:
        if any(tag in text for tag in TAGS):
            raise ValueError(f"a message must not contain {', '.join(TAGS)}")
        return text

    def constraint(self, id: str, name: str) -> Constraint:
        return Constraint(id, self.long.replace("{x}", name), self.short.replace("{x}", name), self.kind)


class Config(Base):
    """The paper states no sizes; half of the constraints are shortened in it."""

    synthesis: tuple[Synthesis, ...] = Field((), strict=False, description="kinds whose names the model lists itself")
    lists: int = Field(16, ge=1, description="lists drawn of each kind in synthesis")
    combine: int = Field(2, ge=1, description="constraints of one dialogue, at most: one to so many, at random")
    shortened: float = Field(0.5, ge=0, le=1, description="share of the dialogues whose constraints are in short form")
    limit: int | None = Field(None, ge=1, description="use this many of the dialogues, chosen at random by the seed")
    cuts: int = Field(1, ge=1, description="records of a dialogue: all of it, and beginnings of it chosen by the seed")
    n: int = Field(1, ge=1, le=1 << 16, description="answers a turn, of which the reward models choose one")
    threshold: float = Field(THRESHOLD, ge=0, le=1, description="below this safety, safety decides")
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1)
    dtype: Dtype = "auto"


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    if (config.n > 1) != bool(inputs.get("reward")):
        raise BadInput("n above 1 and a reward model belong together", field="n", fix="give both, or neither")
    if inputs.get("reward_safety") and not inputs.get("reward"):
        raise BadInput("a safety model alone cannot choose", field="reward", fix="give the helpfulness model too")
    placement = Placement.of(run, config.dtype)
    engine = load_engine(inputs["model"], placement, run.name)
    reward = None
    if inputs.get("reward"):
        helpful = load_reward(inputs["reward"], placement)
        reward = load_combined(helpful, inputs.get("reward_safety"), placement, engine.tokenizer, config.threshold)
    known = read_constraints_of(inputs.get("constraints") or []) + synthesised(engine, config, run)
    if not known:
        what = "the model listed nothing" if config.synthesis else "no constraint is given"
        raise BadInput(what, field="constraints", fix="give a file of constraints")
    prompts = read_prompts_of(inputs["prompts"])
    if config.limit is not None:
        order = rng(run.seed, run.name, "prompts").permutation(len(prompts))[: config.limit]
        prompts = [prompts[i] for i in sorted(order)]
    plain = {prompt.id: prompt for prompt in prompts}
    told = {id: told_in(known, config, rng(run.seed, run.name, "told", id)) for id in plain}
    asked = [told_always(prompt, told[prompt.id]) for prompt in prompts]
    longest = reward.context if reward else math.inf
    # a dialogue may be longer than the context: it ends there; its first turn must fit
    begun = [replace(prompt, dialog=first_turn(prompt.dialog)) for prompt in asked]
    fits = {prompt.id for prompt in with_room(begun, [engine], run.say, max_tokens=config.max_tokens, read=longest)}
    asked = [prompt for prompt in asked if prompt.id in fits]
    groups = conversations(engine, asked, reward, config, run)
    records = [
        record
        for prompt, answers in zip(asked, groups, strict=True)
        for record in records_of(plain[prompt.id], told[prompt.id], answers, config.cuts, run)
    ]
    if not records:
        raise BadInput(
            "no answer says something and ends before max_tokens", field="max_tokens", fix="raise max_tokens"
        )
    log_turns(groups, run)
    run.say(f"{len(records)} records of {len(asked)} dialogues, {len(known)} constraints")
    write_jsonl(run.directory / "constraints.jsonl", map(to_dict, known))
    write_jsonl(run.directory / "records.jsonl", map(to_dict, records))


def synthesised(engine: LocalEngine, config: Config, run: Run) -> list[Constraint]:
    """What the model lists when it is asked, as constraints; says how many of each kind."""
    found: list[Constraint] = []
    for number, kind in enumerate(config.synthesis):
        question = Prompt(f"{run.name}:{number}", (Message("user", kind.ask),))
        sampling = Sampling(config.temperature, config.top_p, config.max_tokens)
        seed = seed_of(run.seed, run.name, "synthesis")
        (lists,) = rollout(engine, [question], n=config.lists, sampling=sampling, seed=seed)
        names = dict.fromkeys(name for sample in lists if sample.fit for name in listed(sample.text))
        run.say(f"{kind.ask!r}: the model named {len(names)}" + (f": {', '.join(names)}" if names else ""))
        found += [kind.constraint(f"{run.name}:{number}:{name}", name) for name in names]
    return found


def told_in(known: Sequence[Constraint], config: Config, draw: np.random.Generator) -> str:
    """The instruction of this dialogue: one or several constraints of different kinds, in full or in short."""
    kinds = list(dict.fromkeys(constraint.kind for constraint in known))
    chosen = draw.permutation(len(kinds))[: int(draw.integers(1, config.combine + 1))]
    by_kind = [[constraint for constraint in known if constraint.kind == kinds[i]] for i in chosen]
    wanted = [of_kind[int(draw.integers(len(of_kind)))] for of_kind in by_kind]
    return instruction(wanted, short=bool(draw.random() < config.shortened))


def told_always(prompt: Prompt, told: str) -> Prompt:
    """The instruction with every message of the user's: how the answers are sampled."""
    return replace(prompt, dialog=tuple(attached(told, m) if m.role == "user" else m for m in prompt.dialog))


def first_turn(dialog: Dialog) -> Dialog:
    """Up to the user's first message, a system message before it included."""
    return dialog[: 1 + next(i for i, m in enumerate(dialog) if m.role == "user")]


def conversations(
    engine: LocalEngine, asked: list[Prompt], reward: CombinedReward | None, config: Config, run: Run
) -> list[list[Sample]]:
    """The model's answer to every turn, the best by reward of n that are fit; each ends with the first that is not."""

    def choose(turns: Sequence[Prompt], drawn: Sequence[Sequence[Sample]]) -> list[int]:
        if reward is None or not turns:
            return [0] * len(turns)
        groups = [list(group) for group in drawn]
        rows = reward(list(turns), groups).combined.view(-1, config.n).tolist()
        return [best_of(row, group) for row, group in zip(rows, groups, strict=True)]

    def draw(part: Sequence[Prompt]) -> list[list[Sample]]:
        return own_answers(
            engine,
            part,
            sampling=Sampling(config.temperature, config.top_p, config.max_tokens),
            seed=seed_of(run.seed, run.name, part[0].id),
            say=run.say,
            n=config.n,
            read=reward.context if reward else math.inf,
            choose=choose,
            goes_on=lambda answer: answer.fit,
        )

    longest = max(turns_of(prompt.dialog) for prompt in asked)
    return draw_all(
        run.directory / "answers.jsonl",
        asked,
        draw,
        chunk=chunk_prompts(longest * config.n),
        progress=lambda done, total: run.progress(done, total, "dialogue"),
    )


def records_of(prompt: Prompt, told: str, answers: Sequence[Sample], cuts: int, run: Run) -> list[Demonstration]:
    """The dialogue up to its last fit answer and `cuts` − 1 shorter beginnings of it, the instruction in the first
    message alone, with a loss on nothing but the last answer."""
    kept = [sample for sample in answers if sample.fit]  # none but the last can be unfit
    if not kept:
        return []
    system = [m for m in prompt.dialog if m.role == "system"]
    first, *others = [m for m in prompt.dialog if m.role == "user"]
    users = [attached(told, first), *others]
    shorter = rng(run.seed, run.name, "cuts", prompt.id).permutation(len(kept) - 1)[: cuts - 1] + 1
    records = []
    for turns in (*sorted(int(n) for n in shorter), len(kept)):
        pairs = zip(users[:turns], kept[:turns], strict=True)
        talk = [m for user, sample in pairs for m in (user, Message("assistant", sample.text))]
        source = f"{run.name}:{prompt.id}"
        records.append(Demonstration((*system, *talk), "last", source, kept[turns - 1].finished))
    return records


def log_turns(groups: Sequence[Sequence[Sample]], run: Run) -> None:
    """How many dialogues came so far, and how long their answers are."""
    for turn in range(max(map(len, groups))):
        given = [group[turn] for group in groups if len(group) > turn]
        length = sum(len(sample.tokens) for sample in given) / len(given)
        run.log(turn + 1, dialogues=len(given), fit=sum(sample.fit for sample in given), length=length)
