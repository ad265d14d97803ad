"""Rounds of a recipe: what is written once is a stage of every round, and errors name the line that was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ayni.errors import BadInput
from ayni.runs.recipe import read_recipe

RECIPE = """\
name: campaign
seed: 3
rounds:
  count: 3
  each:
    v{n}:
      kind: sft
      model: base
      data: [village/demonstrations.jsonl, "samples{1..n}", "old{1..n-1}/records.jsonl"]
    samples{n}:
      kind: reject
      model: ppo{n-1} | v{n-1} | sft
      reward: none.py
      reward_function: score
      prompts: [village]
      earlier: ["samples{1..n-1}"]
      n: 4
    old{n}: {kind: reject, rounds: [2, 3], model: "v{n}", reward: none.py, reward_function: score, prompts: [village]}
    ppo{n}: {kind: sft, rounds: [2], model: "v{n}", data: ["samples{n}"]}
stages:
  village: {}
  tokenizer: {data: [village/corpus.jsonl]}
  base: {kind: pretrain, tokenizer: tokenizer, data: [village/corpus.jsonl], vocab: null}
  sft: {model: base, data: [village/demonstrations.jsonl]}
  samples2: {n: 8}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "campaign.yaml"
    path.write_text(RECIPE.replace(", vocab: null", ""))
    (tmp_path / "none.py").write_text("def score(prompt, answer): return 0.0\n")
    return path


def given(recipe: Path, name: str, *sets: str) -> dict[str, list[str]]:
    entry = {each.name: each for each in read_recipe(recipe, sets).stages}[name]
    return {key: [r.text for r in references] for key, references in entry.inputs.items()}


def test_each_round_has_its_stages_in_the_order_they_need_each_other(recipe: Path) -> None:
    names = [each.name for each in read_recipe(recipe).stages]
    assert set(names) == {
        *("village", "tokenizer", "base", "sft", "v1", "samples1", "v2", "samples2", "old2", "ppo2"),
        *("v3", "samples3", "old3"),
    }
    assert names.index("samples1") < names.index("v1") < names.index("samples2") < names.index("v2")


def test_the_rounds_so_far_are_those_that_have_such_a_stage(recipe: Path) -> None:
    assert given(recipe, "v1")["data"] == ["village/demonstrations.jsonl", "samples1"]
    assert given(recipe, "v3")["data"] == [
        "village/demonstrations.jsonl", "samples1", "samples2", "samples3", "old2/records.jsonl",
    ]  # fmt: skip
    assert "earlier" not in given(recipe, "samples1")
    assert given(recipe, "samples3")["earlier"] == ["samples1", "samples2"]


def test_of_alternatives_the_first_that_is_a_stage(recipe: Path) -> None:
    newest = [given(recipe, f"samples{n}")["model"] for n in (1, 2, 3)]
    assert newest == [["sft"], ["v1"], ["ppo2"]]
    # the paper's other reading: PPO after another round
    assert given(recipe, "samples2", "rounds.each.ppo{n}.rounds=[1]")["model"] == ["ppo1"]
    assert given(recipe, "samples3", "rounds.each.ppo{n}.rounds=[1]")["model"] == ["v2"]


def test_some_are_of_the_last_round(recipe: Path) -> None:
    names = [each.name for each in read_recipe(recipe, ["rounds.each.ppo{n}.rounds=last"]).stages]
    assert [name for name in names if name.startswith("ppo")] == ["ppo3"]


def test_a_stage_named_again_changes_the_keys_it_names(recipe: Path) -> None:
    configs = {each.name: each.config for each in read_recipe(recipe, ["samples3.n=16"]).stages}
    assert [configs[f"samples{n}"].model_dump()["n"] for n in (1, 2, 3)] == [4, 8, 16]


def test_written_out_it_is_the_same_recipe(recipe: Path, tmp_path: Path) -> None:
    from ayni.runs.execution import dump_yaml

    found = read_recipe(recipe)
    (tmp_path / "resolved.yaml").write_text(dump_yaml(found.resolved()))
    again = read_recipe(tmp_path / "resolved.yaml")
    assert [each.name for each in again.stages] == [each.name for each in found.stages]
    assert [each.config for each in again.stages] == [each.config for each in found.stages]


def test_a_recipe_on_top_changes_what_is_written_once(recipe: Path, tmp_path: Path) -> None:
    on_top = tmp_path / "short.yaml"
    on_top.write_text(
        "extends: campaign.yaml\nrounds:\n  count: 1\n  each:\n    v{n}: {epochs: 7}\nstages:\n  v1: {seed: 9}\n"
    )
    stages = {each.name: each for each in read_recipe(on_top).stages}
    assert "v2" not in stages
    assert (stages["v1"].config.model_dump()["epochs"], stages["v1"].seed) == (7, 9)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("count: 3", "count: none", 4, "rounds.count: Input should be a valid integer"),
        ("count: 3", "count: 101", 4, "rounds.count: Input should be less than or equal to 100"),
        ("    v{n}:\n", "    v:\n", 6, "rounds.each.v: the name is the same in every round; put {n} into it"),
        ("n: 4", "n: 0", 17, "stages.samples1.n: Input should be greater than or equal to 1"),
        ("model: base\n", "model: bse\n", 8, "stages.v1.model: bse is neither a stage nor a file"),
        ('"samples{1..n-1}"', '"smples{1..n-1}"', 16, "smples{1..n-1}: there is no smples{n} under each"),
        ("rounds: [2]", "rounds: 2", 19, "rounds.each.ppo{n}.rounds: expected a list of rounds, or last, found 2"),
        ("model: ppo{n-1}", "model: v{1..n}", 12, "only an item of a list is written for several rounds"),
        ("    ppo{n}:", "    v{n-0}:", 19, "two stages would be called 'v2'; give them different names"),
        ("reward_function: score\n      prompts", "oops: 1\n      prompts", 14, "stages.samples1.oops: reject has no"),
    ],
)  # fmt: skip
def test_bad_rounds_name_the_line(recipe: Path, old: str, new: str, line: int, message: str) -> None:
    text = recipe.read_text()
    assert text.count(old) == 1
    recipe.write_text(text.replace(old, new))
    with pytest.raises(BadInput) as caught:
        read_recipe(recipe)
    assert f"campaign.yaml:{line}: " in str(caught.value)
    assert message in str(caught.value)


def test_rounds_that_are_no_table(recipe: Path) -> None:
    recipe.write_text("rounds: 5\nstages: {village: {}}\n")
    with pytest.raises(BadInput, match="yaml:1: rounds: expected `count` and `each`"):
        read_recipe(recipe)


def test_raft_draws_from_the_model_of_the_round_before() -> None:
    raft = Path(__file__).parent.parent / "recipes" / "raft.yaml"
    for name in ("raft", "pooled"):
        models = [given(raft, f"{name}-samples{n}")["model"] for n in (1, 2, 3)]
        assert models == [["sft"], [f"{name}1"], [f"{name}2"]]
        assert [given(raft, f"{name}-samples{n}")["reference"] for n in (1, 2, 3)] == [["sft"]] * 3
        assert [given(raft, f"{name}{n}")["data"] for n in (1, 2, 3)] == [[f"{name}-samples{n}"] for n in (1, 2, 3)]
    configs: dict[str, Any] = {each.name: each.config for each in read_recipe(raft).stages}
    assert (configs["raft-samples2"].keep, configs["pooled-samples2"].keep) == ("best", "quantile")
    assert configs["pooled-samples2"].beta == configs["raft-samples1"].beta == 0.1
