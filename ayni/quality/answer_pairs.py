"""Pairs of answers for an AI judge: comparisons that people made, judged again, or samples side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ayni.errors import BadInput
from ayni.quality.judge_consistency import AnnotatorChoice
from ayni.records import Comparison, Finished, Prompt, Sample, comparable
from ayni.rollout.store import read_groups


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """Two answers to one prompt, judged by the guidelines of `asked.task`; `choices`: what is known of them already."""

    prompt: Prompt
    asked: Prompt
    first: str
    second: str
    model_first: str = ""
    model_second: str = ""
    finished_first: Finished | None = None
    finished_second: Finished | None = None
    choices: tuple[AnnotatorChoice, ...] = ()


def pairs_from_comparisons(comparisons: Iterable[Comparison]) -> list[AnswerPair]:
    """A pair that several annotators judged is one pair, whichever answer each of them chose."""
    found: dict[Any, AnswerPair] = {}
    for c in comparisons:
        key = (c.prompt.dialog, c.task, frozenset((c.chosen, c.rejected)))
        models, finished = (c.model_chosen, c.model_rejected), (c.finished_chosen, c.finished_rejected)
        new = AnswerPair(c.prompt, replace(c.prompt, task=c.task), c.chosen, c.rejected, *models, *finished)
        pair = found.setdefault(key, new)
        found[key] = replace(pair, choices=(*pair.choices, AnnotatorChoice(pair.first == c.chosen, c.rating)))
    return list(found.values())


def samples_by_prompt(path: Path) -> dict[str, list[Sample]]:
    """The samples of every prompt, by its id, from a store that `rollout.store` wrote."""
    found: dict[str, list[Sample]] = {}
    for sample in (sample for group in read_groups(path) for sample in group):
        found.setdefault(sample.prompt_id, []).append(sample)
    return found


def pairs_from_samples(stores: list[dict[str, list[Sample]]], prompts: dict[str, Prompt]) -> list[AnswerPair]:
    """From two stores the first, second … samples of each prompt side by side; from one, its samples two by two."""
    if len(stores) > 2:
        raise BadInput(f"{len(stores)} stores of samples", field="samples", fix="give two, or one")
    found: dict[Any, AnswerPair] = {}
    for id, samples in stores[0].items():
        if id not in prompts:
            raise BadInput(f"the prompts hold no {id}", field="prompts", fix="give the prompts that the samples answer")
        both = (samples, stores[1].get(id, [])) if len(stores) == 2 else (samples[0::2], samples[1::2])
        for a, b in zip(*both, strict=False):
            if comparable(a.text, b.text):
                models, finished = (a.model, b.model), (a.finished, b.finished)
                pair = AnswerPair(prompts[id], prompts[id], a.text, b.text, *models, *finished)
                found.setdefault((id, frozenset((a.text, b.text))), pair)
    return list(found.values())
