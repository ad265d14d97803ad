"""docs/rl.md is one program: it runs, prints what stands there, and says no number that the code does not give.

That every estimator has its exact value is asserted by the page's own code.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from test_docs import ROOT, fenced, prose

PAGE = ROOT / "docs" / "rl.md"


@dataclass
class Ran:
    """What the page's names stand for in the end, and (code, what it printed, what stands beneath it)."""

    names: dict[str, Any] = field(default_factory=dict)
    blocks: list[tuple[str, str, str]] = field(default_factory=list)


@pytest.fixture(scope="module")
def ran() -> Ran:
    found = Ran()
    blocks = [(kind, body) for kind, _, body in fenced(PAGE)]
    for (kind, body), (after, shown) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile(body, str(PAGE), "exec"), found.names)
            found.blocks.append((body, output.getvalue(), shown if after == "text" else ""))
    return found


def test_the_page_shows_what_it_prints(ran: Ran) -> None:
    assert len(ran.blocks) > 12
    for _, printed, shown in ran.blocks:
        assert printed == shown


def test_no_number_stands_on_the_page_that_the_code_does_not_give(ran: Ran) -> None:
    said = {number for block in ran.blocks for text in block for number in re.findall(r"\d+\.\d+", text)}
    written = re.findall(r"(?<![\w/])\d+\.\d+", re.sub(r"\]\([^)]*\)", "]", prose(PAGE)))
    assert written
    assert set(written) - said == set()


def test_the_page_computes_with_what_it_links(ran: Ran) -> None:
    """Every linked function is in its file, and those of ayni.maths that are linked as formulas are called."""
    text = PAGE.read_text(encoding="utf-8")
    links = re.findall(r"\[`(\w+)`\]\(\.\./(ayni/[\w/]+\.py)\)", text)
    assert len(links) > 20
    for name, file in links:
        body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        assert name in {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}, (name, file)
        if file.startswith("ayni/maths/") and name not in ("combine_rewards", "conjugate_gradient"):
            assert name in set(called(ran)), name


def called(ran: Ran) -> Iterator[str]:
    for body, _, _ in ran.blocks:
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield node.func.id


def test_the_picture_is_what_the_page_draws(ran: Ran) -> None:
    assert ran.names["svg"] == (ROOT / "docs" / "pictures" / "prefix-values.svg").read_text(encoding="utf-8")
