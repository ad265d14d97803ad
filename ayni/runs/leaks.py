"""Leaks of a run: what its stages trained on, held against what it evaluates on.

Evaluated on are the prompts, demonstrations and texts of evaluations and the comparisons that reward models hold out.
Trained on is whatever else a stage reads: a tokenizer, a round of sampling and a batch of comparisons lead to a model
too. What a stage's own `heldout` names it leaves out itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ayni.formats.reading import (
    kinds_of,
    read_comparisons,
    read_demonstrations,
    read_prompts,
    read_prompts_of,
    read_texts,
)
from ayni.records import Dialog, Prompt, root_of
from ayni.runs.faces import face_of
from ayni.runs.lineage import Made
from ayni.stage import MODELS, Input, Kind
from ayni.text.dedup import FINGERPRINT, fingerprint, repeated
from ayni.text.overlap import PromptIndex

DIALOGUES: frozenset[Kind] = frozenset({"demonstrations", "comparisons", "judgements", "prompts"})
# Inputs that nothing learns from: what is held out, what annotators are checked by, what stops training early.
APART = ("heldout", "checks", "validation")
ASKED = ("prompts", "people", "demonstrations")  # the inputs of an evaluation that `asked_in` reads
LONGEST = 100  # characters of an example


@dataclass(frozen=True)
class Leak:
    """`count` of the things that `evaluated` is about are in a file that `stage` trains on; `how` they are in it."""

    stage: str
    input: str
    file: str
    how: str
    evaluated: str
    count: int
    example: str

    def __str__(self) -> str:
        what = f"{self.count} × {self.how} of what {self.evaluated} is measured on"
        return f"{self.stage}: {self.input}: {self.file}: {what}, for one: {self.example}"


@dataclass
class _Evaluated:
    """What the run is measured on, with the name of the stage that does it."""

    prompts: list[tuple[Prompt, str]] = field(default_factory=list)
    roots: dict[str, str] = field(default_factory=dict)
    texts: list[tuple[str, str]] = field(default_factory=list)


def leaks_of(stages: Sequence[Made]) -> list[Leak]:
    """Every leak among these stages; BadInput where a file cannot be read. What is `gone` is not looked at."""
    evaluated = _evaluated(stages)
    if not (evaluated.prompts or evaluated.texts or evaluated.roots):
        return []
    index = PromptIndex([prompt.dialog for prompt, _ in evaluated.prompts])
    prints = np.array([fingerprint(text) for text, _ in evaluated.texts], FINGERPRINT)

    @cache
    def in_dialogues(path: Path, spec: Input) -> list[tuple[str, str, str]]:
        found = [hit for dialog in _dialogues(path, spec) for hit in index.in_dialog(dialog)]
        return [_about_prompt(how, *evaluated.prompts[number]) for how, number in dict.fromkeys(found)]

    @cache
    def in_texts(path: Path) -> list[tuple[str, str, str]]:
        numbers: dict[int, None] = {}
        texts: dict[int, None] = {}
        for text in read_texts(path):
            numbers |= dict.fromkeys(index.in_text(text))
            if len(prints) and (at := repeated(fingerprint(text), prints)) is not None:
                texts[at] = None
        asked = [_about_prompt("copy", *evaluated.prompts[number]) for number in numbers]
        return asked + [("held-out text", evaluated.texts[at][1], evaluated.texts[at][0]) for at in texts]

    found: list[Leak] = []
    for stage, spec, path in _training_inputs(stages):
        hits: list[tuple[str, str, str]] = []
        if "texts" in spec.accepts:
            own = {text for held in _there(stage.inputs.get("heldout")) for text in read_texts(held)}
            hits += [hit for hit in in_texts(path) if hit[0] != "held-out text" or hit[2] not in own]
        else:
            hits += in_dialogues(path, spec)
        if "comparisons" in spec.accepts and evaluated.roots:
            mine = {
                root_of(c.prompt.dialog) for held in _there(stage.inputs.get("heldout")) for c in read_comparisons(held)
            }
            roots = dict.fromkeys(root_of(dialog) for dialog in _dialogues(path, spec))
            shared = [root for root in roots if root in evaluated.roots and root not in mine]
            hits += [("held-out conversation", evaluated.roots[root], root) for root in shared]
        for how, name in dict.fromkeys((how, name) for how, name, _ in hits):
            examples = [example for h, n, example in hits if (h, n) == (how, name)]
            shown = " ".join(examples[0].split())[:LONGEST]
            found.append(Leak(stage.directory.name, spec.name, str(path), how, name, len(examples), shown))
    return found


def gone(stages: Iterable[Made]) -> list[Path]:
    """The files that these stages read and that are not there any more."""
    paths = dict.fromkeys(path for stage in stages for given in stage.inputs.values() for path in given)
    return [path for path in paths if not path.exists()]


def copied_prompts(prompts: Sequence[Prompt], stages: Iterable[Made]) -> Iterator[Leak]:
    """The leaks that are beyond doubt: dialogues that begin with one of the prompts, word for word."""
    index = PromptIndex([prompt.dialog for prompt in prompts])
    for stage, spec, path in _training_inputs(stages):
        if "texts" in spec.accepts:
            continue
        numbers = dict.fromkeys(number for dialog in _dialogues(path, spec) for number in index.copies_in(dialog))
        if numbers:
            example = " ".join(prompts[next(iter(numbers))].dialog[-1].content.split())[:LONGEST]
            yield Leak(stage.directory.name, spec.name, str(path), "copy", "this", len(numbers), example)


def asked_in(inputs: Any) -> list[Prompt]:
    """The prompts that an evaluation of these inputs asks."""
    prompts = read_prompts_of(_there(inputs.get("prompts"))) + read_prompts_of(_there(inputs.get("demonstrations")))
    prompts += [c.prompt for path in _there(inputs.get("people")) for c in read_comparisons(path)]
    seen = {root_of(prompt.dialog) for prompt in read_prompts_of(_there(inputs.get("seen")))}
    return [prompt for prompt in prompts if root_of(prompt.dialog) not in seen]


def models_in(kind: str, inputs: Any) -> list[Path]:
    """The models, of any kind, that a stage of these inputs reads."""
    face = face_of(kind)
    wanted = [spec for spec in face.inputs if {*MODELS, "snapshots"} & {*spec.accepts}] if face else []
    given = [inputs.get(spec.name) or () for spec in wanted]
    return [path for each in given for path in ([each] if isinstance(each, Path) else each)]


def _evaluated(stages: Sequence[Made]) -> _Evaluated:
    found = _Evaluated()
    for stage in stages:
        face, name = face_of(stage.kind), stage.directory.name
        if face is not None and face.family == "evaluates":
            found.prompts += [(prompt, name) for prompt in asked_in(stage.inputs)]
            found.texts += [(text, name) for path in _there(stage.inputs.get("texts")) for text in read_texts(path)]
        elif face is not None and any(s.name == "heldout" and "comparisons" in s.accepts for s in face.inputs):
            held = [c for path in _there(stage.inputs.get("heldout")) for c in read_comparisons(path)]
            found.roots = {root_of(c.prompt.dialog): name for c in held} | found.roots
    return found


def _training_inputs(stages: Iterable[Made]) -> Iterator[tuple[Made, Input, Path]]:
    for stage in stages:
        face = face_of(stage.kind)
        # who seals a part of what it reads trains nobody on that part; what it leaves is the others' input
        if face is None or face.family == "evaluates" or face.sealed:
            continue
        for spec in face.inputs:
            if spec.name not in APART and {"texts", *DIALOGUES} & {*spec.accepts}:
                yield from ((stage, spec, path) for path in _there(stage.inputs.get(spec.name)))


def _dialogues(path: Path, spec: Input) -> Iterator[Dialog]:
    """What a file says to the input that reads it, demonstrated answers included; of samples, which know their prompts
    by id, nothing."""
    kinds = kinds_of(path)
    if kinds is not None and "demonstrations" in {*kinds} & {*spec.accepts}:
        yield from (record.dialog for record in read_demonstrations(path))
    elif kinds is not None:
        yield from (prompt.dialog for prompt in read_prompts(path))


def _there(paths: Sequence[Path] | None) -> list[Path]:
    return [path for path in paths or () if path.is_file() or path.is_dir()]  # a pipe would be waited for


def _about_prompt(how: str, prompt: Prompt, name: str) -> tuple[str, str, str]:
    return how, name, prompt.dialog[-1].content
