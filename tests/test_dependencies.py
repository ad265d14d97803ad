"""Nothing is installed that nobody uses, and everything that is installed is pinned and has its reason."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# what is called by another name than an import: SQLAlchemy's driver by a store's address, commands, pytest's plugins
CALLED = {
    "psycopg": ("ayni/feedback/database.py", "postgresql+psycopg"),
    "pytest-timeout": ("pyproject.toml", "timeout = "),
    "pytest-xdist": ("Makefile", "-n auto"),
    "ruff": ("Makefile", "$(BIN)/ruff"),
    "mypy": ("Makefile", "$(BIN)/mypy"),
    "types-pyyaml": ("ayni/config.py", "import yaml"),
    "vadersentiment": (
        "ayni/evaluate/sentiment.py",
        "from vaderSentiment.vaderSentiment import",
    ),  # an extra's, and lazy
}


def names(requirements: list[str]) -> list[str]:
    return [canonical(re.split(r"[\[<>=~! ]", requirement)[0]) for requirement in requirements]


@cache
def installed() -> dict[str, list[str]]:
    """The distributions that brought each importable module."""
    return {module: [canonical(name) for name in names] for module, names in metadata.packages_distributions().items()}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(folder: str) -> Iterator[str]:
    """The first part of every import in a folder's files."""
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.split(".")[0]


CORE = names(PROJECT["dependencies"])
EXTRAS = names([name for extra, of in PROJECT["optional-dependencies"].items() if extra != "dev" for name in of])
DEV = names(PROJECT["optional-dependencies"]["dev"])


@pytest.mark.parametrize(
    ("name", "folders"), [(n, ["ayni"]) for n in CORE] + [(n, ["tests", "benchmarks"]) for n in DEV]
)
def test_every_dependency_is_used(name: str, folders: list[str]) -> None:
    if name in CALLED:
        file, text = CALLED[name]
        assert text in (ROOT / file).read_text()
        return
    modules = {module for module, of in installed().items() if name in of}
    assert modules, "it is not installed"
    assert modules & {module for folder in folders for module in imported(folder)}


def test_every_import_is_a_dependency() -> None:
    outside = {module for module in imported("ayni") if module in installed() and module != "ayni"}
    assert {name for module in outside for name in installed()[module]} <= {*CORE, *EXTRAS}


def test_every_dependency_is_pinned_and_has_its_reason() -> None:
    pinned = {
        canonical(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines() if line
    }
    reasons = canonical((ROOT / "docs" / "dependencies.md").read_text())
    assert {*EXTRAS} <= {*DEV}
    for name in CORE + DEV:
        assert name in pinned
        assert name in reasons
