"""PPO as a stage: what it wires together, what it leaves, and what it refuses. The loop itself: test_online_loop.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_stages import Small, prepare
from tiny import reward_model, tokenizer

from ayni.errors import BadInput
from ayni.model.adapters import adapter_of
from ayni.model.layout import Layout
from ayni.model_directory import load_model, save_model

QUICK = {"validate_every": 0, "snapshot_every": 0, "checkpoint_every": 100, "critic_warmup": 0, "iterations": 2}
LORA = {"rank": 4, "alpha": 8}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return prepare(tmp_path_factory.mktemp("inputs"))["ppo"]


def metrics(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


FAMILY: dict[str, dict[str, Any]] = {
    "ppo": {},
    "lora": {"lora": LORA},
    "penalty": {"loss": "penalty", "epochs": 2},
    "a2c": {"estimator": "actor_critic", "loss": "gradient"},
    "reinforce": {"estimator": "reinforce", "loss": "gradient"},
    "remax": {"estimator": "remax", "loss": "gradient"},
    "rloo": {"estimator": "rloo", "n": 2},
    "grpo": {"estimator": "grpo", "n": 2},
    "trpo": {"estimator": "rloo", "loss": "trust_region", "n": 2, "mini_batch": 8},
}


@pytest.mark.parametrize("name", FAMILY)
def test_every_relative_runs_from_the_first_ratio_to_a_model(name: str, small: Small, tmp_path: Path) -> None:
    small.execute(tmp_path / "ppo", **QUICK, **FAMILY[name])
    lines = metrics(tmp_path / "ppo")
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0]["kl"] == 0
    for line in lines:
        assert line["first_ratio"] == pytest.approx(1, abs=1e-4)
        assert {"reward", "helpfulness", "safety", "entropy", "length", "truncated"} <= line.keys()
    before, _ = load_model(small.inputs["model"])  # type: ignore[arg-type]
    after, _ = load_model(tmp_path / "ppo" / "model")
    assert (adapter_of(after) is not None) == ("lora" in FAMILY[name])
    tokens = [torch.tensor([1, 7, 8]), torch.tensor([1, 40])]
    moved = [(before(t, Layout.of([len(t)])) - after(t, Layout.of([len(t)]))).abs().max() for t in tokens]
    assert max(moved) > 1e-5
    has_critic = FAMILY[name].get("estimator", "gae") in ("gae", "actor_critic")
    assert (tmp_path / "ppo" / "critic").exists() == has_critic
    assert ("explained_variance" in lines[0]) == has_critic


@pytest.mark.parametrize("name", ["ppo", "penalty", "a2c", "reinforce"])
@pytest.mark.parametrize("answers", [1, 2])
def test_answers_of_one_token_are_answers(answers: int, name: str, small: Small, tmp_path: Path) -> None:
    """Also a single one: nothing varies then, and nothing may be divided by that."""
    one = {"batch_size": answers, "mini_batch": 1, "max_tokens": 1}
    small.execute(tmp_path / "ppo", **QUICK, **FAMILY[name], **one)
    assert [line["length"] for line in metrics(tmp_path / "ppo")] == [1, 1]


def test_adapters_go_on_where_they_were(small: Small, tmp_path: Path) -> None:
    """Vn may be an adapter: PPO from an adapter goes on with it, and its reference is that adapter as it was."""
    small.execute(tmp_path / "first", **QUICK, lora=LORA)
    again = Small(small.kind, small.settings, {**small.inputs, "model": tmp_path / "first" / "model"})
    again.execute(tmp_path / "second", **QUICK, lora=LORA)
    assert metrics(tmp_path / "second")[0]["kl"] == 0
    model, _ = load_model(tmp_path / "second" / "model")
    assert adapter_of(model) is not None
    with pytest.raises(BadInput, match="lora: the model has an adapter of rank 4"):
        again.execute(tmp_path / "third", **QUICK, lora={"rank": 8})
    again.execute(tmp_path / "whole", **QUICK)
    assert adapter_of(load_model(tmp_path / "whole" / "model")[0]) is None  # without lora all of it learns


def test_snapshots_are_models(small: Small, tmp_path: Path) -> None:
    small.execute(tmp_path / "ppo", **{**QUICK, "snapshot_every": 1})
    found = sorted(path.name for path in (tmp_path / "ppo" / "snapshots").iterdir())
    assert found == ["000001", "000002"]
    last, _ = load_model(tmp_path / "ppo" / "snapshots" / "000002" / "model")
    final, _ = load_model(tmp_path / "ppo" / "model")
    assert all(torch.equal(a, b) for a, b in zip(last.parameters(), final.parameters(), strict=True))


def test_bad_input_is_found_before_anything_is_sampled(small: Small, tmp_path: Path) -> None:
    save_model(tmp_path / "other", reward_model(1, vocab=tokenizer(1).vocab_size), tokenizer(1))
    stranger = Small(small.kind, small.settings, {**small.inputs, "reward_helpfulness": tmp_path / "other"})
    with pytest.raises(BadInput, match="their tokenizers differ"):
        stranger.execute(tmp_path / "a")
    blind = Small(small.kind, small.settings, {k: v for k, v in small.inputs.items() if k != "validation"})
    watched = Small(small.kind, small.settings, {**small.inputs, "reward_watch": small.inputs["reward_safety"]})
    with pytest.raises(BadInput, match="a reward model that watches needs validate_every"):
        watched.execute(tmp_path / "watched", validate_every=0)
    watched.execute(tmp_path / "looked", iterations=2, validate_every=1)
    with pytest.raises(BadInput, match="validate_every needs validation prompts"):
        blind.execute(tmp_path / "b")
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
    stranger.execute(tmp_path / "c", **QUICK, estimator="rloo", n=2)  # only a critic must read the policy's tokens
