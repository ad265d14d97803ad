"""`ayni lineage MODEL`: which stages, files and settings made it, every one held against its hash."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ayni.cli import VerbFailure, plain
from ayni.errors import BadInput
from ayni.limits import absent
from ayni.runs.lineage import Step, lineage, read_lineage
from ayni.runs.status import located


def show_lineage(model: Path, as_json: bool) -> dict[str, Any] | VerbFailure:
    """{model, exported, steps, wrong}; what is not as it was when it was made is exit 2.

    Of an exported model the files are verified, and the stages as they are remembered.
    """
    path = located(model)
    if not path.exists():
        raise absent(path)
    steps, wrong = lineage(path), dict[str, str]()
    exported = not steps
    if exported:
        steps, wrong = read_lineage(path)
    else:
        wrong = {step.name: _wrong(step) for step in steps if not step.sound}
    value = {"model": str(path), "exported": exported, "steps": [asdict(step) for step in steps], "wrong": wrong}
    if not as_json:
        for step in steps:
            print(plain(_line(step)))
        seconds = sum(step.seconds for step in steps)
        inputs = sum(len(step.read) for step in steps)
        if not wrong:
            what = "the files are those that were exported" if exported else "all whole, every input as it was read"
            print(f"{len(steps)} stages, {inputs} inputs, {seconds:,.0f} s: {what}")
    if wrong:
        told = "; ".join(f"{name}: {what}" for name, what in wrong.items())
        return VerbFailure(value, BadInput(told, path=path, fix="run or export it again"))
    return value


def _line(step: Step) -> str:
    read = ", ".join(dict.fromkeys(each.stage or each.path for each in step.read))
    return f"{step.hash[:8]:8} {step.seconds:7,.0f} s  {step.name} ({step.kind})" + (f" ← {read}" if read else "")


def _wrong(step: Step) -> str:
    changed = [f"{each.stage or each.path} {each.state}" for each in step.read if each.state != "same"]
    return "; ".join([*([step.state] if step.state != "whole" else []), *changed])
