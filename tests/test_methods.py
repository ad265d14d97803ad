"""Methods of a recipe: as many tries of each, written out as ordinary stages, and errors name the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ayni.errors import BadInput
from ayni.runs.recipe import read_recipe

RECIPE = """\
name: compare
seed: 3
seconds: {dpo-1: 1, dpo-3: 3, village: 9}
methods:
  tries: 3
  each:
    "{method}": {kind: choose, models: ["{method}-{1..t}"], start: sft, reward: judge, prompts: [village]}
    "{method}-judged":
      {kind: evaluate, model: "{method}", against: sft, prompts: [village/prompts-test.jsonl], final: true}
  of:
    dpo:
      "dpo-{t}":
        kind: dpo
        model: sft
        data: [pairs]
        beta: {tries: [0.05, 0.1, 0.3]}
        optimiser: {lr: 1e-4, warmup: {tries: [0.1, 0.2, 0.3, 0.4]}}
    rejection:
      rejection-samples: {kind: reject, model: sft, reward: judge, prompts: [village], n: 4}
      "rejection-{t}": {kind: sft, model: sft, data: [rejection-samples], optimiser: {lr: {tries: [1, 2, 3]}}}
stages:
  village: {}
  tokenizer: {data: [village/corpus.jsonl]}
  base: {kind: pretrain, tokenizer: tokenizer, data: [village/corpus.jsonl]}
  sft: {model: base, data: [village/demonstrations.jsonl]}
  pairs: {kind: collect, model: sft, prompts: [village]}
  judge: {kind: reward, model: sft, data: [pairs]}
  dpo-2: {smoothing: 0.1}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "compare.yaml"
    path.write_text(RECIPE)
    return path


def stages_of(recipe: Path, *sets: str) -> dict[str, Any]:
    found: dict[str, Any] = read_recipe(recipe, sets).resolved()["stages"]
    return found


def test_every_method_has_its_tries_a_choice_and_a_judge(recipe: Path) -> None:
    stages = stages_of(recipe)
    methods = [name for name in stages if name.startswith(("dpo", "rejection"))]
    assert set(methods) == {
        *("dpo-1", "dpo-2", "dpo-3", "dpo", "dpo-judged"),
        *("rejection-samples", "rejection-1", "rejection-2", "rejection-3", "rejection", "rejection-judged"),
    }
    assert [stages[f"dpo-{t}"]["beta"] for t in (1, 2, 3)] == [0.05, 0.1, 0.3]
    assert [stages[f"dpo-{t}"]["optimiser"]["warmup"] for t in (1, 2, 3)] == [0.1, 0.2, 0.3]
    assert [stages[f"dpo-{t}"]["smoothing"] for t in (1, 2, 3)] == [0, 0.1, 0]
    assert stages["dpo"]["models"] == ["dpo-1", "dpo-2", "dpo-3"]
    assert stages["rejection-2"]["data"] == ["rejection-samples"]
    assert stages["rejection-judged"]["model"] == "rejection"


def test_fewer_tries_of_the_same_recipe(recipe: Path) -> None:
    stages = stages_of(recipe, "methods.tries=1")
    assert "dpo-2" not in stages
    assert stages["dpo"]["models"] == ["dpo-1"]
    assert read_recipe(recipe, ["methods.tries=1"]).seconds == {"dpo-1": 1, "village": 9}


def test_a_recipe_that_extends_it_adds_a_method_and_changes_one(recipe: Path) -> None:
    more = recipe.with_name("more.yaml")
    more.write_text(
        "extends: compare.yaml\nmethods:\n  of:\n"
        '    ipo: {"ipo-{t}": {kind: dpo, model: sft, data: [pairs], ipo: true, beta: {tries: [1, 2, 3]}}}\n'
        '    dpo: {"dpo-{t}": {beta: {tries: [0.2, 0.4, 0.8]}}}\n'
    )
    stages = stages_of(more)
    assert stages["ipo-2"]["beta"] == 2
    assert stages["ipo-judged"]["model"] == "ipo"
    assert stages["dpo-3"]["beta"] == 0.8
    assert stages["dpo-3"]["optimiser"]["lr"] == 1e-4


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[0.05, 0.1, 0.3]", "[0.05, 0.1]", "16: methods.of.dpo.dpo-{t}.beta.tries: expected a value for each of 3"),
        ("[0.05, 0.1, 0.3]", "0.1", "16: methods.of.dpo.dpo-{t}.beta.tries: expected a value for each of 3 tries"),
        ("n: 4", "n: {tries: [1, 2, 3]}", "19: methods.of.rejection.rejection-samples.n.tries: the stage is the same"),
        ("{model: base,", '{model: "x{1..t}",', "stages.sft.model"),
        ('model: "{method}"', 'model: "{method}-{t}"', "the stage is the same in every try; put {t} into"),
        ("rejection-samples: {kind", "samples: {kind", "19: methods.of.rejection.samples: a method's stages bear its"),
        ('"{method}-judged"', "judged", "8: methods.each.judged: the name is the same for every method"),
        ('"dpo-{t}"', "dpo-x", "11: methods.of.dpo: the method has no tries; name the stage that is tried dpo-{t}"),
        ("    dpo:\n", '    "d o":\n', "11: methods.of.d o: 'd o' cannot name a stage"),
        (
            '"rejection-{t}"',
            'rejection-1: {kind: sft}\n      "rejection-{t}"',
            "two stages would be called 'rejection-1'",
        ),
        ("  tries: 3", "  tries: 0", "5: methods.tries: Input should be greater than or equal to 1"),
        ("smoothing: 0.1", "smoothing: 9", "28: stages.dpo-2.smoothing"),
        ("0.05, 0.1, 0.3", "0.05, -1, 0.3", "16: stages.dpo-2.beta"),
    ],
)
def test_what_is_wrong_is_told_at_its_line(recipe: Path, old: str, new: str, said: str) -> None:
    text = RECIPE.replace(old, new, 1)
    assert text != RECIPE
    recipe.write_text(text)
    with pytest.raises(BadInput) as caught:
        read_recipe(recipe)
    line = str(caught.value)
    assert said in line
    assert "\n" not in line


def test_the_page_of_the_docs_reads(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "compare.md").read_text()
    block = page.split("```yaml\n")[1].partition("```")[0].replace("[comparisons]", "[pairs]")
    given = RECIPE[RECIPE.index("stages:") :].replace("  dpo-2: {smoothing: 0.1}\n", "")
    (tmp_path / "docs.yaml").write_text(f"{block}{given}  helpfulness: {{kind: reward, model: sft, data: [pairs]}}\n")
    stages = stages_of(tmp_path / "docs.yaml")
    assert stages["dpo-3"]["beta"] == 0.3
    assert stages["rejection"]["models"] == ["rejection-1", "rejection-2", "rejection-3"]
