"""The stages there are: found by their modules' names, known by their faces, imported only to run.

A stage's face and the first line of its docstring are read from its source, for `--help` and the report must not wait
for torch.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ayni.config import Config
from ayni.errors import BadInput
from ayni.stage import Face, Input


@dataclass(frozen=True)
class Stage:
    """A stage module: its integer version, face, settings and `run(config, inputs, run)`.

    `also_hashed(config, inputs)`, where it has one: files beside the inputs that the result depends on.
    """

    kind: str
    version: int
    face: Face
    config: type[Config]
    run: Callable[..., None]
    also_hashed: Callable[..., list[Path]]

    @property
    def inputs(self) -> dict[str, Input]:
        return {spec.name: spec for spec in self.face.inputs}


def _nothing_else(config: Config, inputs: Mapping[str, Any]) -> list[Path]:
    """Most stages depend on their inputs and settings alone."""
    return []


def stage_kinds() -> list[str]:
    """The names of the stage modules, without importing them."""
    package = importlib.import_module("ayni.stages")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_")


def suggestion(word: str, known: Iterable[str]) -> str:
    """`did you mean …?`, or all that is known."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"


def load_stage(kind: str, *, path: object = None, line: int | None = None) -> Stage:
    """The stage of that name; BadInput if there is none (`path` and `line` say who asked)."""
    module = None
    if kind.isidentifier():
        try:
            module = importlib.import_module(f"ayni.stages.{kind}")
        except ModuleNotFoundError as error:
            if error.name != f"ayni.stages.{kind}":
                raise
    if module is None:
        where = None if path is None else str(path)
        raise BadInput(f"no stage of the kind {kind!r}", path=where, line=line, fix=suggestion(kind, stage_kinds()))
    also_hashed = getattr(module, "also_hashed", _nothing_else)
    stage = Stage(kind, module.VERSION, module.FACE, module.Config, module.run, also_hashed)
    taken = {"kind", "seed", *stage.inputs} & set(module.Config.model_fields)
    if taken:
        raise ValueError(f"ayni.stages.{kind}: the settings {sorted(taken)} already mean something in a recipe")
    return stage


def face_of(kind: str) -> Face | None:
    """The face of the stage of that name; None where this version of ayni has no such stage."""
    module = sys.modules.get(f"ayni.stages.{kind}")
    if module is not None:
        return getattr(module, "FACE", None)
    for node in _source(kind).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["FACE"]:
            face: Face = _value(node.value)
            return face
    return None


def summary_of(kind: str) -> str:
    """The first line of the stage's docstring."""
    return (ast.get_docstring(_source(kind)) or "").partition("\n")[0]


@cache
def _source(kind: str) -> ast.Module:
    spec = importlib.util.find_spec(f"ayni.stages.{kind}") if kind.isidentifier() else None
    text = "" if spec is None or spec.origin is None else Path(spec.origin).read_text(encoding="utf-8")
    return ast.parse(text)


def _value(node: ast.expr) -> Any:
    """A literal that may hold faces and inputs."""
    if isinstance(node, ast.Tuple):
        return tuple(_value(part) for part in node.elts)
    if isinstance(node, ast.Call):
        made = {"Face": Face, "Input": Input}[ast.unparse(node.func)]
        return made(*map(_value, node.args), **{str(key.arg): _value(key.value) for key in node.keywords})
    return ast.literal_eval(node)
