"""Reward models as callables: one answer's score whatever stands beside it, read at the last token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import language_model, policy, prompts, reward_model, tokenizer

from ayni.errors import BadInput
from ayni.model.layout import Layout
from ayni.model.role import Role
from ayni.model_directory import save_model
from ayni.records import Message, Prompt
from ayni.reward import model as reward_module
from ayni.reward.model import RewardModel, load_reward
from ayni.rollout.engine import rollout
from ayni.rollout.sampling import Sampling
from ayni.text.chat import render, render_prompt


def alone(reward: RewardModel, row: list[int]) -> float:
    """The head at the last token of a plain forward pass over one row."""
    model = reward.role.model
    return (model(torch.tensor(row), Layout.of([len(row)]))[-1] @ model.head[0]).item()


def rows(count: int, seed: int = 0) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    alone = [draw.integers(3, 290, draw.integers(1, 30)).tolist() for _ in range(count)]
    # every third continues what another begins with: as answers to one prompt do
    return [[*alone[i - 1][:9], *row] if i % 3 == 2 else row for i, row in enumerate(alone)]


def test_scores_are_read_at_the_last_token_in_the_order_given(monkeypatch: pytest.MonkeyPatch) -> None:
    reward, asked = RewardModel(Role(reward_model(1)), tokenizer()), rows(40)
    expected = torch.tensor([alone(reward, row) for row in asked])
    assert expected.std() > 0.1
    for budget in (8192, 50, 1):  # tokens per pass
        monkeypatch.setattr(reward_module, "TOKENS_PER_PASS", budget)
        torch.testing.assert_close(reward.score_tokens(asked), expected, rtol=1e-5, atol=1e-5)


def test_neighbours_and_order_do_not_matter() -> None:
    reward, asked = RewardModel(Role(reward_model(1, dtype=torch.float64)), tokenizer()), rows(30)
    scores = reward.score_tokens(asked)
    order = np.random.default_rng(1).permutation(30)
    torch.testing.assert_close(reward.score_tokens([asked[i] for i in order]), scores[order])
    torch.testing.assert_close(reward.score_tokens(asked[3:5]), scores[3:5])
    assert reward.score_tokens([]).shape == (0,)
    assert scores.dtype == torch.float32


def test_every_token_up_to_the_last_counts() -> None:
    reward = RewardModel(Role(reward_model(1)), tokenizer())
    row = rows(1)[0]
    changed = [*row[:-1], row[-1] + 1 if row[-1] < 289 else 3]
    scores = reward.score_tokens([row, changed, row[:-1]])
    assert len({round(x, 4) for x in scores.tolist()}) == 3


def test_an_answer_scores_as_its_finished_dialogue() -> None:
    reward, asked = RewardModel(Role(reward_model(1)), tokenizer()), prompts(3)
    answers = ["the owl sings", "rain", "who may ask"]
    rendered = [
        render((*p.dialog, Message("assistant", a)), tokenizer()).tokens for p, a in zip(asked, answers, strict=True)
    ]
    assert all(row[-1] == tokenizer().eos for row in rendered)
    torch.testing.assert_close(
        reward.score_answers(asked, answers),
        torch.tensor([alone(reward, row) for row in rendered]),
        rtol=1e-5,
        atol=1e-5,
    )


def test_samples_of_the_same_tokenizer_are_read_as_drawn() -> None:
    reward, asked = RewardModel(Role(reward_model(1)), tokenizer()), prompts(5)
    groups = rollout(policy(), asked, n=2, sampling=Sampling(1.0, 1.0, 8), seed=0)
    assert {sample.finished for group in groups for sample in group} == {"stop", "length"}
    scores = reward.score_samples(asked, groups, tokenizer())
    expected = [
        alone(reward, render_prompt(p.dialog, tokenizer()) + list(s.tokens))
        for p, group in zip(asked, groups, strict=True)
        for s in group
    ]
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_samples_of_another_tokenizer_are_rendered_anew() -> None:
    other = tokenizer(1)
    assert other.fingerprint != tokenizer().fingerprint
    reward, asked = RewardModel(Role(reward_model(1)), other), prompts(4)
    groups = rollout(policy(), asked, n=2, sampling=Sampling(1.0, 1.0, 8), seed=0)
    scores = reward.score_samples(asked, groups, tokenizer())
    expected = [
        alone(reward, render((*p.dialog, Message("assistant", s.text)), other, finished=s.finished).tokens)
        for p, group in zip(asked, groups, strict=True)
        for s in group
    ]
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_an_answer_that_does_not_fit_is_bad_input() -> None:
    reward = RewardModel(Role(reward_model(1)), tokenizer())
    with pytest.raises(BadInput, match="answer 1: 97 tokens do not fit the reward model's context of 96"):
        reward.score_tokens([[5], [5] * 97])


def test_a_saved_reward_model_scores_the_same_and_is_frozen(tmp_path: Path) -> None:
    model = reward_model(1)
    save_model(tmp_path / "rm", model, tokenizer())
    loaded = load_reward(tmp_path / "rm")
    asked = rows(6)
    assert torch.equal(loaded.score_tokens(asked), RewardModel(Role(model), tokenizer()).score_tokens(asked))
    assert not any(p.requires_grad for p in loaded.role.model.parameters())
    assert loaded.name == "rm"


def test_a_language_model_is_refused_and_no_head_is_made_up(tmp_path: Path) -> None:
    save_model(tmp_path / "lm", language_model(1), tokenizer())
    with pytest.raises(BadInput, match="language model"):
        load_reward(tmp_path / "lm")
    save_model(tmp_path / "rm", reward_model(1), tokenizer())
    (tmp_path / "rm" / "model.safetensors").write_bytes((tmp_path / "lm" / "model.safetensors").read_bytes())
    with pytest.raises(BadInput, match=r"score|lm_head"):
        load_reward(tmp_path / "rm")


def test_a_dialogue_of_several_turns_is_scored_at_its_last_answer() -> None:
    reward = RewardModel(Role(reward_model(1)), tokenizer())
    first = (Message("user", "owl"), Message("assistant", "yes"))
    longer = (*first, Message("user", "why"), Message("assistant", "rain"))
    scores = reward.scores([first, longer])
    assert scores[0] != scores[1]
    (again,) = reward.score_answers([Prompt("p", longer[:-1])], ["rain"])
    assert again.item() == pytest.approx(scores[1].item(), abs=1e-5)
