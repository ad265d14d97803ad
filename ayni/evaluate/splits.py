"""Which split a village's prompt or constraint is of, and who may ask it: only final evaluations open the test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from ayni.config import Config
from ayni.errors import BadInput
from ayni.records import Constraint, Prompt


class Evaluation(Config):
    """What a stage that asks a village's prompts takes: validation is to choose by, the test is opened once."""

    final: bool = Field(False, description="opens the test split, once everything is chosen; else validation")

    @property
    def split(self) -> str:
        """The name of the split, as the rows say it."""
        return "test" if self.final else "validation"


def named_split(prompt: Prompt | Constraint) -> str | None:
    """The split that a village's prompt or constraint belongs to; None of others, which do not say."""
    village, _, rest = prompt.id.partition(":")
    return rest.partition(":")[0] if village == prompt.source and village.startswith("village-") else None


def check_split(prompts: Sequence[Prompt | Constraint], *, final: bool, path: Path) -> None:
    """BadInput where a prompt is of the test split and the evaluation is not final, or the other way round."""
    for prompt in prompts:
        split = named_split(prompt)
        if split is not None and (split == "test") is not final:
            which, fix = ("a final", "leave final out") if final else ("no final", "set final: true")
            what = f"{prompt.id} is of the {split} split, and this is {which} evaluation"
            raise BadInput(what, path=path, field="final", fix=fix)
