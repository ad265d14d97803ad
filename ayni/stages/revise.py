"""Constitutional AI's first half: a model criticises and revises its own answers by principles (Bai et al. 2022, §3).

Adversarial prompts are answered, and every answer is criticised and revised in some rounds, each under a principle
drawn from a file. The last revision becomes the demonstration, beside the model's own answers to helpful prompts; `sft`
trains on them. The second half is `label` (its questions are our own), `reward` and `ppo`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from ayni.config import Config as Base
from ayni.errors import BadInput
from ayni.evaluate.refusals import refuses
from ayni.evaluate.results import Result, result, write_results
from ayni.files import write_jsonl
from ayni.formats.reading import read_principles, read_prompts_of
from ayni.maths.clustered import clustered_gain, clustered_share
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.records import Demonstration, Message, Principle, Prompt, Sample, cluster_of, to_dict
from ayni.rollout.engine import with_room
from ayni.rollout.local import LocalEngine, load_engine
from ayni.rollout.sampling import Sampling
from ayni.rollout.store import kept_rollout
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input
from ayni.text.chat import render_prompt

VERSION = 1
FACE = Face(
    "records",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("prompts", "prompts-train.jsonl", ("prompts",), many=True),
        Input("principles", "principles.jsonl", ("principles",)),
    ),
    leaves={"records.jsonl": "demonstrations"},
)


class Config(Base):
    """Bai et al.: four rounds, at temperature 1; 182,831 red-team prompts beside 135,296 helpful ones."""

    rounds: int = Field(4, ge=1, le=64, description="revisions of every answer")
    critique: bool = Field(True, description="the model says what is wrong before it revises")
    helpful: float = Field(0.74, ge=0, description="answers to helpful prompts, beside each adversarial one")
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1, description="longest answer, critique and revision")
    limit: int | None = Field(None, ge=1, description="so many adversarial prompts, chosen at random by the seed")
    dtype: Dtype = "auto"


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands as the answer to a prompt: `revised` in this round, 0 for the first answer."""

    prompt: Prompt
    text: str
    revised: int = 0


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    principles = read_principles(inputs["principles"])
    engine = load_engine(inputs["model"], Placement.of(run, config.dtype), run.name)
    adversarial, harmless = chosen(read_prompts_of(inputs["prompts"]), engine, config, inputs, run)
    rounds = [first_answers(adversarial, engine, config, run)]
    for number in range(1, config.rounds + 1):
        rounds.append(revised(rounds[-1], number, principles, engine, config, run))
    revisions = [demonstration(s.prompt, s.text, f"{run.name}:revision") for s in rounds[-1] if s.revised]
    if not revisions:
        what = "no answer was revised: no revision ends before max_tokens"
        raise BadInput(what, field="max_tokens", fix="raise max_tokens, or teach the model to revise")
    drawn = draw(harmless, "helpful", engine, config, run)
    helpful = [
        demonstration(prompt, sample.text, f"{run.name}:helpful")
        for prompt, sample in zip(harmless, drawn, strict=True)
        if sample.fit
    ]
    run.say(f"{len(revisions)} of {len(adversarial)} answers revised, {len(helpful)} helpful ones beside them")
    run.log(1, prompts=len(adversarial), revised=len(revisions), helpful=len(helpful))
    write_jsonl(run.directory / "records.jsonl", map(to_dict, [*revisions, *helpful]))
    write_results(run.directory / "results.json", by_round(rounds, model=engine.name, seed=run.seed))


def chosen(
    prompts: Sequence[Prompt], engine: LocalEngine, config: Config, inputs: Mapping[str, Any], run: Run
) -> tuple[list[Prompt], list[Prompt]]:
    """Those tagged safety, at most `limit`, and `helpful` times as many of the others: as far as they leave room."""
    adversarial = [prompt for prompt in prompts if prompt.task == "safety"]
    if not adversarial:
        fix = "give adversarial prompts, tagged task: safety"
        raise BadInput("no prompt is tagged safety", path=inputs["prompts"][0], field="prompts", fix=fix)
    adversarial = with_room(_some(adversarial, config.limit, "adversarial", run), [engine], run.say)
    others = [prompt for prompt in prompts if prompt.task != "safety"]
    wanted = round(config.helpful * len(adversarial))
    return adversarial, with_room(_some(others, wanted, "helpful", run), [engine], run.say)


def _some(prompts: Sequence[Prompt], count: int | None, which: str, run: Run) -> list[Prompt]:
    order = rng(run.seed, run.name, which).permutation(len(prompts))[:count]
    return [prompts[i] for i in sorted(order)]


def first_answers(prompts: Sequence[Prompt], engine: LocalEngine, config: Config, run: Run) -> list[Standing]:
    drawn = draw(prompts, "answers", engine, config, run)
    return [Standing(prompt, sample.text) for prompt, sample in zip(prompts, drawn, strict=True)]


def revised(
    standing: Sequence[Standing],
    number: int,
    principles: Sequence[Principle],
    engine: LocalEngine,
    config: Config,
    run: Run,
) -> list[Standing]:
    """The answers after one round more, each under a principle of its own; where there is no new one the old stands."""
    drawn = [rng(run.seed, run.name, "principle", number, s.prompt.id).integers(len(principles)) for s in standing]
    principle = {s.prompt.id: principles[int(i)] for s, i in zip(standing, drawn, strict=True)}
    talks = [_said(s.prompt, s.text) for s in standing if s.text.strip()]
    if config.critique:
        asked = _with_room([_asked(talk, principle[talk.id].critique) for talk in talks], engine, run)
        critiques = draw(asked, f"critiques-{number}", engine, config, run)
        talks = [_said(p, sample.text) for p, sample in zip(asked, critiques, strict=True) if sample.text.strip()]
    asked = _with_room([_asked(talk, principle[talk.id].revision) for talk in talks], engine, run)
    revisions = draw(asked, f"revisions-{number}", engine, config, run)
    found = {p.id: sample.text for p, sample in zip(asked, revisions, strict=True) if sample.fit}
    return [replace(s, text=found[s.prompt.id], revised=number) if s.prompt.id in found else s for s in standing]


def _said(prompt: Prompt, text: str) -> Prompt:
    return replace(prompt, dialog=(*prompt.dialog, Message("assistant", text)))


def _asked(talk: Prompt, text: str) -> Prompt:
    return replace(talk, dialog=(*talk.dialog, Message("user", text)))


def _with_room(prompts: Sequence[Prompt], engine: LocalEngine, run: Run) -> list[Prompt]:
    """Those that leave room for an answer; there may be none."""
    kept = [prompt for prompt in prompts if len(render_prompt(prompt.dialog, engine.tokenizer)) < engine.context]
    if len(kept) < len(prompts):
        run.say(f"{len(prompts) - len(kept)} answers stand as they are: talking of them fills the context")
    return kept


def draw(prompts: Sequence[Prompt], step: str, engine: LocalEngine, config: Config, run: Run) -> list[Sample]:
    """One sample of every prompt; those of a stage that was killed are still there."""
    run.say(f"{step}: {len(prompts)} prompts")
    sampling, seed = Sampling(config.temperature, config.top_p, config.max_tokens), seed_of(run.seed, run.name, step)
    groups = kept_rollout(engine, prompts, run, f"samples-{step}", n=1, sampling=sampling, seed=seed)
    return [sample for (sample,) in groups]


def demonstration(prompt: Prompt, text: str, source: str) -> Demonstration:
    return Demonstration((*prompt.dialog, Message("assistant", text)), "last", f"{source}:{prompt.id}", "stop")


def by_round(rounds: Sequence[Sequence[Standing]], **who: Any) -> list[Result]:
    """Rows by round (`axis`): `refused`, how many standing answers refuse by their phrases; from the first revision on
    `changed`, how many are new; and `refused_gain`, the last round less the first answers."""
    rows: list[Result] = []
    clusters = [cluster_of(s.prompt) for s in rounds[0]]
    refused = [[float(refuses(s.text)) for s in standing] for standing in rounds]
    for number, standing in enumerate(rounds):
        axis = f"round {number}"
        rows.append(result("refused", clustered_share(refused[number], clusters), axis=axis, **who))
        if number:
            changed = [now.text != then.text for now, then in zip(standing, rounds[number - 1], strict=True)]
            rows.append(result("changed", clustered_share(changed, clusters), axis=axis, **who))
    gains = [last - first for first, last in zip(refused[0], refused[-1], strict=True)]
    rows.append(result("refused_gain", clustered_gain(gains, clusters), axis=f"round {len(rounds) - 1}", **who))
    return rows
