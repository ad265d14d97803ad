"""PPO through the real stage: a first ratio of 1, no KL at the start, a reward that rises, alarms and early stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from small_stages import Small, contents, prepare
from tiny import reward_model, tokenizer
from torch import Tensor

from ayni.errors import BadInput, BadNumbers
from ayni.files import Killed
from ayni.model_directory import load_model, save_model
from ayni.records import Prompt, Sample
from ayni.reward.model import RewardModel
from ayni.stages import ppo
from ayni.text.tokenizer import Tokenizer

QUICK = {"validate_every": 0, "snapshot_every": 0, "checkpoint_every": 100, "critic_warmup": 0}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return prepare(tmp_path_factory.mktemp("inputs"))["ppo"]


def metrics(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@dataclass(frozen=True)
class Liking(RewardModel):
    """A reward model whose taste is a Python function of the prompt and the sample."""

    taste: Callable[[Prompt, Sample], float] = field(default=lambda prompt, sample: 0.0)

    def score_samples(self, prompts: Many[Prompt], groups: Many[Many[Sample]], policy: Tokenizer) -> Tensor:
        pairs = [(p, s) for p, group in zip(prompts, groups, strict=True) for s in group]
        return torch.tensor([self.taste(p, s) for p, s in pairs])


def likes(monkeypatch: pytest.MonkeyPatch, taste: Callable[[Prompt, Sample], float]) -> None:
    monkeypatch.setattr(ppo, "load_reward", lambda path, **kw: Liking(reward_model(5), tokenizer(), "liking", taste))


def alone(small: Small) -> Small:
    """Without a safety reward model."""
    return Small(small.kind, small.settings, {k: v for k, v in small.inputs.items() if k != "reward_safety"})


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_first_ratio_is_1_and_the_first_kl_is_0(temperature: float, small: Small, tmp_path: Path) -> None:
    small.execute(tmp_path / "ppo", temperature=temperature, **QUICK)
    lines = metrics(tmp_path / "ppo")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[0]["kl"] == 0
    for line in lines:
        assert line["first_ratio"] == pytest.approx(1, abs=1e-4)
    assert any(abs(line["ratio"] - 1) > 1e-4 for line in lines)  # the second mini-batch sees a moved policy
    assert any(line["kl"] != 0 for line in lines[1:])


def test_while_only_the_critic_learns_the_policy_stands_still(small: Small, tmp_path: Path) -> None:
    small.execute(tmp_path / "ppo", **{**QUICK, "critic_warmup": 3})
    lines = metrics(tmp_path / "ppo")
    assert [line["kl"] for line in lines[:4]] == [0, 0, 0, 0]
    assert ["policy_loss" in line for line in lines] == [False, False, False, True, True]
    assert all("value_loss" in line for line in lines)
    assert lines[4]["kl"] != 0


LEARN = {
    **QUICK,
    "iterations": 30,
    "batch_size": 12,
    "mini_batch": 6,
    "beta": 0.01,
    "optimiser": {"lr": 3e-3, "schedule": "constant", "warmup": 0},
    "critic_optimiser": {"lr": 1e-2, "schedule": "constant", "warmup": 0},
}
LIKED = 235  # a token that the policy says about once in a hundred


def test_a_liked_token_becomes_common(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    likes(monkeypatch, lambda prompt, sample: float(sample.tokens.count(LIKED)))
    alone(small).execute(tmp_path / "ppo", **LEARN)
    rewards = [line["reward"] for line in metrics(tmp_path / "ppo")]
    assert sum(rewards[:5]) / 5 < 0.5  # of ten tokens at most
    assert sum(rewards[-5:]) / 5 > 5


def test_kl_holds_the_policy_back(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    likes(monkeypatch, lambda prompt, sample: float(sample.tokens.count(LIKED)))
    last = {}
    for beta in (0.0, 2.0):
        alone(small).execute(tmp_path / str(beta), **{**LEARN, "beta": beta, "iterations": 12})
        last[beta] = metrics(tmp_path / str(beta))[-1]["kl"]
    assert abs(last[2.0]) < last[0.0] / 3


def test_a_penalty_for_answers_cut_off_teaches_to_stop(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    likes(monkeypatch, lambda prompt, sample: 0.0)
    alone(small).execute(tmp_path / "ppo", **LEARN, truncated=-3.0)
    shares = [line["truncated"] for line in metrics(tmp_path / "ppo")]
    assert sum(shares[:3]) / 3 > 0.15
    assert sum(shares[-10:]) / 10 < 0.05


def test_the_critic_learns_what_returns_to_expect(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long prompts pay and short ones do not: the value of a prompt can be known."""
    likes(monkeypatch, lambda prompt, sample: float(len(prompt.dialog[0].content) > 12))
    alone(small).execute(tmp_path / "ppo", **{**LEARN, "critic_warmup": 20, "iterations": 20, "value_clip": 5.0})
    explained = [line["explained_variance"] for line in metrics(tmp_path / "ppo")]
    assert explained[-1] > 0.5 > explained[0]


def two_minded(prompt: Prompt, sample: Sample) -> float:
    """Validation prompts dislike what training prompts like: the first look is the best one."""
    count = float(sample.tokens.count(LIKED))
    return -count if prompt.id.startswith("p2-") else count


STOPPING = {**LEARN, "validate_every": 3, "snapshot_every": 3, "patience": 2, "iterations": 60, "checkpoint_every": 3}


def looks(directory: Path) -> dict[int, float]:
    return {line["step"]: line["validation_reward"] for line in metrics(directory) if "validation_reward" in line}


def test_early_stopping_keeps_the_best_policy(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    likes(monkeypatch, two_minded)
    alone(small).execute(tmp_path / "ppo", **STOPPING)
    seen = looks(tmp_path / "ppo")
    steps = list(seen)
    best = max(steps, key=lambda step: seen[step])  # (max takes the first of equals, as the stage does)
    assert steps == list(range(3, best + 7, 3))  # patience: two looks without a better one
    assert steps[-1] < 60
    kept, _ = load_model(tmp_path / "ppo" / "model")
    snapshot, _ = load_model(tmp_path / "ppo" / "snapshots" / f"{best:06d}" / "model")
    latest, _ = load_model(tmp_path / "ppo" / "snapshots" / f"{steps[-1]:06d}" / "model")
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), snapshot.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(kept.parameters(), latest.parameters(), strict=True))

    def killed_after(save: Callable[..., None], step: int) -> Callable[..., None]:
        def saving(directory: Path, at: int, *rest: Any) -> None:
            save(directory, at, *rest)
            if at == step:
                raise Killed(f"after the checkpoint of iteration {at}")

        return saving

    for step in steps[1:]:  # patience is remembered: a kill after any look ends the same
        with monkeypatch.context() as patch:
            patch.setattr(ppo, "save_checkpoint", killed_after(ppo.save_checkpoint, step))
            with pytest.raises(Killed):
                alone(small).execute(tmp_path / f"killed-{step}", **STOPPING)
        alone(small).execute(tmp_path / f"killed-{step}", **STOPPING)
        assert contents(tmp_path / f"killed-{step}") == contents(tmp_path / "ppo")


def test_the_kl_alarm_stops_the_run(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    likes(monkeypatch, lambda prompt, sample: float(sample.tokens.count(LIKED)))
    with pytest.raises(BadNumbers, match=r"mean KL per answer is .* over kl_limit 0.5") as error:
        alone(small).execute(tmp_path / "ppo", **{**LEARN, "beta": 0.0, "kl_limit": 0.5})
    assert error.value.exit_code == 4
    assert not (tmp_path / "ppo" / "DONE.json").exists()


def test_every_answer_is_learned_from_whatever_the_sizes(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    update = ppo._Loop._update

    def counted(self: Any, trainer: Any, mini: list[Any], *rest: Any) -> Any:
        if trainer is self.actor:
            sizes.append(len(mini))
        return update(self, trainer, mini, *rest)

    monkeypatch.setattr(ppo._Loop, "_update", counted)
    small.execute(tmp_path / "ppo", **{**QUICK, "iterations": 1, "batch_size": 11, "mini_batch": 4, "epochs": 2})
    assert sizes == [4, 4, 3] * 2


def test_bad_input_is_found_before_anything_is_sampled(small: Small, tmp_path: Path) -> None:
    save_model(tmp_path / "other", reward_model(1, vocab=tokenizer(1).vocab_size), tokenizer(1))
    stranger = Small(small.kind, small.settings, {**small.inputs, "reward_helpfulness": tmp_path / "other"})
    with pytest.raises(BadInput, match="their tokenizers differ"):
        stranger.execute(tmp_path / "a")
    blind = Small(small.kind, small.settings, {k: v for k, v in small.inputs.items() if k != "validation"})
    with pytest.raises(BadInput, match="validate_every needs validation prompts"):
        blind.execute(tmp_path / "b")
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
