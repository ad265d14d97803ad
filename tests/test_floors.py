"""Imports go strictly down the floors of the house, and the training side never sees the gold scores."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent / "ayni"
# What stands on the ground floor, each on those before it.
GROUND = ["__init__", "errors", "memory", "limits", "files", "config", "records", "stage", "seeds"]
GROUND += ["interruption", "run", "parallel", "cores", "preprompts"]
# Packages and modules from the ground up; on one floor nobody imports a neighbour, but for the two ladders below.
FLOORS: list[set[str]] = [
    set(GROUND),
    {"text", "formats", "model", "maths", "village", "feedback"},
    {"model_directory", "introduction", "conversion"},
    {"train", "rollout"},
    {"reward"},
    {"online", "evaluate", "quality"},
    {"stages"},
    {"runs"},
    {"report", "serve", "cli", "__main__"},
]
# Packages and modules that stand on each other inside a floor, lowest first.
LADDERS = [
    GROUND,
    ["text", "formats"],
    ["model_directory", "introduction", "conversion"],
    ["evaluate", "quality"],
    ["report", "serve", "cli", "__main__"],
]
# What a package may import beside the standard library and ayni itself.
ONLY = {part: {"torch", "numpy", "safetensors"} for part in ("model", "maths", "train", "rollout", "online")}
WITHOUT_TORCH = ("text", "formats", "village", "feedback")
# The gold scores: who may read them. Everyone else learns from sampled labels.
GOLD = re.compile(r"ayni\.village\.(gold|annotat\w*)(\.|$)")
# These stages show gold scores to nobody but the reader, or sample labels from them; none of them may train.
NEAR_GOLD = ("village", "collect", "evaluate", "examine", "redteam", "persistence", "study")
READS_GOLD = re.compile(r"stages/(village|collect|evaluate|examine|redteam)\.py|evaluate/.*|village/.*")


def imports_of(file: Path) -> Iterator[tuple[int, str]]:
    """(line, full dotted name) of every import anywhere in a file, lazy ones too; names of `from` are included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def part_of(file: Path) -> str:
    """The package or top-level module a file belongs to."""
    return file.relative_to(HOUSE).parts[0].removesuffix(".py")


def part_of_name(name: str) -> str:
    """The same for a dotted name: `ayni.text.chat.render` is text, `ayni.__version__` the package itself."""
    first = name.split(".")[1] if "." in name else "__init__"
    return first if (HOUSE / first).is_dir() or (HOUSE / f"{first}.py").is_file() else "__init__"


def floor_of(part: str) -> int:
    return next((number for number, parts in enumerate(FLOORS) if part in parts), -1)


def may_import(part: str, other: str) -> bool:
    if part == other or floor_of(other) < floor_of(part):
        return True
    for ladder in LADDERS:
        if part in ladder and other in ladder:
            return ladder.index(other) < ladder.index(part)
    return False


FILES = sorted(HOUSE.rglob("*.py"))


def test_the_house_is_walked_and_every_part_has_a_floor() -> None:
    assert len(FILES) > 30
    assert {part_of(file) for file in FILES if floor_of(part_of(file)) < 0} == set()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(HOUSE)))
def test_imports(file: Path) -> None:
    part, inside, wrong = part_of(file), file.relative_to(HOUSE).as_posix(), []
    for line, name in imports_of(file):
        top = name.partition(".")[0]
        if top == "ayni":
            other = part_of_name(name)
            if not may_import(part, other):
                wrong.append(f"{inside}:{line}: {part} must not import {other}")
            if part == "stages" and name.startswith("ayni.stages"):
                wrong.append(f"{inside}:{line}: stages never import stages")
            if GOLD.match(name) and not READS_GOLD.fullmatch(inside):
                wrong.append(f"{inside}:{line}: the gold scores are not for {inside}")
        elif top not in sys.stdlib_module_names:
            if part in ONLY and top not in ONLY[part]:
                wrong.append(f"{inside}:{line}: {part} imports only {', '.join(sorted(ONLY[part]))}, not {top}")
            if part in WITHOUT_TORCH and top == "torch":
                wrong.append(f"{inside}:{line}: {part} knows no torch")
    assert wrong == []


def reachable(start: str) -> set[str]:
    """Every module of ours that importing `start` brings along, lazily or not."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        path = HOUSE.parent / Path(*module.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for _, name in imports_of(file):
            if name.startswith("ayni."):
                parent = name.rpartition(".")[0]
                waiting += [m for m in (name, parent) if _is_module(m)]
    return seen


def _is_module(name: str) -> bool:
    path = HOUSE.parent / Path(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


SHARING = {"share", "gather", "gather_rows", "sum_gradients", "barrier"}
FORMATS = {"float32", "bfloat16", "float16"}
NAMED_FORMATS = {"fp32", "bf16"}


@pytest.mark.parametrize("file", sorted((HOUSE / "stages").glob("*.py")), ids=lambda file: file.stem)
def test_no_stage_has_a_collective_or_a_rule_of_number_formats(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert (used & (SHARING | FORMATS), texts & NAMED_FORMATS) == (set(), set())


STAGES = [file.stem for file in FILES if part_of(file) == "stages" and file.stem != "__init__"]


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in NEAR_GOLD])
def test_no_training_stage_can_reach_the_gold_scores(stage: str) -> None:
    assert {module for module in reachable(f"ayni.stages.{stage}") if GOLD.match(module)} == set()


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage in NEAR_GOLD])
def test_no_stage_near_the_gold_scores_trains(stage: str) -> None:
    assert {m for m in reachable(f"ayni.stages.{stage}") if re.match(r"ayni\.train\.trainer", m)} == set()


def test_the_gold_scores_exist_where_this_test_looks() -> None:
    assert {
        f"ayni.village.{file.stem}"
        for file in (HOUSE / "village").glob("*.py")
        if GOLD.match(f"ayni.village.{file.stem}")
    }


@pytest.mark.parametrize(
    ("part", "other", "allowed"),
    [
        ("text", "errors", True),
        ("errors", "text", False),
        ("text", "model", False),
        ("train", "rollout", False),
        ("stages", "evaluate", True),
        ("evaluate", "stages", False),
        ("report", "runs", True),
        ("runs", "report", False),
        ("cli", "runs", True),
        ("runs", "cli", False),
        ("config", "run", False),
        ("formats", "text", True),
    ],
)
def test_the_rule_itself(part: str, other: str, allowed: bool) -> None:
    assert may_import(part, other) is allowed
