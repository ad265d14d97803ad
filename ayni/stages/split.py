"""Prompts of any files, apart: to train on, to choose by, and sealed for the final evaluation.

By conversation, and what resembles a prompt of the test is neither trained on nor chosen by, what resembles one to
choose by not trained on: what is measured was never practised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field, model_validator

from ayni.config import Config as Base
from ayni.errors import BadInput
from ayni.files import write_jsonl
from ayni.formats.reading import read_prompts_of
from ayni.records import Prompt, Task, root_of, to_dict
from ayni.run import Run
from ayni.seeds import rng
from ayni.stage import Face, Input
from ayni.text.overlap import PromptIndex

VERSION = 2  # what resembles a prompt of the test is not chosen by either
FACE = Face(
    "records",
    inputs=(Input("data", "records.jsonl", ("prompts", "demonstrations", "comparisons"), many=True),),
    leaves={"prompts-train.jsonl": "prompts", "prompts-validation.jsonl": "prompts", "prompts-test.jsonl": "prompts"},
    sealed=("prompts-test.jsonl",),
    by_setting={"prompts-validation.jsonl": "validation_share", "prompts-test.jsonl": "test_share"},
)


class Config(Base):
    task: Task | None = Field(None, description="whose guidelines judge the answers; default: what each prompt says")
    validation_share: float = Field(0.1, ge=0, lt=1, description="of the conversations; 0: no such file")
    test_share: float = Field(0.2, ge=0, lt=1, description="of the conversations, sealed; 0: no such file")

    @model_validator(mode="after")
    def _some_are_left(self) -> Config:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("nothing is left to train on; hold less out")
        return self


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    prompts = read_prompts_of(inputs["data"])
    if config.task is not None:
        prompts = [replace(prompt, task=config.task) for prompt in prompts]
    parts = parted(prompts, config, run.seed)
    kept = apart(parts)
    left_out = sum(len(parts[name]) - len(held) for name, held in kept.items())
    run.say(
        f"{len(kept['train'])} prompts to train on, {len(kept['validation'])} to choose by, {len(kept['test'])} to "
        f"test on; {left_out} left out as too like those held out"
    )
    shares = {"train": 1.0, "validation": config.validation_share, "test": config.test_share}
    wanted = {name: held for name, held in kept.items() if shares[name]}
    for name, held in wanted.items():
        if not held:
            raise BadInput(f"no prompt is left for {name}", path=inputs["data"][0], fix="give more prompts")
    for name, held in wanted.items():
        write_jsonl(run.directory / f"prompts-{name}.jsonl", map(to_dict, held))


def parted(prompts: Sequence[Prompt], config: Config, seed: int) -> dict[str, list[Prompt]]:
    """The prompts to train on, to choose by and to test on, by conversation: its turns never stand in two of them."""
    roots = sorted({root_of(prompt.dialog) for prompt in prompts})
    mixed_up = [roots[i] for i in rng(seed, "split").permutation(len(roots))]
    tested = round(config.test_share * len(roots))
    chosen_by = tested + round(config.validation_share * len(roots))
    groups = {"test": mixed_up[:tested], "validation": mixed_up[tested:chosen_by], "train": mixed_up[chosen_by:]}
    name_of = {root: name for name, group in groups.items() for root in group}
    parts: dict[str, list[Prompt]] = {name: [] for name in groups}
    for prompt in prompts:
        parts[name_of[root_of(prompt.dialog)]].append(prompt)
    return parts


def apart(parts: Mapping[str, list[Prompt]]) -> dict[str, list[Prompt]]:
    """The parts, of each only what resembles nothing of those that are closed after it."""
    test = parts["test"]
    validation = unlike(parts["validation"], test)
    return {"test": test, "validation": validation, "train": unlike(parts["train"], validation + test)}


def unlike(prompts: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[Prompt]:
    """Those that are no copy, near copy or sibling turn of one held out."""
    index = PromptIndex([prompt.dialog for prompt in held_out])
    return [prompt for prompt in prompts if not any(index.in_dialog(prompt.dialog))]
