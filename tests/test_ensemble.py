"""Several reward models as one, against one model, against numpy, and against what cannot be joined."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import refused
from small_stages import Small, prepare
from tiny import policy, prompts, reward_model, tokenizer

from ayni.maths.rewards import join_scores
from ayni.model.role import Role
from ayni.model.score_scale import Anchor, Normalisation, ScoreScale
from ayni.model_directory import save_model
from ayni.reward.combine import CombinedReward
from ayni.reward.ensemble import Ensemble, members
from ayni.reward.model import RewardModel
from ayni.rollout.engine import rollout
from ayni.rollout.sampling import Sampling

SCALES = (Normalisation(3.0, 2.0, 50), Normalisation(-1.0, 0.5, 50), Normalisation(0.0, 7.0, 50))


def models(count: int = 3) -> tuple[RewardModel, ...]:
    return tuple(
        RewardModel(Role(reward_model(7 + i)), tokenizer(), f"rm{i}", ScoreScale(None, SCALES[i])) for i in range(count)
    )


def answers() -> tuple[Any, Any]:
    engine, asked = policy(), prompts(5)
    return asked, rollout(engine, asked, n=3, sampling=Sampling(1.0, 1.0, 8), seed=0)


def test_joined_by_hand() -> None:
    scores = torch.tensor([[1.0, 0.0, -2.0], [3.0, 0.0, 4.0]])
    assert join_scores(scores, "mean").tolist() == [2, 0, 1]
    assert join_scores(scores, "worst").tolist() == [1, 0, -2]
    assert join_scores(scores, "cautious").tolist() == [1, 0, -2]  # two models: a deviation is half their distance
    three = np.random.default_rng(0).normal(size=(3, 50))
    found = join_scores(torch.from_numpy(three), "cautious")
    np.testing.assert_allclose(found.numpy(), three.mean(0) - three.std(0), rtol=1e-12)


@pytest.mark.parametrize("join", ["mean", "worst", "cautious"])
def test_an_ensemble_is_its_models_in_the_first_one_s_units(join: Any) -> None:
    three, (asked, groups) = models(), answers()
    found = Ensemble(three, join).score_samples(asked, groups, tokenizer())
    raw = np.stack([m.score_samples(asked, groups, tokenizer()).numpy() for m in three])
    normal = np.stack([(x - s.mean) / s.deviation for x, s in zip(raw, SCALES, strict=True)])
    joined = {"mean": normal.mean(0), "worst": normal.min(0), "cautious": normal.mean(0) - normal.std(0)}[join]
    np.testing.assert_allclose(found.numpy(), joined * 2.0 + 3.0, rtol=1e-5, atol=1e-5)


def test_of_one_model_twice_it_is_that_model() -> None:
    (one, *_), (asked, groups) = models(), answers()
    alone = one.score_samples(asked, groups, tokenizer())
    for join in ("mean", "worst", "cautious"):
        found = Ensemble((one, one), join).score_samples(asked, groups, tokenizer())  # type: ignore[arg-type]
        torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-5)


def test_beside_a_safety_model_it_is_centred_as_its_first_model_is() -> None:
    three, (asked, groups) = models(), answers()
    asked = [replace(p, task="helpfulness") for p in asked]
    safety = RewardModel(Role(reward_model(2)), tokenizer(), "safe", ScoreScale(Anchor(1.0, 5, 5)))
    ensemble = Ensemble(three, "mean")
    found = CombinedReward(ensemble, safety, tokenizer(), threshold=0.0)(asked, groups)
    torch.testing.assert_close(found.combined, found.helpfulness - 3.0)
    assert [m.name for m in members(ensemble)] == ["rm0", "rm1", "rm2"]
    # what the shortest sighted reads is what all can read
    assert CombinedReward(ensemble, None, tokenizer()).context == min(m.role.context for m in three) < math.inf


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Small]:
    return prepare(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("others")
    for i, scale in enumerate(SCALES[:2]):
        save_model(directory / f"rm{i}", reward_model(20 + i), tokenizer(), extra=ScoreScale(None, scale).noted())
    save_model(directory / "unknown", reward_model(30), tokenizer())
    return [directory / "rm0", directory / "rm1", directory / "unknown"]


@pytest.mark.parametrize("kind", ["ppo", "reject", "evaluate"])
def test_stages_take_several(kind: str, stages: dict[str, Small], others: list[Path], tmp_path: Path) -> None:
    first, second, unknown = others
    if kind == "evaluate":
        inputs = {key: stages["reject"].inputs[key] for key in ("model", "prompts")} | {
            "judge": [first],
            "reward": first,
        }
        small = Small("evaluate", {"best_of": 3, "max_tokens": 8, "dtype": "fp32"}, inputs)
    else:
        small = stages[kind]
        small = Small(small.kind, small.settings, small.inputs | {"reward" + "_helpfulness" * (kind == "ppo"): first})
    quick = {"iterations": 2} if kind == "ppo" else {}

    def made(name: str, more: list[Path], **settings: Any) -> str:
        inputs = {**small.inputs, "reward_ensemble": more} if more else small.inputs
        Small(small.kind, small.settings, inputs).execute(tmp_path / name, **quick, **settings)
        left = "results.json" if kind == "evaluate" else "metrics.jsonl"
        return (tmp_path / name / left).read_text()

    alone, joined = made("alone", []), made("joined", [second])
    assert alone != joined
    assert made("worst", [second], ensemble="worst") != joined
    assert json.loads(joined.splitlines()[0]) if kind != "evaluate" else json.loads(joined)
    said = refused(lambda: made("refused", [unknown]))
    assert "reward_ensemble: unknown does not say mean and deviation of its scores" in said
    assert not (tmp_path / "refused").exists()


def test_a_function_is_not_joined(stages: dict[str, Small], others: list[Path], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def reward(prompt, answer):\n    return float(len(answer))\n")
    small = stages["reject"]
    inputs = {**small.inputs, "reward": tmp_path / "mine.py", "reward_ensemble": others[:1]}
    inputs.pop("reward_safety", None)
    said = refused(lambda: Small(small.kind, small.settings, inputs).execute(tmp_path / "r", threshold=0.0))
    assert "reward_ensemble: reward models are joined, not functions" in said


def test_an_ensemble_without_its_first_model_is_refused(
    stages: dict[str, Small], others: list[Path], tmp_path: Path
) -> None:
    inputs = {key: stages["reject"].inputs[key] for key in ("model", "prompts")} | {"judge": [others[0]]}
    small = Small("evaluate", {"max_tokens": 8, "dtype": "fp32"}, {**inputs, "reward_ensemble": others[:1]})
    assert "reward_ensemble joins a reward" in refused(lambda: small.execute(tmp_path / "e"))
