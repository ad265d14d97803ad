"""Label Studio's exports of a pairwise project: JSON (a task with its annotations) and JSON-MIN (one row each).

The tool names the side that was chosen, left or right. Which fields those are stands in the project's settings, not in
its exports: the names of the compared objects are taken where the task's data has them, else two fields such as
answer1 and answer2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ayni.errors import BadInput
from ayni.formats.building import make_comparison
from ayni.formats.format import Format, with_prompts
from ayni.formats.rows import Row, Skip
from ayni.formats.table_fields import (
    FINISHED_STEM,
    MODEL_STEM,
    different,
    find_answers,
    find_dialog,
    known_fields,
    numbered,
)
from ayni.records import Comparison

_SIDES = {"left": 0, "right": 1}


def label_studio_pairs(row: Row) -> Iterator[Comparison | Skip]:
    """One comparison per annotation. Left out and counted: cancelled ones, and those in which nothing was chosen."""
    data = row.value.get("data")
    if not isinstance(data, dict):
        raise row.error("expected an object", "data")
    name = "annotations" if row.has("annotations") or not row.has("completions") else "completions"  # its older name
    annotations = row.value.get(name)
    if not isinstance(annotations, list):
        raise row.error("expected a list", name)
    if not annotations:
        raise Skip("not annotated")
    for index, annotation in enumerate(annotations):
        here = f"{name}.{index}"
        if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
            raise row.error("expected an annotation with its result", here)
        if annotation.get("was_cancelled") or annotation.get("skipped"):
            yield Skip("a cancelled annotation")
            continue
        chosen = [r for r in annotation["result"] if isinstance(r, dict) and r.get("type") == "pairwise"]
        if len(chosen) > 1:
            raise _several(row, [str(r.get("from_name")) for r in chosen], f"{here}.result")
        value = chosen[0].get("value") if chosen else None
        selected = value.get("selected") if isinstance(value, dict) else None
        if selected is None:
            yield Skip("nothing was chosen")
            continue
        names = _names(row, data, chosen[0].get("to_name"), "data")
        yield from _comparison(row, data, names, selected, annotation.get("completed_by"), "data")


def label_studio_min_pairs(row: Row) -> Iterator[Comparison | Skip]:
    """One annotation a row, the task's data and the choice side by side."""
    chosen = {name: selected for name, value in row.value.items() if (selected := _selected(value)) is not None}
    if not chosen:
        raise Skip("nothing was chosen")
    if len(chosen) > 1:
        raise _several(row, list(chosen), None)
    ((control, selected),) = chosen.items()
    table = {name: value for name, value in row.value.items() if name != control}
    yield from _comparison(row, table, _names(row, table, None, ""), selected, row.value.get("annotator"), "")


def _selected(value: Any) -> Any:
    """`[{"selected": "left"}]`, with the list or without."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value.get("selected") if isinstance(value, dict) else None


def _several(row: Row, names: list[str], field: str | None) -> BadInput:
    what = f"several choices in one annotation: {', '.join(names)}"
    return row.error(what, field, fix="leave one of them in the file")


def _names(row: Row, table: Mapping[str, Any], compared: Any, where: str) -> tuple[str, str]:
    """The fields of the left and the right answer."""
    objects = compared if isinstance(compared, list) else compared.split(",") if isinstance(compared, str) else []
    left_right = [name.strip() for name in objects if isinstance(name, str)]
    if len(left_right) == 2 and all(isinstance(table.get(name), str) for name in left_right):
        return left_right[0], left_right[1]
    found = find_answers(table)
    if found is None:
        what = f"which fields are the two answers? there are {', '.join(table)}"
        raise row.error(what, where or None, fix="call them answer1 (left) and answer2 (right)")
    return found


def _comparison(
    row: Row, table: Mapping[str, Any], names: tuple[str, str], selected: Any, annotator: Any, where: str
) -> Iterator[Comparison | Skip]:
    if not isinstance(selected, str) or (selected not in _SIDES and selected not in names):
        raise row.error(f"{selected!r} is not one of left, right", "selected")
    first = _SIDES[selected] if selected in _SIDES else names.index(selected)
    try:
        texts = different(row, table, names, where)
    except Skip as skip:  # of this annotation; the next one may be sound
        yield skip
        return
    models = numbered(table, MODEL_STEM)
    ours: dict[str, Any] = {**known_fields(table), "annotator": _annotator(annotator)}
    if models is not None:
        ours |= {"model_chosen": table[models[first]], "model_rejected": table[models[1 - first]]}
    finished = numbered(table, FINISHED_STEM)
    if finished is not None and {table[name] for name in finished} <= {"stop", "length"}:  # ours, not a stranger's
        ours |= {"finished_chosen": table[finished[first]], "finished_rejected": table[finished[1 - first]]}
    own = row.saying(ours)
    field = f"{where}.prompt" if where else "prompt"
    yield make_comparison(own, find_dialog(row, table, where), texts[first], texts[1 - first], field)


def _annotator(value: Any) -> str:
    """A number, a name, or an object with an email or an id."""
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return "" if value is None else str(value)


LABEL_STUDIO = Format(
    "label_studio",
    lambda row: isinstance(row.value.get("data"), dict) and row.has_any("annotations", "completions"),
    with_prompts("comparisons", label_studio_pairs),
)
LABEL_STUDIO_MIN = Format(
    "label_studio_min",
    lambda row: row.has("annotation_id", "annotator"),
    with_prompts("comparisons", label_studio_min_pairs),
)
