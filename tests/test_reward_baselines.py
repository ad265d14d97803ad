"""What a reward model must beat: the longer answer, words alone, and itself from a random start."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from small_stages import Small, comparisons, prepare

from ayni.config import parse_config
from ayni.evaluate.leads import baseline_results, leads_of
from ayni.evaluate.reward_baselines import L2, WordRegression, longer
from ayni.files import write_jsonl
from ayni.model.transformer import Transformer, initialise
from ayni.model_directory import load_model
from ayni.records import Comparison, to_dict
from ayni.runs.execution import execute
from ayni.runs.faces import load_stage
from ayni.seeds import seed_of
from ayni.stages import reward


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Small]:
    return prepare(tmp_path_factory.mktemp("inputs"))


def rows_of(directory: Path) -> list[dict[str, Any]]:
    return list(json.loads((directory / "results.json").read_text())["results"])


def test_the_longer_answer_by_characters() -> None:
    pair = comparisons(1)[0]
    pairs = [replace(pair, chosen=" a longer one ", rejected="short"), replace(pair, chosen="b", rejected="cc")]
    assert longer(pairs).tolist() == [7, -1]


def test_the_words_regression_is_the_minimum_of_its_loss() -> None:
    draw = np.random.default_rng(0)
    words = [f"w{i}" for i in range(12)]
    pairs = [
        replace(c, chosen=" ".join(draw.choice(words, 4)), rejected=" ".join(draw.choice(words[3:], 4)))
        for c in comparisons(60)
    ]
    found = WordRegression.fit(pairs, l2=2.0)
    matrix = np.zeros((len(pairs), len(found.columns)))
    for row, c in enumerate(pairs):
        for text, sign in ((c.chosen, 1), (c.rejected, -1)):
            for word in set(text.split()) & found.columns.keys():
                matrix[row, found.columns[word]] += sign
    best = minimize(lambda w: np.logaddexp(0, -matrix @ w).sum() + w @ w, np.zeros(len(found.columns)), tol=1e-10)
    assert found.weights == pytest.approx(best.x, abs=1e-4)
    assert found.leads(pairs) == pytest.approx(matrix @ best.x, abs=1e-3)
    assert WordRegression.fit(pairs[:1]).leads(pairs[:2]).tolist() == [0, 0]  # no word tells two pairs apart


def test_a_word_that_was_chosen_in_training_wins_on_new_prompts() -> None:
    train, heldout = comparisons(40), comparisons(15, seed=8)
    assert (WordRegression.fit(train).leads(heldout) > 0).all()  # "owl"
    assert WordRegression.fit(train, l2=10 * L2).leads(heldout).max() < WordRegression.fit(train).leads(heldout).max()
    rows = {(r.metric, r.model, r.against): r for r in results(train, heldout)}
    assert rows["baseline_accuracy", "bag of words", None].value == 1
    assert rows["accuracy_over_baseline", "rm", "bag of words"].value == pytest.approx(-5 / 15)
    gain = rows["accuracy_over_baseline", "rm", "longer answer"]
    longest = rows["baseline_accuracy", "longer answer", None].value
    assert gain.value == pytest.approx(10 / 15 - longest)
    assert gain.interval is not None
    assert gain.n == 15


def results(train: list[Comparison], heldout: list[Comparison]) -> list[Any]:
    leads = np.array([1.0] * 10 + [-1.0] * 5)
    return baseline_results(leads_of(leads, train, heldout), axis="helpfulness", model="rm", seed=0)


def test_a_reward_model_is_reported_beside_its_baselines(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["reward"].execute(tmp_path / "rm", epochs=2)
    rows = rows_of(tmp_path / "rm")
    own = next(r for r in rows if r["metric"] == "accuracy")
    told = {(r["metric"], r["against"] or r["model"]): r for r in rows if "baseline" in r["metric"]}
    for name in ("longer answer", "bag of words"):
        base, gain = told["baseline_accuracy", name], told["accuracy_over_baseline", name]
        assert base["n"] == gain["n"] == own["n"]
        assert base["interval"] is not None
        assert gain["value"] == pytest.approx(own["value"] - base["value"])
    assert len(told) == 4


def test_two_stages_of_the_same_comparisons_hold_the_same_ones_out(stages: dict[str, Small], tmp_path: Path) -> None:
    """So that a model can be measured against its own random start: neither has seen what both are measured on."""
    write_jsonl(tmp_path / "data.jsonl", map(to_dict, comparisons(60)))
    inputs = {"model": stages["reward"].inputs["model"], "data": [tmp_path / "data.jsonl"]}
    found = []
    for name in ("first", "second"):
        small = Small("reward", {**stages["reward"].settings, "heldout_share": 0.3, "epochs": 0.1}, inputs)
        found.append(held_out(small, tmp_path / name, name))
    assert found[0] == found[1]
    assert 4 <= len(found[0]) <= 10  # of 20


def held_out(small: Small, directory: Path, name: str) -> list[str]:
    seen: list[str] = []
    heldout_results = reward.heldout_results
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            reward,
            "heldout_results",
            lambda good, bad, held, **where: (
                seen.extend(c.prompt.id for c in held) or heldout_results(good, bad, held, **where)
            ),
        )
        config = parse_config(load_stage("reward").config, dict(small.settings))
        execute("reward", config, small.inputs, directory, name=name, seed=1, quiet=True)
    return seen


def test_pretraining_on_no_tokens_leaves_the_random_start(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["pretrain"].execute(tmp_path / "p", tokens=0)
    model, _ = load_model(tmp_path / "p" / "model")
    fresh = initialise(Transformer(model.shape), seed_of(1, "pretrain", "weights"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))
