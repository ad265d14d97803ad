"""The stage that counts how alike answers to one prompt are, and its differences."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_stages import Small, prepare
from tiny import policy_model, tokenizer

from ayni.errors import BadInput
from ayni.evaluate.diversity import self_bleu
from ayni.evaluate.items import Item
from ayni.evaluate.results import read_results
from ayni.files import read_jsonl, write_jsonl
from ayni.formats.reading import read_prompts
from ayni.model.placement import Placement
from ayni.model_directory import save_model
from ayni.records import from_dict, to_dict
from ayni.rollout.engine import rollout
from ayni.rollout.local import load_engine
from ayni.rollout.sampling import Sampling
from ayni.run import Run
from ayni.seeds import seed_of
from ayni.stages.diversity import differences
from ayni.village.village import village_of


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("diversity")
    prepare(folder)
    every = village_of(7).prompts("validation")
    asked = [p for c in ("person", "story", "sum") for p in [p for p in every if p.category == c][:4]]
    write_jsonl(folder / "asked.jsonl", map(to_dict, asked))
    save_model(folder / "other", policy_model(9, context=400), tokenizer())
    settings = {"each": 3, "n": 4, "temperatures": [0.5, 1.5], "max_tokens": 8, "dtype": "fp32"}
    inputs: dict[str, Path | list[Path]] = {"model": folder / "talker", "against": folder / "other"}
    return Small("diversity", settings, {**inputs, "prompts": [folder / "asked.jsonl"]})


def test_answers_to_one_prompt_are_held_against_each_other(small: Small, tmp_path: Path) -> None:
    small.execute(tmp_path / "d")
    rows = {(r.metric, r.axis, r.model, r.against): r for r in read_results(tmp_path / "d" / "results.json")}
    assert {metric for metric, *_ in rows} == {
        *("self_bleu", "self_bleu:0.5", "self_bleu:1.5"),
        *("self_bleu_difference", "self_bleu_difference:0.5", "self_bleu_difference:1.5"),
    }
    assert rows["self_bleu", "factual", "talker", None].n == 6  # three prompts at two temperatures
    asked = [p for p in read_prompts(small.inputs["prompts"][0]) if p.category == "story"]  # type: ignore[index]
    placement = Placement.of(Run(tmp_path / "run", name="d", quiet=True), "fp32")
    engine = load_engine(small.inputs["model"], placement, "talker")  # type: ignore[arg-type]
    seed = seed_of(1, "diversity", 1)
    groups = rollout(engine, asked, n=4, sampling=Sampling(1.5, 1.0, 8), seed=seed)
    alone = {group[0].prompt_id: self_bleu([s.text for s in group]) for group in groups}
    lines = [line for line in read_items(tmp_path / "d") if line.part == "1.5" and line.axis == "creative"]
    ours = {item.id: item.value for item in lines if item.metric == "self_bleu" and item.model == "talker"}
    assert len(ours) == 3
    assert all(alone[id] == pytest.approx(value) for id, value in ours.items())
    theirs, whole = rows["self_bleu", "creative", "other", None], rows["self_bleu", "creative", "talker", None]
    difference = rows["self_bleu_difference", "creative", "talker", "other"]
    assert difference.value == pytest.approx((whole.value or 0) - (theirs.value or 0))


def read_items(directory: Path) -> list[Item]:
    return [from_dict(Item, value) for _, value in read_jsonl(directory / "items.jsonl")]


def test_differences_go_by_prompt_and_temperature() -> None:
    ours = [Item("self_bleu", 0.9, "a", "c", "1"), Item("self_bleu", 0.5, "a", "c", "2")]
    theirs = [Item("self_bleu", 0.2, "a", "c", "2"), Item("self_bleu", 0.4, "a", "c", "1")]
    assert [(item.part, round(item.value, 9), item.against) for item in differences(ours, theirs, "o")] == [
        *[("1", 0.5, "o"), ("2", 0.3, "o")]
    ]


def test_categories_that_no_prompt_has_are_named(small: Small, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no prompt is of the category poem; there: person, story, sum"):
        small.execute(tmp_path / "d", creative=["poem"])
