"""xstest's CSV: prompts that are unsafe, and safe ones that sound like them."""

from __future__ import annotations

from collections.abc import Iterator

from ayni.formats.fields import checked, optional_text, text_field
from ayni.formats.format import Format
from ayni.formats.rows import Row, suffix_of
from ayni.records import Message, Prompt, Task


def xstest_prompts(row: Row) -> Iterator[Prompt]:
    """`label` unsafe is a safety prompt, safe a helpfulness one; the category is label and type."""
    label = text_field(row, "label")
    if label not in ("safe", "unsafe"):
        raise row.error(f"{label!r} is not one of safe, unsafe", "label")
    dialog = checked(row, (Message("user", text_field(row, "prompt")),), "prompt")
    task: Task = "safety" if label == "unsafe" else "helpfulness"
    category = f"{label}:{optional_text(row, 'type')}"
    yield Prompt(row.name, dialog, task, category, row.stem)


def _matches(row: Row) -> bool:
    return row.has("prompt", "label") and suffix_of(row.path) == ".csv" and not row.has("chosen", "rejected")


XSTEST = Format("xstest", _matches, {"prompts": xstest_prompts})
