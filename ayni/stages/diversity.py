"""How varied the answers to one prompt are, by temperature: factual prompts against creative ones (paper Figure 21).

Self-BLEU of many answers to the same prompt rises as they grow alike. The paper finds that RLHF takes more of it from
factual prompts, which have one right answer, than from creative ones (§5.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from ayni.errors import BadInput
from ayni.evaluate.diversity import self_bleu
from ayni.evaluate.items import Item, rows_of
from ayni.evaluate.results import write_results
from ayni.evaluate.splits import Evaluation, check_split
from ayni.files import write_jsonl
from ayni.formats.reading import read_prompts_of
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.records import Prompt, cluster_of, to_dict
from ayni.rollout.engine import rollout, with_room
from ayni.rollout.local import LocalEngine, load_compared
from ayni.rollout.sampling import Sampling
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input

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
Kind = Literal["factual", "creative"]


class Config(Evaluation):
    """Paper: 10 prompts of either kind, 25 answers each, temperatures 0.1 to 1.5."""

    factual: tuple[str, ...] = Field(
        ("person", "animal", "place", "sum"), strict=False, min_length=1, description="categories with one right answer"
    )
    creative: tuple[str, ...] = Field(("story",), strict=False, min_length=1, description="categories with many")
    each: int = Field(10, ge=1, description="prompts of either kind, chosen by the seed")
    n: int = Field(25, ge=2, le=1 << 10, description="answers to each at each temperature")
    temperatures: tuple[float, ...] = Field(
        (0.1, 0.4, 0.7, 1.0, 1.2, 1.4), strict=False, min_length=1, description="at which they are drawn"
    )
    max_tokens: int = Field(256, ge=1)
    dtype: Dtype = "auto"


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    prompts = read_prompts_of(inputs["prompts"])
    check_split(prompts, final=config.final, path=inputs["prompts"][0])
    placement = Placement.of(run, config.dtype)
    engines = load_compared(inputs, placement)
    fit = with_room(prompts, list(engines.values()), run.say)
    asked: dict[Kind, list[Prompt]] = {
        "factual": chosen(fit, config.factual, config, run),
        "creative": chosen(fit, config.creative, config, run),
    }
    shown: dict[str, dict[str, Any]] = {
        p.id: {"prompt": to_dict(p), "answers": {}} for ps in asked.values() for p in ps
    }
    items: dict[str, list[Item]] = {}
    for role, engine in engines.items():
        items[role] = alike(engine, asked, config, run, shown)
    if not run.leads:  # the processes share what is drawn; the first one counts
        return
    every = [item for found in items.values() for item in found]
    if "against" in items:
        every += differences(items["model"], items["against"], engines["against"].name)
    write_jsonl(run.directory / "items.jsonl", map(to_dict, every))
    write_results(run.directory / "results.json", rows_of(every, run.seed))
    write_jsonl(run.directory / "samples.jsonl", shown.values())


def chosen(prompts: list[Prompt], categories: tuple[str, ...], config: Config, run: Run) -> list[Prompt]:
    """Some prompts of these categories; BadInput where there is none."""
    found = [prompt for prompt in prompts if prompt.category in categories]
    if not found:
        there = ", ".join(sorted({prompt.category for prompt in prompts} - {""})) or "none has one"
        raise BadInput(
            f"no prompt is of the category {' or '.join(categories)}", field="prompts", fix=f"there: {there}"
        )
    order = rng(run.seed, "diversity", *categories).permutation(len(found))[: config.each]
    return [found[i] for i in sorted(order)]


def alike(
    engine: LocalEngine,
    asked: Mapping[Kind, list[Prompt]],
    config: Config,
    run: Run,
    shown: Mapping[str, dict[str, Any]],
) -> list[Item]:
    """Self-BLEU of the answers to every prompt at every temperature; the first answer at the last one is `shown`."""
    items = []
    prompts = [prompt for found in asked.values() for prompt in found]
    kinds = [kind for kind, found in asked.items() for _ in found]
    for number, temperature in enumerate(config.temperatures):
        sampling, seed = Sampling(temperature, 1.0, config.max_tokens), seed_of(run.seed, "diversity", number)
        groups = rollout(engine, prompts, n=config.n, sampling=sampling, seed=seed)
        for prompt, kind, group in zip(prompts, kinds, groups, strict=True):
            value = self_bleu([sample.text for sample in group])
            where: dict[str, Any] = {"axis": kind, "model": engine.name, "split": config.split}
            items.append(Item("self_bleu", value, prompt.id, cluster_of(prompt), f"{temperature:g}", **where))
            shown[prompt.id]["answers"][engine.name] = group[0].text
        run.progress(number + 1, len(config.temperatures), "temperature")
    return items


def differences(ours: list[Item], theirs: list[Item], against: str) -> list[Item]:
    """`self_bleu_difference`: of the same prompts at the same temperature, this model's less the other's."""
    before = {(item.id, item.part): item.value for item in theirs}
    return [
        replace(
            item, metric=f"{item.metric}_difference", value=item.value - before[item.id, item.part], against=against
        )
        for item in ours
    ]
