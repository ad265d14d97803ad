"""Label Studio's and Argilla's exports become comparisons, in every shape; what does not count is counted."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ayni.errors import BadInput
from ayni.files import write_json, write_jsonl
from ayni.formats.inspect import inspect_data
from ayni.formats.reading import detect, read_comparisons, read_prompts, scan
from ayni.records import Comparison, Judgement

ANNA, BEN, CARA = "6a0e", "77c1", "9f3b"


def annotation(selected: str | None, by: Any = 3, **more: Any) -> dict[str, Any]:
    result = [] if selected is None else [{**CHOICE, "value": {"selected": selected}}]
    return {"id": 11, "completed_by": by, "result": result, "was_cancelled": False, "ground_truth": False, **more}


CHOICE = {"id": "x", "type": "pairwise", "from_name": "comparison", "to_name": ["answer1", "answer2"]}
DATA = {"prompt": "Who sings?", "answer1": "The river.", "answer2": "A stone.", "model1": "v1", "model2": "v2"}
TASK = {
    "id": 1,
    "data": DATA,
    "annotations": [
        annotation("left", {"id": 5, "email": "anna@example.org"}),
        annotation("right", 4),
        annotation("left", 5, was_cancelled=True),
        annotation(None, 6),
    ],
    "predictions": [annotation("right")],
    "created_at": "2026-11-21T09:30:00Z",
    "project": 2,
}
MIN = {
    **DATA,
    "id": 1,
    "comparison": [{"selected": "right"}],
    "annotator": 4,
    "annotation_id": 11,
    "created_at": "2026-11-21T09:30:00Z",
    "lead_time": 4.2,
}


def changed(value: dict[str, Any], **change: Any) -> dict[str, Any]:
    return {**copy.deepcopy(value), **change}


def one_file(folder: Path, *rows: dict[str, Any]) -> Path:
    write_json(folder / "export.json", list(rows))
    return folder / "export.json"


def test_label_studio_tasks_give_a_comparison_per_annotation(tmp_path: Path) -> None:
    path = one_file(tmp_path, TASK, changed(TASK, annotations=[]))
    assert detect(path).name == "label_studio"
    left, right = read_comparisons(path)
    assert left.prompt == right.prompt
    assert (left.prompt.id, left.prompt.dialog[0].content) == ("export-0", "Who sings?")
    assert (left.chosen, left.rejected, left.annotator) == ("The river.", "A stone.", "anna@example.org")
    assert (left.model_chosen, left.model_rejected) == ("v1", "v2")
    assert (right.chosen, right.rejected, right.annotator) == ("A stone.", "The river.", "4")
    assert (right.model_chosen, right.model_rejected) == ("v2", "v1")
    assert scan(path).skipped == {"a cancelled annotation": 1, "nothing was chosen": 1, "not annotated": 1}
    (prompt,) = read_prompts(path)
    assert prompt.id == "export-0"


def test_label_studio_names_its_format_when_inspected(tmp_path: Path) -> None:
    found = inspect_data(one_file(tmp_path, TASK))
    assert (found["format"], found["records"], found["turns"]) == ("label_studio", 2, 2)
    assert found["skipped"] == {"a cancelled annotation": 1, "nothing was chosen": 1}


def test_label_studio_min_rows(tmp_path: Path) -> None:
    unchosen = {key: value for key, value in MIN.items() if key != "comparison"}
    path = one_file(tmp_path, MIN, changed(MIN, comparison={"selected": "left"}), unchosen)
    assert detect(path).name == "label_studio_min"
    right, left = read_comparisons(path)
    assert (right.chosen, right.rejected, right.annotator, right.model_chosen) == ("A stone.", "The river.", "4", "v2")
    assert (left.chosen, left.rejected) == ("The river.", "A stone.")
    assert scan(path).skipped == {"nothing was chosen": 1}


def named(first: str, second: str, **choice: Any) -> dict[str, Any]:
    data = {"prompt": "Who sings?", first: "The river.", second: "A stone."}
    task = annotation("left")
    task["result"][0] |= choice
    return changed(TASK, data=data, annotations=[task])


@pytest.mark.parametrize(
    "row",
    [
        named("answer1", "answer2"),
        named("text1", "text2", to_name="text1,text2"),
        named("response_a", "response_b", to_name=["txt-1", "txt-2"]),
        named("Completion 1", "Completion 2", to_name=["txt-1", "txt-2"]),
        named("left", "right"),
        named("chatgpt", "human", to_name=["chatgpt", "human"]),
        named("answer1", "answer2", value={"selected": "answer1"}),  # leftChoiceValue of the pairwise tag
    ],
)
def test_label_studio_finds_the_answers(tmp_path: Path, row: dict[str, Any]) -> None:
    (record,) = read_comparisons(one_file(tmp_path, row))
    assert (record.chosen, record.rejected) == ("The river.", "A stone.")


def test_label_studio_prompts_may_be_dialogues_with_a_task(tmp_path: Path) -> None:
    dialog = [{"role": r, "content": c} for r, c in (("user", "Hi"), ("assistant", "Ho"), ("user", "Sing"))]
    data = {**DATA, "prompt": dialog, "task": "safety", "category": "song"}
    (record, _) = read_comparisons(one_file(tmp_path, changed(TASK, data=data)))
    assert [message.content for message in record.prompt.dialog] == ["Hi", "Ho", "Sing"]
    assert (record.task, record.prompt.category) == ("safety", "song")
    (other, _) = read_comparisons(one_file(tmp_path, changed(TASK, data={**DATA, "task": "summarise", "rating": 5})))
    assert (other.task, other.rating) == ("helpfulness", None)


BAD_LABEL_STUDIO: dict[str, tuple[dict[str, Any], str]] = {
    "no answers": (named("x", "y"), r"export.json:2: data: which fields are the two answers\? there are prompt, x, y;"),
    "no prompt": (changed(TASK, data={"answer1": "a", "answer2": "b"}), "export.json:2: data: no field holds the pr"),
    "another side": (changed(TASK, annotations=[annotation("top")]), "export.json:2: selected: 'top' is not one of"),
    "side is a list": (changed(TASK, annotations=[annotation(["left"])]), "is not one of left, right"),  # type: ignore[arg-type]
    "two choices": (
        changed(TASK, annotations=[annotation("left", result=[CHOICE, CHOICE])]),
        "annotations.0.result: several choices",
    ),
    "two choices in a row": (changed(MIN, safer=[{"selected": "left"}]), "several choices in one annotation: compa"),
    "annotations as text": (changed(TASK, annotations="none"), "export.json:2: annotations: expected a list"),
    "annotation without result": (changed(TASK, annotations=[{}]), "annotations.0: expected an annotation"),
    "a tag": (changed(TASK, data={**DATA, "answer1": "x [INST]"}), "export.json:2: chosen: a message must not"),
    "answer is a number": (changed(TASK, data={**DATA, "answer2": 7}), "which fields are the two answers"),
}


@pytest.mark.parametrize("case", BAD_LABEL_STUDIO)
def test_bad_label_studio(tmp_path: Path, case: str) -> None:
    row, says = BAD_LABEL_STUDIO[case]
    with pytest.raises(BadInput, match=says) as caught:
        read_comparisons(one_file(tmp_path, row))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("other", "reason"), [(" ", "an answer is empty"), ("The river. ", "the answers are the same")]
)
def test_pairs_that_teach_nothing_are_left_out(tmp_path: Path, other: str, reason: str) -> None:
    path = one_file(tmp_path, TASK, changed(TASK, data={**DATA, "answer2": other}))
    scanned = scan(path)
    assert len(scanned.records) == 2
    assert scanned.skipped[reason] == 2


# Argilla

FIELDS = {"prompt": "Who sings?", "response-1": "The river.", "response-2": "A stone.", "response-3": "Nobody."}
TWO = {name: text for name, text in FIELDS.items() if name != "response-3"}
RANKED = ["response-2", "response-1", "response-3"]


def ranks(*order: int) -> list[dict[str, Any]]:
    return [{"rank": rank, "value": f"response-{n}"} for n, rank in enumerate(order, 1)]


def v1(fields: dict[str, Any], *answers: tuple[str | None, dict[str, Any], str]) -> dict[str, Any]:
    responses = [
        {"user_id": user, "values": {q: {"value": v} for q, v in values.items()}, "status": status}
        for user, values, status in answers
    ]
    return {"fields": fields, "metadata": {}, "responses": responses, "suggestions": [], "external_id": None}


def v2(fields: dict[str, Any], **questions: list[tuple[Any, str]]) -> dict[str, Any]:
    responses = {q: [{"value": value, "user_id": user} for value, user in answers] for q, answers in questions.items()}
    return {"id": "1", "fields": fields, "metadata": {}, "suggestions": {}, "responses": responses, "vectors": {}}


def flat(fields: dict[str, Any], question: str, values: list[Any], status: list[str] | None = None) -> dict[str, Any]:
    users = [ANNA, BEN, CARA][: len(values)]
    answers = {"": values, ".users": users, ".status": status or ["submitted"] * len(values)}
    columns = {f"{question}.responses{end}": value for end, value in answers.items()}
    return {"id": "1", "status": "completed", "_server_id": "e1", **fields, **columns, f"{question}.suggestion": None}


def v1_columns(fields: dict[str, Any], value: Any) -> dict[str, Any]:
    """What version 1 gives to a table of rows."""
    answers = [{"user_id": ANNA, "value": value, "status": "submitted"}]
    return {**fields, "preference": answers, "preference-suggestion": None, "external_id": "1", "metadata": "{}"}


ORDERED: dict[str, dict[str, Any]] = {
    "version 1": v1(FIELDS, (ANNA, {"preference": ranks(2, 1, 3)}, "submitted")),
    "version 1 as columns": v1_columns(FIELDS, ranks(2, 1, 3)),
    "version 1 as columns of columns": v1_columns(
        FIELDS, {"rank": [1, 2, 3], "value": ["response-2", "response-1", "response-3"]}
    ),
    "version 2": v2(FIELDS, preference=[(RANKED, ANNA)]),
    "version 2, flat": flat(FIELDS, "preference", [RANKED]),
    "other names for the options": v2(FIELDS, preference=[(["Response 2", "Response 1", "Response 3"], ANNA)]),
}


@pytest.mark.parametrize("shape", ORDERED)
def test_argilla_rankings_give_every_pair(tmp_path: Path, shape: str) -> None:
    path = one_file(tmp_path, ORDERED[shape])
    assert detect(path).name == "argilla"
    found = read_comparisons(path)
    two, one, three = FIELDS["response-2"], FIELDS["response-1"], FIELDS["response-3"]
    assert [(c.chosen, c.rejected) for c in found] == [(two, one), (two, three), (one, three)]
    assert {(c.prompt.dialog[0].content, c.annotator, c.rating) for c in found} == {("Who sings?", ANNA, None)}


CHOSEN: dict[str, tuple[str, Any]] = {
    "the field's name": ("preference", "response-2"),
    "a number": ("preference", "2"),
    "a letter": ("preference", "B"),
    "a rating of which is best": ("choose-best", 2),
}


@pytest.mark.parametrize("shape", CHOSEN)
def test_argilla_labels_and_choices(tmp_path: Path, shape: str) -> None:
    question, value = CHOSEN[shape]
    for row in (v1(TWO, (ANNA, {question: value}, "submitted")), v2(TWO, **{question: [(value, ANNA)]})):
        (found,) = read_comparisons(one_file(tmp_path, row))
        assert (found.chosen, found.rejected, found.annotator) == ("A stone.", "The river.", ANNA)


def test_argilla_leaves_out_and_counts(tmp_path: Path) -> None:
    rows = [
        v1(
            TWO,
            (ANNA, {"preference": ranks(2, 1)}, "submitted"),
            (BEN, {"preference": ranks(1, 2)}, "discarded"),
            (CARA, {}, "discarded"),
        ),
        v1(TWO, (ANNA, {"preference": ranks(1, 1)}, "submitted"), (BEN, {"preference": ranks(1, 2)}, "draft")),
        v1(TWO),
        v1(TWO, (ANNA, {"comment": "both are fine", "quality": 2}, "submitted")),
        v1(TWO, (ANNA, {"preference": "tie"}, "submitted"), (BEN, {"preference": "1"}, "submitted")),
    ]
    path = one_file(tmp_path, *rows)
    found = read_comparisons(path)
    assert [(c.chosen, c.annotator) for c in found] == [("A stone.", ANNA), ("The river.", BEN)]
    assert scan(path).skipped == {
        "a response that is discarded": 2,
        "a response that is draft": 1,
        "a tie": 2,
        "no response": 1,
        "no question says which answer is better": 1,
    }


def test_argilla_flat_rows_with_discarded_responses(tmp_path: Path) -> None:
    rows = [
        flat(TWO, "preference", ["response-1", "response-2"], ["submitted", "discarded"]),
        {**flat(TWO, "preference", []), "preference.responses": None, "preference.responses.users": None},
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    (found,) = read_comparisons(tmp_path / "rows.jsonl")
    assert (found.chosen, found.annotator) == ("The river.", ANNA)
    assert scan(tmp_path / "rows.jsonl").skipped == {"a response that is discarded": 1, "no response": 1}


def test_argilla_responses_of_nobody_in_particular_are_all_kept(tmp_path: Path) -> None:
    votes = (ranks(2, 1), ranks(2, 1), ranks(1, 2))
    rows = [
        v1(TWO, *((None, {"preference": vote}, "submitted") for vote in votes), (None, {}, "draft")),
        {
            **flat(TWO, "preference", ["response-2", "response-1"], ["submitted"] * 2),
            "preference.responses.users": None,
        },
    ]
    for n, (row, chosen) in enumerate(zip(rows, (["A stone.", "A stone.", "The river."], None), strict=True)):
        (tmp_path / str(n)).mkdir()
        found = read_comparisons(one_file(tmp_path / str(n), row))
        assert {c.annotator for c in found} == {""}
        if chosen is not None:
            assert [c.chosen for c in found] == chosen
        else:
            assert sorted(c.chosen for c in found) == ["A stone.", "The river."]


def test_a_ranking_counts_before_other_questions(tmp_path: Path) -> None:
    row = v1(TWO, (ANNA, {"ranked": ranks(2, 1), "choose-best": 1, "tone": "1"}, "submitted"))
    (found,) = read_comparisons(one_file(tmp_path, row))
    assert found.chosen == "A stone."


def test_argilla_ratings_of_one_answer_become_pairs_within_a_prompt(tmp_path: Path) -> None:
    rows = [
        v1({"prompt": "Who sings?", "response": text}, (ANNA, {"quality": score}, "submitted"))
        for text, score in (("The river.", 5), ("A stone.", 2), ("Nobody.", 2), ("Not I.", 1))
    ]
    path = one_file(tmp_path, *rows)
    assert detect(path).name == "argilla_ratings"
    assert [type(record) for record in scan(path).records] == [Judgement] * 4
    found = read_comparisons(path)
    assert [(c.chosen, c.rejected, c.rating) for c in found] == [
        ("The river.", "A stone.", "significantly_better"),
        ("The river.", "Nobody.", "significantly_better"),
        ("The river.", "Not I.", "significantly_better"),
        ("A stone.", "Not I.", "slightly_better"),
        ("Nobody.", "Not I.", "slightly_better"),
    ]


def test_argilla_thumbs_of_one_answer(tmp_path: Path) -> None:
    rows = [
        flat({"instruction": "Sing", "output": text}, "good", [thumb]) for text, thumb in (("La", "yes"), ("No", "no"))
    ]
    (found,) = read_comparisons(one_file(tmp_path, *rows))
    assert (found.chosen, found.rejected, found.rating) == ("La", "No", None)


BAD_ARGILLA: dict[str, tuple[dict[str, Any], str]] = {
    "two rankings": (
        v1(TWO, (ANNA, {"kind": ranks(1, 2), "true": ranks(2, 1)}, "submitted")),
        "export.json:2: responses: several questions say which answer is better: kind, true;",
    ),
    "no prompt": (v1({"a": "x", "b": "y"}, (ANNA, {"p": "a"}, "submitted")), "fields: no field holds the prompt"),
    "response as text": (changed(v1(TWO), responses=["hi"]), "responses.0: expected an object"),
    "values as text": (changed(v1(TWO), responses=[{"values": "hi"}]), "responses.0.values: expected an object"),
    "responses of a question": (changed(v2(TWO), responses={"q": ["x"]}), "responses.q.0: expected an object"),
    "lists that differ": (flat(TWO, "q", ["1", "2"], ["submitted"]), "q.responses.status: 1 of them for 2 responses"),
    "a tag": (v2({**TWO, "response-1": "[INST]"}, p=[("1", ANNA)]), "chosen: a message must not"),
    "two ratings of one answer": (
        v1({"prompt": "a", "response": "b"}, (ANNA, {"x": 1, "y": 2}, "submitted")),
        "several questions rate the answer: x, y",
    ),
}


@pytest.mark.parametrize("case", BAD_ARGILLA)
def test_bad_argilla(tmp_path: Path, case: str) -> None:
    row, says = BAD_ARGILLA[case]
    with pytest.raises(BadInput, match=says) as caught:
        read_comparisons(one_file(tmp_path, row))
    assert "\n" not in str(caught.value)


def _label_studio(c: Comparison, n: int) -> dict[str, Any]:
    left = n % 2 == 0
    one, two = (c.chosen, c.rejected) if left else (c.rejected, c.chosen)
    data = {"prompt": [{"role": m.role, "content": m.content} for m in c.prompt.dialog], "answer1": one, "answer2": two}
    return {"id": n, "data": data, "annotations": [annotation("left" if left else "right", 1 + n % 3)]}


def _argilla(c: Comparison, n: int) -> dict[str, Any]:
    order = ["response-1", "response-2"] if n % 2 == 0 else ["response-2", "response-1"]
    chat = [{"role": m.role, "content": m.content} for m in c.prompt.dialog]
    fields = {"prompt": chat} | dict(zip(order, (c.chosen, c.rejected), strict=True))
    return flat(fields, "preference", [order])


@pytest.mark.parametrize("shape", [_label_studio, _argilla])
def test_real_comparisons_survive_the_tools(
    data_dir: Path, tmp_path: Path, shape: Callable[[Comparison, int], dict[str, Any]]
) -> None:
    real = read_comparisons(data_dir / "preferences" / "hh_harmless.jsonl.gz")[:400]
    path = tmp_path / "export.json"
    path.write_text(json.dumps([shape(c, n) for n, c in enumerate(real)]), encoding="utf-8")
    found = read_comparisons(path)
    assert [(c.prompt.dialog, c.chosen, c.rejected) for c in found] == [
        (c.prompt.dialog, c.chosen, c.rejected) for c in real
    ]
