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

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

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


_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_KNOWN = {f"{_TAG}{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}
LARGEST_YAML = 1 << 17  # characters; parsing is slow
MOST_VALUES = 10_000  # aliases written out
DEEPEST = 50


def _values(node: yaml.Node, path: object, inside: tuple[int, ...], known: dict[int, int]) -> int:
    """How many values the node holds with its aliases written out; BadInput where it is too many, or has no end."""
    where, line = str(path), node.start_mark.line + 1
    if id(node) in inside:
        raise BadInput("the value holds itself", path=where, line=line, fix="write it out without an alias")
    if len(inside) > DEEPEST:
        raise BadInput(f"nested deeper than {DEEPEST} levels", path=where, line=line)
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        children = [child for part in parts for child in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_values(child, path, (*inside, id(node)), known) for child in children)
        if known[id(node)] > MOST_VALUES:
            raise BadInput(f"more than {MOST_VALUES} values, aliases written out", path=where, line=line)
    return known[id(node)]


def _build(node: yaml.Node, loader: _Loader, at: tuple[str | int, ...], lines: Lines, path: object) -> Any:
    line = lines[at] = node.start_mark.line + 1
    if node.tag not in _KNOWN:
        raise BadInput(f"not YAML: the tag {node.tag.replace(_TAG, '!!')} is unknown here", path=str(path), line=line)
    if isinstance(node, yaml.MappingNode):
        own = sum(key.tag != _MERGE for key, _ in node.value)
        loader.flatten_mapping(node)  # what `<<` merges comes first, and the mapping's own keys win over it
        merged, given = len(node.value) - own, set[str]()
        value: dict[Any, Any] = {}
        for number, (key_node, child) in enumerate(node.value):
            key = _build(key_node, loader, at, {}, path)
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
    try:
        found = loader.construct_object(node, deep=True)
    except (ValueError, LookupError):  # what a tag says it is, it is not
        what = f"not YAML: {node.value!r} is no {node.tag.removeprefix(_TAG)}"
        raise BadInput(what, path=str(path), line=line) from None
    if isinstance(found, int) and abs(found) >= 1 << 63:
        raise BadInput("a whole number of more than 64 bits", path=str(path), line=line)
    return found


def parse_yaml(text: str, path: object = "<text>") -> tuple[Any, Lines]:
    """The value, and the line of every key; BadInput on bad YAML, on a key that stands twice, and where it is too much:
    in characters, in values, in depth."""
    if len(text) > LARGEST_YAML:
        raise BadInput(f"longer than {LARGEST_YAML} characters", path=str(path), fix="no settings need so many")
    lines: Lines = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, lines
        _values(node, path, (), {})
        return _build(node, loader, (), lines, path), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadInput(f"not YAML: {error.problem}", path=str(path), line=mark.line + 1 if mark else 1) from None
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(f"not YAML: {error}", path=str(path), line=1) from None
    except RecursionError:
        raise BadInput(f"nested deeper than {DEEPEST} levels", path=str(path), line=1) from None


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
        what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        at_line = next((lines[loc[:n]] for n in range(len(loc), -1, -1) if loc[:n] in lines), line) if lines else line
        where = None if path is None else str(path)
        raise BadInput(what, path=where, line=at_line, field=".".join(map(str, loc)) or None, fix=fix) from None
