"""Records' one way in from JSON, strict in every value, and what their ratings and labels mean."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ayni.errors import BadInput
from ayni.records import (
    MARGINS,
    RATINGS,
    Comparison,
    Demonstration,
    Judgement,
    Message,
    Prompt,
    Sample,
    from_dict,
    from_json,
    margin_of,
    safe_answers,
    to_dict,
)

HI = (Message("user", "hi"),)
PROMPT = Prompt("p", HI, "safety", "unsafe", "here")
RECORDS: list[Any] = [
    PROMPT,
    Demonstration((*HI, Message("assistant", "ho")), "last"),
    Comparison(PROMPT, "ho", "no", "safety", "better", 0.5, "chosen_safe", "anna", "1", "m", "n", "s"),
    Comparison(PROMPT, "ho", "no"),
    Comparison(PROMPT, "ho", "no", probability=0.75),
    Judgement(PROMPT, "ho", 3.5),
    Sample("p", "safety", (1, 7), (3, 4), (-0.5, -1.0), "ho", "stop", scores={"helpfulness": 1.0}),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_what_is_written_is_read(record: Any) -> None:
    value = json.loads(json.dumps(to_dict(record)))
    assert from_dict(type(record), value) == record
    assert from_json(type(record), json.dumps(value)) == record


def test_a_whole_number_is_a_number_and_a_record_a_record() -> None:
    assert from_dict(Judgement, {"prompt": to_dict(PROMPT), "response": "ho", "score": 4}).score == 4.0
    assert from_dict(Judgement, {"prompt": PROMPT, "response": "ho", "score": 4}).prompt is PROMPT


SAMPLE = to_dict(RECORDS[-1])
PAIR = to_dict(RECORDS[3])


@pytest.mark.parametrize(
    ("kind", "changed", "field", "what"),
    [
        (Prompt, {"id": 3}, "id", "Input should be a valid string"),
        (Prompt, {"id": "\ud800"}, "id", "half a surrogate pair: not Unicode text"),
        (Prompt, {"dialog": 3}, "dialog", "Input should be a valid array"),
        (Prompt, {"dialog": "hi"}, "dialog", "Input should be a valid array"),
        (Prompt, {"dialog": {"role": "user"}}, "dialog", "Input should be a valid array"),
        (Prompt, {"dialog": ["hi"]}, "dialog.0", "Input should be an object"),
        (Prompt, {"dialog": [{"role": "user"}]}, "dialog.0.content", "Field required"),
        (Prompt, {"dialog": [{"role": "bot", "content": ""}]}, "dialog.0.role",
         "Input should be 'system', 'user' or 'assistant'"),
        (Prompt, {"task": None}, "task", "Input should be 'helpfulness' or 'safety'"),
        (Prompt, {"tsak": "safety"}, "tsak", "Unexpected keyword argument"),
        (Comparison, {"margin": "1"}, "margin", "Input should be a valid number"),
        (Comparison, {"margin": True}, "margin", "Input should be a valid number"),
        (Comparison, {"margin": -1}, "margin", "-1.0 is not a number ≥ 0"),
        (Comparison, {"probability": 0.4}, "probability",
         "0.4 is not from 0.5 to 1; below 0.5 the other answer is the chosen one"),
        (Comparison, {"probability": 1.5}, "probability",
         "1.5 is not from 0.5 to 1; below 0.5 the other answer is the chosen one"),
        (Comparison, {"prompt": "p"}, "prompt", "Input should be an object"),
        (Comparison, {"safety": "rejected_safe"}, "safety",
         "Input should be 'chosen_safe', 'both_safe' or 'both_unsafe'"),
        (Sample, {"tokens": [1, 2.0]}, "tokens.1", "Input should be a valid integer"),
        (Sample, {"tokens": [1, True]}, "tokens.1", "Input should be a valid integer"),
        (Sample, {"tokens": ["1"]}, "tokens.0", "Input should be a valid integer"),
        (Sample, {"logprobs": ["-1"]}, "logprobs.0", "Input should be a valid number"),
        (Sample, {"seed": 1.5}, "seed", "Input should be a valid integer"),
        (Sample, {"scores": {"a": "1"}}, "scores.a", "Input should be a valid number"),
        (Sample, {"finished": "eos"}, "finished", "Input should be 'stop' or 'length'"),
    ],
)  # fmt: skip
def test_nothing_is_taken_for_something_else(kind: Any, changed: dict[str, Any], field: str, what: str) -> None:
    value = {Prompt: to_dict(PROMPT), Comparison: PAIR, Sample: SAMPLE}[kind] | changed
    for read in (lambda: from_dict(kind, value, path="f", line=7),
                 lambda: from_json(kind, json.dumps(value), path="f", line=7)):  # fmt: skip
        with pytest.raises(BadInput) as caught:
            read()
        assert str(caught.value) == f"f:7: {field}: {what}"


def test_text_that_is_no_json() -> None:
    for text, what in (("{", "f:2: not JSON: "), ('{"id": 1, "id": 2}', "f:2: the key 'id' stands twice")):
        with pytest.raises(BadInput, match=what):
            from_json(Prompt, text, path="f", line=2)
    with pytest.raises(BadInput, match="f:2: Input should be an object"):
        from_json(Prompt, "[]", path="f", line=2)


def test_margins_are_table_27() -> None:
    assert [MARGINS["small"][r] for r in RATINGS] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert [MARGINS["large"][r] for r in RATINGS] == [3, 2, 1, 0]
    assert [MARGINS["none"][r] for r in RATINGS] == [0, 0, 0, 0]


def test_a_margin_table_may_be_one_s_own() -> None:
    table = dict(zip(RATINGS, (2.0, 1.5, 0.5, 0.25), strict=True))
    found = [margin_of(Comparison(PROMPT, "ho", "no", rating=rating), table) for rating in (*RATINGS, None)]
    assert found == [2.0, 1.5, 0.5, 0.25, 0]


def test_a_margin_of_its_own_counts_before_the_rating() -> None:
    pair = Comparison(PROMPT, "ho", "no", rating="better")
    assert [margin_of(pair, table) for table in ("none", "small", "large")] == [0, pytest.approx(2 / 3), 2]
    assert margin_of(replace(pair, margin=0.25), "large") == 0.25
    assert margin_of(replace(pair, rating=None), "large") == 0


@pytest.mark.parametrize(
    ("label", "safe"),
    [
        ("chosen_safe", (True, False)),
        ("both_safe", (True, True)),
        ("both_unsafe", (False, False)),
        (None, (None, None)),
    ],
)
def test_what_a_safety_label_says_of_each_answer(label: Any, safe: tuple[bool | None, bool | None]) -> None:
    assert safe_answers(Comparison(PROMPT, "ho", "no", safety=label)) == safe
