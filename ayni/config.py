"""Strict, frozen settings: from YAML with line numbers and `--set`, or a one-line error that names the field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ayni.errors import BadInput
from ayni.files import read_text

__all__ = [
    "Config",
    "Field",
    "Lines",
    "apply_sets",
    "field_validator",
    "model_validator",
    "parse_config",
    "parse_yaml",
    "read_yaml",
]

Lines = dict[tuple[str | int, ...], int]


class Config(BaseModel):
    """The settings of one stage: unknown keys and wrong types are errors, nothing changes after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _over_defaults(cls, given: Any) -> Any:
        """A table given in part (`optimiser: {lr: 1e-4}`) changes that part of this field's default and no more."""
        if not isinstance(given, dict):
            return given
        tables = {name: field.default for name, field in cls.model_fields.items() if isinstance(field.default, Config)}
        merged = {
            name: default.model_dump() | given[name]
            for name, default in tables.items()
            if isinstance(given.get(name), dict)
        }
        return given | merged


C = TypeVar("C", bound=Config)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-5 as text and `on` as true; here numbers are numbers and only true and false are bools."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if tag in {"tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"}
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.[0-9]+|\.inf|\.nan)$"),
    list("-+0123456789."),
)


_MERGE = "tag:yaml.org,2002:merge"


def _build(node: yaml.Node, loader: _Loader, at: tuple[str | int, ...], lines: Lines, path: object) -> Any:
    lines[at] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        own = sum(key.tag != _MERGE for key, _ in node.value)
        loader.flatten_mapping(node)  # what `<<` merges comes first, and the mapping's own keys win over it
        merged, given = len(node.value) - own, set[str]()
        value: dict[Any, Any] = {}
        for number, (key_node, child) in enumerate(node.value):
            key = loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise BadInput(f"the key {key!r} is not text", path=str(path), line=line, fix="put it in quotes")
            if key in given:
                raise BadInput("the key stands twice", path=str(path), line=line, field=".".join(map(str, (*at, key))))
            if number >= merged:
                given.add(key)
            value[key] = _build(child, loader, (*at, key), lines, path)
            lines[(*at, key)] = line
        return value
    if isinstance(node, yaml.SequenceNode):
        return [_build(child, loader, (*at, i), lines, path) for i, child in enumerate(node.value)]
    return loader.construct_object(node, deep=True)


def parse_yaml(text: str, path: object = "<text>") -> tuple[Any, Lines]:
    """The value, and the line of every key; BadInput on bad YAML or a key that stands twice."""
    loader = _Loader(text)
    lines: Lines = {}
    try:
        node = loader.get_single_node()
        return (None if node is None else _build(node, loader, (), lines, path)), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadInput(f"not YAML: {error.problem}", path=str(path), line=mark.line + 1 if mark else 1) from None
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(f"not YAML: {error}", path=str(path), line=1) from None
    finally:
        loader.dispose()


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    value, lines = parse_yaml(read_text(path), path)
    if value is None:
        raise BadInput("the file is empty", path=path, line=1, fix="write at least one `key: value`")
    if not isinstance(value, dict):
        raise BadInput(f"expected `key: value` pairs, found {type(value).__name__}", path=path, line=1)
    return value, lines


def apply_sets(value: dict[str, Any], sets: list[str]) -> dict[str, Any]:
    """`--set a.b=c`: a copy of `value` with the dotted paths replaced; c is read as YAML."""
    import copy

    value = copy.deepcopy(value)
    for item in sets:
        dotted, equals, text = item.partition("=")
        if not equals or not dotted:
            raise BadInput(f"--set {item}: expected KEY=VALUE", fix="write for example --set sft.epochs=2")
        *parents, last = dotted.split(".")
        place: Any = value
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise BadInput(f"--set {item}: {parent} holds no keys")
        place[last] = parse_yaml(text, f"--set {item}")[0]
    return value


def parse_config(
    kind: type[C],
    value: dict[str, Any],
    *,
    path: object = None,
    line: int | None = None,
    lines: Lines | None = None,
    at: tuple[str | int, ...] = (),
) -> C:
    """The config, or BadInput with the line of the key at fault (`lines` and `at` locate it in its file)."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        loc = (*at, *first["loc"])
        known = ", ".join(sorted(kind.model_fields))
        fix = f"known here: {known}" if first["type"] == "extra_forbidden" else None
        what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
        at_line = next((lines[loc[:n]] for n in range(len(loc), -1, -1) if loc[:n] in lines), line) if lines else line
        where = None if path is None else str(path)
        raise BadInput(what, path=where, line=at_line, field=".".join(map(str, loc)) or None, fix=fix) from None
