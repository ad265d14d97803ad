"""How much code a stage brings along that supervised fine-tuning does not need: what it imports, read and not run."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Collection
from functools import cache
from pathlib import Path

import ayni

PLAIN = "sft"
_HOUSE = Path(ayni.__file__).parent
_SKIPPED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def own_lines(kinds: Collection[str]) -> int:
    """Lines of code, less comments, blank lines and docstrings, of all modules of ours that stages of these kinds
    import, directly or not, and `sft` does not. Kinds that this version does not know count nothing."""
    wanted = set[str]().union(*(imported(f"ayni.stages.{kind}") for kind in kinds))
    return sum(lines_of(module) for module in wanted - imported(f"ayni.stages.{PLAIN}"))


def imported(start: str) -> set[str]:
    """The module and every module of ours that importing it may bring along, lazily too."""
    seen, waiting = set[str](), [start]
    while waiting:
        module = waiting.pop()
        if module not in seen and _source(module) is not None:
            seen.add(module)
            waiting += _names_in(module)
    return seen


@cache
def _names_in(module: str) -> frozenset[str]:
    """What the module imports of ours, and the names it imports from there, which may be modules too."""
    found = set[str]()
    for node in ast.walk(ast.parse(_source(module) or "")):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in found if name.startswith("ayni."))


@cache
def lines_of(module: str) -> int:
    """Lines of the module that hold code."""
    source = _source(module) or ""
    documented = set[int]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented |= {*range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    lines = set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _SKIPPED:
            lines |= {*range(token.start[0], token.end[0] + 1)}
    return len(lines - documented)


@cache
def _source(module: str) -> str | None:
    """None of a name that is no module of ours."""
    place = _HOUSE.joinpath(*module.split(".")[1:])
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return file.read_text(encoding="utf-8") if file.is_file() else None
