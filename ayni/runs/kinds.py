"""Whether what an input is given can be what it accepts, told before anything runs and without reading anything large.

Of an earlier stage its face says what it leaves; of a model's directory its config.json, or an adapter's task; of
records the format of the first row. Where nothing can be told, nothing is refused: the stage that reads it will say.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ayni.errors import BadInput
from ayni.files import read_object
from ayni.formats.reading import kinds_of
from ayni.formats.rows import peek
from ayni.limits import size_of
from ayni.runs.faces import face_of
from ayni.runs.sealing import SEAL, read_seal
from ayni.stage import KIND_WORDS, MODELS, Face, Input, Kind, either

ARCHITECTURES: dict[str, Kind] = {
    "LlamaForCausalLM": "language_model",
    "LlamaForSequenceClassification": "reward_model",
}
ADAPTERS: dict[str, Kind] = {"CAUSAL_LM": "language_model", "SEQ_CLS": "reward_model"}
CONFIGS = {"adapter_config.json": ADAPTERS, "config.json": ARCHITECTURES}
TOKENIZERS = ("tokenizer.model", "tokenizer.json", "tokenizer.bin", "tok.bin")


class Mismatch(NamedTuple):
    what: str
    fix: str | None = None


def mismatch_of_stage(spec: Input, stage: str, path: Path, face: Face, others: Mapping[str, Face]) -> Mismatch | None:
    """Why the output at `path` of this stage of a recipe is nothing for this input; None where it may be.

    `others` are the stages to point at instead.
    """
    left = face.left_at(path)
    if left in spec.accepts or (left is None and any(face.left_at(above) for above in path.parents)):
        return None
    found = f"{stage} leaves no {path}" if left is None else f"found {KIND_WORDS[left]} ({stage}/{path})"
    outputs = [(name, where) for name, other in others.items() for where in other.where(spec.accepts)]
    fit = [name if where == spec.default else f"{name}/{where}" for name, where in outputs]
    fix = f"give {', '.join(fit[:3])} …" if len(fit) > 3 else f"give {' or '.join(fit)}" if fit else None
    return Mismatch(f"expected {either(spec.accepts)}, {'but ' if left is None else ''}{found}", fix)


def mismatch(spec: Input, path: Path) -> Mismatch | None:
    """The same of what lies at a path of its own."""
    found = kinds_at(path)
    if MODELS & {*spec.accepts} and any((path / name).is_file() for name in CONFIGS) and not _finished(path):
        from ayni.model_directory import check_sizes  # torch

        check_sizes(path)  # before anyone reads or hashes files of any size
    if found is not None and {*found} & {*spec.accepts}:
        return None
    if found is None and (path / SEAL).is_file():
        return _mismatch_of_sealed(spec, path)
    if path.is_dir() and MODELS.issuperset(spec.accepts) and not any((path / name).is_file() for name in CONFIGS):
        return Mismatch("no config.json: not a model directory")
    return None if found is None else Mismatch(f"expected {either(spec.accepts)}, found {KIND_WORDS[found[0]]}")


def _finished(path: Path) -> bool:
    """Whether a finished stage left it: then its seal says what it must be."""
    return any((above / SEAL).is_file() for above in path.resolve().parents)


def kinds_at(path: Path) -> tuple[Kind, ...] | None:
    """What the file or directory can be read as, what it is made for first; None where that cannot be told.

    BadInput for what is no file, or one so large that hashing it would take for ever.
    """
    if path.is_dir():
        return _model_at(path) or _directory(path)
    if path.exists():
        size_of(path)
    if path.suffix == ".py":
        return ("function",)
    if path.suffix in (".model", ".bin"):
        return ("tokenizer",)
    value = peek(path)
    if isinstance(value, list):  # a chunk of a store of samples
        return ("samples",)
    if isinstance(value, dict) and value.keys() == {"forward", "backward", "flops"}:
        return ("compute",)
    if isinstance(value, dict) and {"pair", "conversation", "model", "words"} <= value.keys():
        return ("leads",)
    if isinstance(value, dict) and {"prompt", "answers"} <= value.keys():
        return ("answers",)
    return kinds_of(path)


def _model_at(path: Path) -> tuple[Kind, ...] | None:
    for name, known in CONFIGS.items():
        if not (path / name).is_file():
            continue
        try:
            config = read_object(path / name)
        except BadInput:  # who loads it says so with a line
            return None
        task = config.get("task_type") or config.get("architectures")
        first = task[0] if isinstance(task, list) and task else task
        return (known[first],) if isinstance(first, str) and first in known else None
    return None


def _directory(path: Path) -> tuple[Kind, ...] | None:
    if any((path / name).is_file() for name in TOKENIZERS):
        return ("tokenizer",)
    if any(part.name.isdigit() and (part / "model").is_dir() for part in path.iterdir()):
        return ("snapshots",)
    return None if (path / SEAL).is_file() else kinds_of(path)


def _mismatch_of_sealed(spec: Input, path: Path) -> Mismatch | None:
    """A finished stage's directory in place of something inside it."""
    kind = str((read_seal(path) or {})["kind"])
    face = face_of(kind)
    fit = [str(path / where) for where in face.where(spec.accepts)] if face is not None else []
    what = f"expected {either(spec.accepts)}, but the stage {kind} left no {spec.default}"
    return Mismatch(what, f"give {' or '.join(fit)}" if fit else None)
