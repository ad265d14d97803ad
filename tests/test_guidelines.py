"""One policy learns from one guideline a prompt, and from no pair of answers in both directions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_models import refused
from small_stages import Small, comparisons, prepare

from ayni.files import write_jsonl
from ayni.formats.guidelines import taught
from ayni.records import Comparison, Task, to_dict
from ayni.stages import dpo, kto
from ayni.text.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Small]:
    return prepare(tmp_path_factory.mktemp("inputs"))


PROMPTS = [c.prompt for c in comparisons(9)]


def judged(index: int, chosen: str, rejected: str, task: Task, prompt_task: Task = "safety") -> Comparison:
    return Comparison(replace(PROMPTS[index], task=prompt_task), chosen, rejected, task)


REFUSED = judged(0, "I cannot", "Take a drum", "safety")
DONE = judged(0, "Take a drum", "I cannot", "helpfulness")
PLAIN = judged(1, "The owl", "The hill", "helpfulness", "helpfulness")
ODD = judged(2, "The owl", "The hill", "safety", "helpfulness")


@pytest.mark.parametrize(
    ("guideline", "left"),
    [
        ("own", [REFUSED, PLAIN]),
        ("helpfulness", [DONE, PLAIN]),
        ("safety", [REFUSED, ODD]),
        ("both", [REFUSED, PLAIN, ODD]),
    ],
)
def test_whose_judgements_are_learned_from(guideline: Any, left: list[Comparison]) -> None:
    said: list[str] = []
    assert taught([DONE, REFUSED, PLAIN, ODD], guideline, said.append) == left
    (line,) = said
    assert line.startswith("1 comparisons left out" if guideline == "both" else "2 comparisons left out")


def test_of_annotators_who_disagree_the_majority_counts() -> None:
    again, against = replace(PLAIN, annotator="Rosa"), replace(PLAIN, chosen=PLAIN.rejected, rejected=PLAIN.chosen)
    said: list[str] = []
    assert taught([PLAIN, against, again], "own", said.append) == [PLAIN, again]
    assert taught([PLAIN, against, REFUSED], "own", said.append) == [REFUSED]
    assert [line.partition(" ")[0] for line in said] == ["1", "2"]
    # two of the other guideline do not outvote the prompt's own
    assert taught([REFUSED, DONE, replace(DONE, annotator="Rosa")], "both", said.append) == [REFUSED]
    assert taught([], "own", said.append) == []


def test_dpo_never_learns_a_pair_in_both_directions(
    stages: dict[str, Small], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", map(to_dict, [DONE, REFUSED, PLAIN]))
    seen: list[Any] = []
    monkeypatch.setattr(dpo.Config, "fit", lambda self, model, items, objective, run: seen.extend(items))
    inputs = {"model": stages["dpo"].inputs["model"], "data": [tmp_path / "pairs.jsonl"]}
    small = Small("dpo", stages["dpo"].settings, inputs)
    for task, count in (("own", 2), ("both", 2), ("safety", 1), ("helpfulness", 2)):
        seen.clear()
        small.execute(tmp_path / task, task=task)
        pairs = {(tuple(p.chosen.tokens), tuple(p.rejected.tokens)) for p in seen}
        assert len(pairs) == count
        assert not pairs & {(rejected, chosen) for chosen, rejected in pairs}
        (first,) = {str(p.chosen.tokens) for p in seen if "drum" in text_of(p.rejected, stages)} or {""}
        assert bool(first) == (task != "helpfulness")
    write_jsonl(tmp_path / "pairs.jsonl", [to_dict(ODD)])
    said = refused(lambda: small.execute(tmp_path / "none"))
    assert "task: none of 1 comparisons is left to learn from; take task: helpfulness, safety or both" in said


def text_of(sequence: Any, stages: dict[str, Small]) -> str:
    return load_tokenizer(stages["dpo"].inputs["model"]).decode(sequence.tokens)  # type: ignore[arg-type]


def test_kto_likes_no_answer_by_one_guideline_that_the_other_dislikes(stages: dict[str, Small], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", map(to_dict, [DONE, REFUSED, PLAIN]))
    rows = [
        {"prompt": to_dict(replace(PROMPTS[3], task=task)), "response": task, "label": "up"}
        for task in ("helpfulness", "safety")
    ]
    (tmp_path / "thumbs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = [tmp_path / "pairs.jsonl", tmp_path / "thumbs.jsonl"]

    def thumbs(task: Any) -> dict[str, bool]:
        found = kto.read_thumbs(paths, kto.Config(task=task), 0, lambda text: None)
        assert len(dict.fromkeys((each.dialog, each.answer) for each in found)) == len(found)
        return {each.answer: each.liked for each in found}

    own = {"I cannot": True, "Take a drum": False, "The owl": True, "The hill": False}
    assert thumbs("own") == thumbs("both") == {**own, "helpfulness": True, "safety": True}
    assert thumbs("safety") == {"I cannot": True, "Take a drum": False, "safety": True}
