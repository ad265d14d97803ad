"""JSON lines in and out of the verbs: `{"text"}` or `{"messages"}` per line, results in the order of the input."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ayni.cli import show
from ayni.errors import BadInput
from ayni.files import json_line, read_jsonl, write_jsonl
from ayni.records import Dialog, Prompt, from_dict


def read_lines(path: Path) -> list[tuple[int, str | Dialog]]:
    """(line number, text or dialogue) of every line; BadInput names path, line and field."""
    found: list[tuple[int, str | Dialog]] = []
    for number, value in read_jsonl(path):
        if not isinstance(value, dict) or len(value.keys() & {"text", "messages"}) != 1:
            raise BadInput('expected {"text": …} or {"messages": […]}', path=path, line=number)
        if "text" in value:
            if not isinstance(value["text"], str):
                raise BadInput("expected text", path=path, line=number, field="text")
            found.append((number, value["text"]))
        else:
            prompt = {"id": str(number), "dialog": value["messages"]}
            found.append((number, from_dict(Prompt, prompt, path=path, line=number).dialog))
    if not found:
        raise BadInput("the file is empty", path=path, line=1)
    return found


def at_line(error: BadInput, path: Path, line: int) -> BadInput:
    """The same error, with the place it was missing."""
    if error.path is not None:
        return error
    return BadInput(error.what, path=path, line=line, field=error.field, fix=error.fix)


def write_lines(rows: Iterable[dict[str, Any]], output: Path | None, as_json: bool) -> dict[str, Any]:
    """To `output`, or to stdout; returns what --json shows: {n, output} or {n, rows}."""
    if output is not None:
        return {"n": write_jsonl(output, rows), "output": str(output)}
    if as_json:
        kept = list(rows)
        return {"n": len(kept), "rows": kept}
    count = 0
    for count, row in enumerate(rows, 1):  # noqa: B007
        show(json_line(row), end="")
    return {"n": count}
