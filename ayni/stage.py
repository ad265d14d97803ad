"""What a stage takes and what it leaves: its face. Recipes, commands, the report and the docs know a stage by it.

A stage module says `FACE = Face(…)` in literals alone, so that it can be read without importing the module (and torch
with it): see ayni.runs.faces.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any, Literal

Family = Literal["records", "fits", "online", "evaluates"]
Kind = Literal[
    "language_model",
    "reward_model",
    "critic",
    "snapshots",
    "tokenizer",
    "demonstrations",
    "comparisons",
    "judgements",
    "prompts",
    "constraints",
    "questions",
    "principles",
    "texts",
    "samples",
    "compute",
    "answers",
    "leads",
    "function",
]
KIND_WORDS: dict[Kind, str] = {
    "language_model": "a language model",
    "reward_model": "a reward model",
    "critic": "a critic",
    "snapshots": "a policy's snapshots",
    "tokenizer": "a tokenizer",
    "demonstrations": "demonstrations",
    "comparisons": "comparisons",
    "judgements": "judgements",
    "prompts": "prompts",
    "constraints": "constraints",
    "questions": "questions with known answers",
    "principles": "principles",
    "texts": "texts",
    "samples": "samples",
    "compute": "what a stage has computed",
    "answers": "answers side by side",  # of several models, with their scores: what the report shows
    "leads": "what a reward model says of the pairs it held out",
    "function": "a Python file with a reward function",
}
COMPUTE = "compute.json"  # what every stage leaves
MODELS: frozenset[Kind] = frozenset({"language_model", "reward_model", "critic"})
_OF_DIALOGUES: frozenset[Kind] = frozenset({"demonstrations", "comparisons", "prompts"})


@dataclass(frozen=True)
class Input:
    """What a stage reads: a path to one of the kinds it `accepts`, or the stage that leaves one at `default`.

    `setting` names the setting that stands in for it where it is no path: an address, or a function's name.
    `without` is a word for leaving it out.
    """

    name: str
    default: str
    accepts: tuple[Kind, ...]
    many: bool = False
    optional: bool = False
    setting: str | None = None
    without: str | None = None


@dataclass(frozen=True)
class Face:
    """`leaves`: the kind of each output by its path inside the stage's directory (`*` stands for any name).

    `sealed`: those that only a final evaluation may open. `by_setting`: those that are left only where this setting is
    neither 0 nor false. `shared`: settings that are the same in all of a recipe's stages of this kind.
    """

    family: Family
    inputs: tuple[Input, ...]
    leaves: Mapping[str, Kind]
    sealed: tuple[str, ...] = ()
    by_setting: Mapping[str, str] = field(default_factory=dict)
    shared: tuple[str, ...] = ()

    def under(self, settings: Mapping[str, Any]) -> Face:
        """The face of the stage with these settings, which leaves what they ask for and no more."""
        off = {path for path, setting in self.by_setting.items() if not settings.get(setting)}
        return replace(self, leaves={path: kind for path, kind in self.leaves.items() if path not in off})

    def left_at(self, path: PurePath) -> Kind | None:
        """The kind of the output there; None where the stage leaves none."""
        text = path.as_posix()
        if text == COMPUTE:
            return "compute"
        return next((kind for pattern, kind in self.leaves.items() if fnmatchcase(text, pattern)), None)

    def where(self, kinds: Collection[Kind]) -> list[str]:
        """The paths at which it leaves one of these kinds."""
        return [path for path, kind in self.leaves.items() if kind in kinds and "*" not in path]

    @property
    def chats(self) -> bool:
        """Whether it leaves a language model that has learnt from dialogues, not from texts alone."""
        learns = any(_OF_DIALOGUES & {*spec.accepts} for spec in self.inputs)
        return learns and self.left_at(PurePath("model")) == "language_model"


def either(kinds: Collection[Kind]) -> str:
    """`a tokenizer, a language model or a reward model`"""
    *most, last = [KIND_WORDS[kind] for kind in kinds]
    return f"{', '.join(most)} or {last}" if most else last
