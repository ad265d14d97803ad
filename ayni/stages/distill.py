"""Context distillation: answers given under a safety preprompt become answers without it (paper §4.2.4, Figure 16).

Each adversarial prompt is answered as it is and under a preprompt; the safety reward model scores both as answers to
the prompt without the preprompt, and the distilled answer is kept only where it scores above the original's. The stage
makes records; `sft` trains on them. Prompts that are not tagged safety are left out: the paper found that distillation
makes helpful prompts' answers worse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator

from ayni.config import Config as Base
from ayni.errors import BadInput
from ayni.evaluate.results import Result, result, write_results
from ayni.files import write_jsonl
from ayni.formats.reading import read_prompts_of
from ayni.maths.clustered import clustered_mean, clustered_median, clustered_share
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.preprompts import GENERIC
from ayni.records import Demonstration, Message, Prompt, Sample, cluster_of, to_dict, under
from ayni.reward.combine import CombinedReward
from ayni.reward.model import load_reward
from ayni.rollout.engine import as_answers_to, with_room
from ayni.rollout.local import LocalEngine, load_engine
from ayni.rollout.sampling import Sampling
from ayni.rollout.store import kept_rollout
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input
from ayni.text.chat import TAGS

VERSION = 1
FACE = Face(
    "records",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("reward_safety", "model", ("reward_model",)),
        Input("prompts", "prompts-train.jsonl", ("prompts",), many=True),
    ),
    leaves={"records.jsonl": "demonstrations"},
)

Way = Literal["original", "generic", "template"]  # how a prompt was asked
Scored = tuple[float, Sample]
Answers = Mapping[Way, Mapping[str, list[Scored]]]  # the answers by prompt id, of prompts that were asked in this way


class Config(Base):
    """How many answers a prompt, and at which temperature, is unpublished."""

    prefix: Literal["generic", "template", "both"] = Field(
        "generic", description="which preprompt the answers are given under; both: the better of the two is kept"
    )
    preprompts: tuple[str, ...] = Field(GENERIC, strict=False, min_length=1, description="generic: one drawn a prompt")
    templates: dict[str, str] = Field(
        {}, description="a preprompt by risk category: that of a prompt, or one of its parts between colons"
    )
    keep: Literal["improved", "all"] = Field("improved", description="all is the control: the same without the reward")
    n: int = Field(1, ge=1, le=1 << 16, description="answers a prompt and way; the best of each are compared")
    temperature: float = Field(1.0, gt=0)
    max_tokens: int = Field(256, ge=1)
    limit: int | None = Field(None, ge=1, description="so many prompts, chosen at random by the seed")
    dtype: Dtype = "auto"

    @field_validator("preprompts", "templates")
    @classmethod
    def _sayable(cls, given: tuple[str, ...] | dict[str, str]) -> tuple[str, ...] | dict[str, str]:
        for text in given.values() if isinstance(given, dict) else given:
            tag = next((tag for tag in TAGS if tag in text), None)
            if tag or not text.strip():
                raise ValueError(f"a preprompt must not contain {tag}" if tag else "a preprompt is empty")
        return given


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    if config.prefix != "generic" and not config.templates:
        raise BadInput(f"prefix is {config.prefix}, and there is none", field="templates", fix="give templates")
    placement = Placement.of(run, config.dtype)
    engine = load_engine(inputs["model"], placement, run.name)
    safety = load_reward(inputs["reward_safety"], placement)
    reward = CombinedReward(safety, None, engine.tokenizer, ranks=placement.ranks)  # which safety alone decides
    prompts = adversarial(read_prompts_of(inputs["prompts"]), config, inputs, run)
    forms = forms_of(prompts, engine, reward.context, config, run)
    asked = {prompt.id: prompt for prompt in forms["original"]}
    answers: dict[Way, dict[str, list[Scored]]] = {}
    for way, form in forms.items():
        groups = draw(form, way, engine, config, run)
        bare = [asked[prompt.id] for prompt in form]
        scores = reward(bare, as_answers_to(bare, groups, engine.tokenizer)).combined.view(-1, config.n)
        answers[way] = {
            prompt.id: list(zip(found, group, strict=True))
            for prompt, found, group in zip(form, scores.tolist(), groups, strict=True)
        }
    kept = select(list(asked.values()), answers, config, run)
    rows = gains(list(asked.values()), answers, model=engine.name, judge=safety.name or "reward", seed=run.seed)
    write_jsonl(run.directory / "records.jsonl", map(to_dict, kept))
    write_results(run.directory / "results.json", rows)


def adversarial(prompts: Sequence[Prompt], config: Config, inputs: Mapping[str, Any], run: Run) -> list[Prompt]:
    """Those tagged safety, at most `limit`; where every answer is to be given under a template, those that have one."""
    found = [prompt for prompt in {p.id: p for p in prompts}.values() if prompt.task == "safety"]
    run.say(f"{len(found)} of {len(prompts)} prompts are tagged safety; the others are left out")
    if not found:
        fix = "give adversarial prompts, tagged task: safety"
        raise BadInput("no prompt is tagged safety", path=inputs["prompts"][0], field="prompts", fix=fix)
    if config.prefix == "template":
        fit = [prompt for prompt in found if template_of(prompt, config.templates) is not None]
        if not fit:
            what = f"no template is of a prompt's category, such as {found[0].category!r}"
            raise BadInput(what, path=inputs["prompts"][0], field="templates")
        if len(fit) < len(found):
            run.say(f"{len(found) - len(fit)} of them are of no template's category and are left out")
        found = fit
    if config.limit is not None:
        order = rng(run.seed, run.name, "prompts").permutation(len(found))[: config.limit]
        found = [found[i] for i in sorted(order)]
    return found


def template_of(prompt: Prompt, templates: Mapping[str, str]) -> str | None:
    """That of the prompt's whole category, else of the first of its parts that has one."""
    parts = (prompt.category, *prompt.category.split(":"))
    return next((templates[part] for part in parts if part in templates), None)


def forms_of(
    prompts: Sequence[Prompt], engine: LocalEngine, read: float, config: Config, run: Run
) -> dict[Way, list[Prompt]]:
    """Every prompt in every way it is to be asked: those alone that leave room for an answer in all of them."""
    forms: dict[Way, list[Prompt]] = {"original": list(prompts)}
    if config.prefix != "template":
        draws = [rng(run.seed, run.name, "preprompt", prompt.id) for prompt in prompts]
        drawn = [config.preprompts[int(draw.integers(len(config.preprompts)))] for draw in draws]
        forms["generic"] = [under(prompt, text) for prompt, text in zip(prompts, drawn, strict=True)]
    if config.prefix != "generic":
        found = [(prompt, template_of(prompt, config.templates)) for prompt in prompts]
        forms["template"] = [under(prompt, text) for prompt, text in found if text is not None]
    out: set[str] = set()
    for way, form in forms.items():
        longest = read if way == "original" else float("inf")  # the reward model does not read the preprompt
        fit = with_room(form, [engine], run.say, max_tokens=config.max_tokens, read=longest)
        out |= {prompt.id for prompt in form} - {prompt.id for prompt in fit}
    return {way: [prompt for prompt in form if prompt.id not in out] for way, form in forms.items()}


def draw(form: Sequence[Prompt], way: Way, engine: LocalEngine, config: Config, run: Run) -> list[list[Sample]]:
    """n answers to every prompt as it is asked in this way; those of a stage that was killed are still there."""
    run.say(f"{way}: {len(form)} prompts × {config.n}")
    sampling, seed = Sampling(config.temperature, 1.0, config.max_tokens), seed_of(seed_of(run.seed, run.name), way)
    return kept_rollout(engine, form, run, f"samples-{way}", n=config.n, sampling=sampling, seed=seed)


def best_of(drawn: Sequence[Scored]) -> Scored | None:
    """The best of the answers that can be kept: none that was cut off, none that says nothing."""
    fit = [(score, sample) for score, sample in drawn if sample.fit]
    return max(fit, key=lambda each: each[0], default=None)


def original_of(prompt: Prompt, answers: Answers) -> float:
    """What a distilled answer must beat: the best original one, whether it ended or not."""
    return max(score for score, _ in answers["original"][prompt.id])


def select(prompts: Sequence[Prompt], answers: Answers, config: Config, run: Run) -> list[Demonstration]:
    """The best distilled answer of every prompt, where it beats the best original one (or wherever there is one)."""
    kept: list[Demonstration] = []
    for prompt in prompts:
        found = [(best_of(of.get(prompt.id, [])), way) for way, of in answers.items() if way != "original"]
        drawn = [(*best, way) for best, way in found if best is not None]
        if not drawn:
            continue
        score, sample, way = max(drawn, key=lambda each: each[0])
        if score > original_of(prompt, answers) or config.keep == "all":
            said = Message("assistant", sample.text)
            kept.append(Demonstration((*prompt.dialog, said), "last", f"{run.name}:{way}:{prompt.id}", sample.finished))
    if not kept and config.keep == "all":
        raise BadInput("no answer ends before max_tokens", field="max_tokens", fix="raise max_tokens")
    if not kept:
        what = "no answer under a preprompt ends before max_tokens and is safer than the original"
        raise BadInput(what, field="keep", fix="draw more (n), or longer ones (max_tokens)")
    run.say(f"kept {len(kept)} of {len(prompts)} prompts")
    run.log(1, prompts=len(prompts), kept=len(kept))
    return kept


def gains(prompts: Sequence[Prompt], answers: Answers, **who: Any) -> list[Result]:
    """Figure 16: the safety reward of each way to ask, and how often and by how much a preprompt improves it."""
    rows: list[Result] = []
    for way, of in answers.items():
        asked = [prompt for prompt in prompts if prompt.id in of]
        values = [score for prompt in asked for score, _ in of[prompt.id]]
        clusters = [cluster_of(prompt) for prompt in asked for _ in of[prompt.id]]
        rows.append(result("safety_reward", clustered_mean(values, clusters), axis=way, **who))
        rows.append(result("safety_reward_median", clustered_median(values, clusters), axis=way, **who))
        if way == "original":
            continue
        gained, improved = [], []
        for prompt in asked:
            ours, theirs = ([score for score, _ in each[prompt.id]] for each in (of, answers["original"]))
            gained.append(sum(ours) / len(ours) - sum(theirs) / len(theirs))
            best = best_of(of[prompt.id])
            improved.append(best is not None and best[0] > original_of(prompt, answers))
        clusters = [cluster_of(prompt) for prompt in asked]
        rows.append(result("safety_reward_gain", clustered_mean(gained, clusters), axis=way, against="original", **who))
        rows.append(result("improved", clustered_share(improved, clusters), axis=way, against="original", **who))
    return rows
