"""GAE against a slow loop over 1,000 ragged batches, whitening against numpy, and where the score is put."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ayni.maths.advantages import gae, kl_rewards, whiten
from ayni.records import TokenSequence
from ayni.train.batch import batch_of

BETA = 0.1


def slow_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> tuple[list[float], list[float]]:
    """One answer alone, by definition: A_t = Σ_l (γλ)^l δ_{t+l}, with V = 0 after its last token."""
    n = len(rewards)
    deltas = [rewards[t] + gamma * (values[t + 1] if t + 1 < n else 0.0) - values[t] for t in range(n)]
    advantages = [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, n)) for t in range(n)]
    return advantages, [a + v for a, v in zip(advantages, values, strict=True)]


def ragged(draw: np.random.Generator) -> list[TokenSequence]:
    """1 to 6 sequences: prompts of 1 to 7 tokens, answers of 1 to 12 (a quarter of them of one token)."""
    rows = []
    for _ in range(draw.integers(1, 7)):
        before = int(draw.integers(1, 8))
        after = 1 if draw.random() < 0.25 else int(draw.integers(1, 13))
        rows.append(TokenSequence([5] * (before + after), [False] * before + [True] * after))
    return rows


def test_gae_equals_a_slow_loop_on_1000_ragged_batches() -> None:
    draw = np.random.default_rng(0)
    singles = 0
    for _ in range(1000):
        rows = ragged(draw)
        batch = batch_of(rows)
        gamma, lam = (float(draw.choice([0.0, 0.5, 0.95, 1.0])) for _ in range(2))
        # values and rewards outside the mask are noise on purpose: they must not leak in
        rewards, values = (torch.from_numpy(draw.normal(0, 3, len(batch.tokens))) for _ in range(2))
        advantages, returns = gae(rewards, values, batch.mask, gamma=gamma, lam=lam)
        assert (advantages[~batch.mask] == 0).all()
        assert (returns[~batch.mask] == 0).all()
        start = 0
        for row in rows:
            first = start + row.mask.index(True) - 1  # the column that predicts the first answer token
            run = slice(first, first + sum(row.mask))
            singles += sum(row.mask) == 1
            slow = slow_gae(rewards[run].tolist(), values[run].tolist(), gamma, lam)
            for ours, theirs in zip((advantages, returns), slow, strict=True):
                np.testing.assert_allclose(ours[run].numpy(), theirs, rtol=1e-12, atol=1e-12)
            start += len(row.tokens)
        assert start == len(batch.tokens)
    assert singles > 500


def test_gae_by_hand() -> None:
    # two answers: values 1, 2 with rewards 0, 5; value 4 with reward 1; γ = 1, λ = ½
    mask = torch.tensor([False, True, True, False, True, False])
    rewards = torch.tensor([0, 0, 5.0, 0, 1.0, 0])
    values = torch.tensor([9, 1, 2.0, 9, 4.0, 9])
    advantages, returns = gae(rewards, values, mask, gamma=1.0, lam=0.5)
    # δ: 0 + 2 − 1 = 1, 5 − 2 = 3; 1 − 4 = −3;  A: 1 + ½·3, 3; −3
    assert advantages.tolist() == [0, 2.5, 3, 0, -3, 0]
    assert returns.tolist() == [0, 3.5, 5, 0, 1, 0]


def test_with_lam_1_returns_are_what_is_still_to_come() -> None:
    draw = np.random.default_rng(1)
    batch = batch_of(ragged(draw))
    rewards, values = (torch.from_numpy(draw.normal(0, 1, len(batch.tokens))) for _ in range(2))
    _, returns = gae(rewards, values, batch.mask, gamma=1.0, lam=1.0)
    owner = torch.repeat_interleave(torch.arange(len(batch.layout.lengths)), batch.layout.offsets.diff())
    for t in batch.mask.nonzero().squeeze(-1).tolist():
        later = (torch.arange(len(owner)) >= t) & (owner == owner[t]) & batch.mask
        torch.testing.assert_close(returns[t], rewards[later].sum(), rtol=1e-12, atol=1e-12)


def test_gae_without_a_masked_column_is_zero() -> None:
    advantages, returns = gae(torch.ones(3), torch.ones(3), torch.zeros(3, dtype=torch.bool))
    assert advantages.tolist() == returns.tolist() == [0, 0, 0]


@pytest.mark.parametrize("keep_mean", [False, True])
def test_whiten_against_numpy(keep_mean: bool) -> None:
    draw = np.random.default_rng(0)
    x, mask = draw.normal(5, 3, 300), draw.random(300) < 0.4
    whitened = whiten(torch.from_numpy(x), torch.from_numpy(mask), keep_mean=keep_mean).numpy()
    expected = (x - x[mask].mean()) / np.sqrt(x[mask].var() + 1e-8) + (x[mask].mean() if keep_mean else 0)
    np.testing.assert_allclose(whitened, np.where(mask, expected, 0), rtol=1e-12, atol=1e-12)
    plain = whiten(torch.from_numpy(x), keep_mean=keep_mean).numpy()
    np.testing.assert_allclose(
        plain, (x - x.mean()) / np.sqrt(x.var() + 1e-8) + (x.mean() if keep_mean else 0), rtol=1e-12
    )


def test_whitening_equal_numbers_gives_zeros() -> None:
    assert whiten(torch.full((4,), 2.5)).tolist() == [0] * 4


EOS = 2
# "prompt | answer": an answer that ended, one that was cut off, one of a single token that is EOS
ENDED = TokenSequence([1, 7, 8, 9, EOS], [False, False, True, True, True])
CUT_OFF = TokenSequence([1, 7, 7, 8, 9], [False, False, False, True, True])
ONLY_EOS = TokenSequence([1, EOS], [False, True])


def placed(sequence: TokenSequence, score: float, *others: TokenSequence) -> Tensor:
    """Token rewards of `sequence` alone or behind `others`, with log π − log π_ref = 1 at every column."""
    batch = batch_of([*others, sequence])
    scores = torch.tensor([0.0] * len(others) + [score])
    gap = torch.ones(len(batch.tokens))
    rewards = kl_rewards(gap, torch.zeros_like(gap), scores, batch.mask, batch.layout.ends - 1, beta=BETA)
    return rewards[-len(sequence.tokens) :]


@pytest.mark.parametrize("others", [(), (CUT_OFF, ENDED)], ids=["alone", "behind others"])
def test_the_score_lands_on_the_last_sampled_token_and_nowhere_else(others: tuple[TokenSequence, ...]) -> None:
    # columns predict tokens 1, 2, 3, 4 and nothing: the answer 8 9 EOS is predicted at columns 1, 2 and 3
    torch.testing.assert_close(placed(ENDED, 5.0, *others), torch.tensor([0, -BETA, -BETA, 5 - BETA, 0]))
    # cut off at 9: the score still belongs to the column that predicts 9, the last one masked
    torch.testing.assert_close(placed(CUT_OFF, -2.0, *others), torch.tensor([0, 0, -BETA, -2 - BETA, 0]))
    torch.testing.assert_close(placed(ONLY_EOS, 1.0, *others), torch.tensor([1 - BETA, 0]))


def test_rewards_outside_the_mask_are_zero_whatever_the_logprobs_say() -> None:
    batch = batch_of([ENDED, CUT_OFF])
    noise = torch.randn(len(batch.tokens), generator=torch.Generator().manual_seed(0))
    ends = batch.layout.ends
    rewards = kl_rewards(noise, -noise, torch.tensor([3.0, 4.0]), batch.mask, ends - 1, beta=BETA)
    assert (rewards[~batch.mask] == 0).all()
    torch.testing.assert_close(rewards.sum(), 7 - BETA * (2 * noise[batch.mask]).sum())
    assert batch.mask[ends - 1].all()
    assert not batch.mask[ends].any()


def test_without_kl_only_the_score_remains() -> None:
    batch = batch_of([ENDED])
    noise = torch.randn(5, generator=torch.Generator().manual_seed(1))
    rewards = kl_rewards(noise, -noise, torch.tensor([3.0]), batch.mask, batch.layout.ends - 1, beta=0.0)
    assert rewards.tolist() == [0, 0, 0, 3, 0]
