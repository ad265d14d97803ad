"""Rows of every format with anything in any place: a sound record, something left out, or one line of error."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import MUTATIONS, places
from test_formats_tools import ANNA, FIELDS, MIN, TASK, TWO, flat, ranks, v1, v1_columns, v2

from ayni.errors import BadInput
from ayni.formats.known import format_of
from ayni.formats.reading import scan
from ayni.formats.rows import Row
from ayni.records import Comparison, Judgement

PROMPT: dict[str, Any] = {"id": "p", "dialog": [{"role": "user", "content": "a"}]}
SEEDS: dict[str, dict[str, Any]] = {
    "label studio": TASK,
    "label studio min": MIN,
    "argilla 1": v1(FIELDS, (ANNA, {"preference": ranks(2, 1, 3), "tone": "1"}, "submitted")),
    "argilla 1 columns": v1_columns(TWO, {"rank": [1, 2], "value": ["response-1", "response-2"]}),
    "argilla 2": v2(TWO, preference=[(["response-2", "response-1"], ANNA)], best=[(2, ANNA)]),
    "argilla 2 flat": flat(TWO, "preference", ["2"]),
    "argilla rating": v1({"prompt": "a", "response": "b"}, (ANNA, {"good": 4}, "submitted")),
    "rating": {"prompt": "a", "response": "b", "score": 3},
    "thumb": {"prompt": [{"role": "user", "content": "a"}], "completion": "b", "label": True},
    "edit": {"prompt": "a", "original": "b", "edited": "c"},
    "judgement": {"prompt": PROMPT, "response": "b", "label": "up"},
    "comparison": {"prompt": PROMPT, "chosen": "b", "rejected": "c", "rating": "better", "margin": 1},
    "prompt": PROMPT,
    "demonstration": {"dialog": [*PROMPT["dialog"], {"role": "assistant", "content": "b"}], "train": "last"},
    "messages": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    "pairs": {"prompt": "a", "chosen": "b", "rejected": "c", "safety": "both_safe"},
    "alpaca": {"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]]},
    "self_instruct": {"instruction": "a", "instances": [{"input": "b", "output": "c"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    "hh_rlhf": {name: f"\n\nHuman: a\n\nAssistant: {name}" for name in ("chosen", "rejected")},
    "pandalm": {"instruction": "a", "response1": "b", "response2": "c"} | {f"annotator{n}": 1 for n in (1, 2, 3)},
    "oasst": {"message_tree_id": "t", "prompt": {"role": "prompter", "text": "a", "replies": [
        {"role": "assistant", "text": text, "rank": rank} for rank, text in enumerate("bc")]}},
    "question": {"id": "q", "question": "a?", "correct": ["b", "c"], "incorrect": ["d"], "category": "e"},
    "truthfulqa": {
        "Type": "t", "Category": "c", "Question": "a?", "Best Answer": "b", "Correct Answers": "b; c",
        "Incorrect Answers": "d; e", "Source": "s",
    },
    "truthfulqa_targets": {"question": "a?", "mc1_targets": {"b": 1, "d": 0}, "mc2_targets": {"b": 1, "c": 1, "d": 0}},
    "constraint": {"id": "c", "long": "a", "short": "b", "kind": "k"},
    "principle": {"id": "p", "critique": "a", "revision": "b"},
}  # fmt: skip
words = st.sampled_from(
    ["", " ", "left", "right", "response-1", "answer1", "submitted", "tie", "up", "[INST]", "\ud800"]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=4,
)


def replaced(value: Any, way: tuple[Any, ...], new: Any) -> Any:
    value = copy.deepcopy(value)
    parent = value
    for key in way[:-1]:
        parent = parent[key]
    if new is ...:
        del parent[way[-1]]
    else:
        parent[way[-1]] = new
    return value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=max(100, MUTATIONS), deadline=None, derandomize=True)
@given(data=st.data())
def test_anything_anywhere(folder: Path, name: str, data: st.DataObject) -> None:
    """In the first row, which says what the format is, or in a second one."""
    row, sound = SEEDS[name], data.draw(st.sampled_from([[], [SEEDS[name]]]))
    for _ in range(data.draw(st.integers(1, 2))):
        row = replaced(row, data.draw(st.sampled_from(list(places(row)))), data.draw(anything | st.just(...)))
        if not row:
            return
    path = folder / "data.json"
    path.write_text(json.dumps([*sound, row]), encoding="utf-8")
    try:
        scanned = scan(path, strict=False)
        records = scanned.records + scan(path, "comparisons", strict=False).records
    except BadInput:
        return  # one line by construction (ayni.errors)
    for record in records:
        if isinstance(record, Comparison):
            assert record.chosen.strip() != record.rejected.strip()
            assert record.chosen.strip()
        elif isinstance(record, Judgement):
            assert (record.score is None) != (record.label is None)
    for error in scanned.errors:
        assert str(error).startswith(f"{path}:1: ")
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", SEEDS)
def test_the_seeds_are_what_they_are_called(name: str) -> None:
    row = Row(Path("x.json"), 1, 0, SEEDS[name])
    known = {
        "label studio": "label_studio", "label studio min": "label_studio_min", "argilla rating": "argilla_ratings",
        "rating": "ratings", "thumb": "ratings", "edit": "edits",
    }  # fmt: skip
    assert format_of(row).name == known.get(name, "argilla" if "argilla" in name else name)
