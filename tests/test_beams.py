"""Diverse beam search against a slow, obvious one: every token from a full forward pass of one sequence."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tiny import policy, prompts

from ayni.errors import BadInput
from ayni.model.layout import Layout
from ayni.model.transformer import Transformer
from ayni.rollout import beams
from ayni.rollout.beams import apart, diverse_rollout
from ayni.rollout.engine import rollout
from ayni.rollout.sampling import Sampling
from ayni.text.chat import render_prompt

EOS = policy().tokenizer.eos


@torch.no_grad()
def slowly(model: Transformer, prompt: list[int], groups: int, penalty: float, limit: int) -> list[list[int]]:
    """Vijayakumar et al. 2016, algorithm 1 with the Hamming distance and groups of one beam."""
    answers: list[list[int]] = [[] for _ in range(groups)]
    for _ in range(limit):
        taken: Counter[int] = Counter()
        for answer in answers:
            if answer and answer[-1] == EOS:
                continue
            tokens = torch.tensor([*prompt, *answer])
            scores = (model(tokens, Layout.of([len(tokens)]))[-1] @ model.head.t()).log_softmax(-1)
            for token, count in taken.items():
                scores[token] -= penalty * count
            answer.append(int(scores.argmax()))
            taken[answer[-1]] += 1
    return answers


@pytest.mark.parametrize("penalty", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("slots", [4, 9, 256])
def test_every_group_is_the_slow_one(penalty: float, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever decodes beside it: prompts and answers of different lengths, answers that end early."""
    monkeypatch.setattr(beams, "SLOTS", slots)
    speaker, asked = policy(dtype=torch.float64), prompts(7)
    found = diverse_rollout(speaker, asked, groups=4, penalty=penalty, max_tokens=12)
    ends = set()
    for prompt, group in zip(asked, found, strict=True):
        head = render_prompt(prompt.dialog, speaker.tokenizer)
        expected = slowly(speaker.role.model, head, 4, penalty, 12)
        assert [list(sample.tokens) for sample in group] == expected
        assert {sample.prompt_tokens for sample in group} == {tuple(head)}
        ends |= {sample.finished for sample in group}
    assert ends == {"stop", "length"}


def test_the_first_group_is_greedy_and_without_a_penalty_all_are() -> None:
    speaker, asked = policy(dtype=torch.float64), prompts(5)
    greedy = rollout(speaker, asked, n=1, sampling=Sampling(0.0, 1.0, 10), seed=0)
    for penalty in (0.0, 2.0):
        found = diverse_rollout(speaker, asked, groups=3, penalty=penalty, max_tokens=10)
        for (one,), group in zip(greedy, found, strict=True):
            same = [sample.tokens == one.tokens for sample in group]
            assert same[0]
            assert all(same) == (penalty == 0)
            # the model's own, without the penalty
            assert group[0].logprobs == pytest.approx(one.logprobs, abs=1e-9)


def test_a_token_costs_as_often_as_it_was_taken_by_hand() -> None:
    logprobs = torch.tensor([[[0.0, -1.0, -2.5]] * 4])
    live = torch.ones(1, 4, dtype=torch.bool)
    # third group: 0 − 1.5 · 1 is more than −1 − 1.5 and −2.5; fourth: 0 − 1.5 · 2 is less than both
    assert apart(logprobs, live, 1.5).tolist() == [[0, 1, 0, 1]]
    assert apart(logprobs, live, 3.0).tolist() == [[0, 1, 2, 0]]
    assert apart(logprobs, live, 0.5).tolist() == [[0, 0, 0, 1]]
    # who has ended keeps nobody off
    assert apart(logprobs, torch.tensor([[False, True, True, True]]), 3.0).tolist() == [[0, 0, 1, 2]]


def test_a_prompt_without_room_is_refused_and_the_context_is_the_limit() -> None:
    speaker = policy(context=48)
    (prompt,) = prompts(1)
    room = 48 - len(render_prompt(prompt.dialog, speaker.tokenizer))
    for sample in diverse_rollout(speaker, [prompt], groups=3, penalty=1.0, max_tokens=99)[0]:
        assert len(sample.tokens) <= room
    with pytest.raises(BadInput, match="prompt 0 has"):
        diverse_rollout(policy(context=8), [prompt], groups=2, penalty=1.0, max_tokens=4)
