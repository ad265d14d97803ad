"""Choosing a token against brute force in numpy; frequencies against probabilities; random numbers without state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from ayni.rollout import sampling
from ayni.rollout.sampling import Sampling, ways_of
from ayni.seeds import seed_of

VOCAB = 12


def uniforms(seeds: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The reference: splitmix64 on uint64 (B,), whose products wrap."""
    with np.errstate(over="ignore"):
        x = seeds + (steps + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def choose(logits: torch.Tensor, uniform: torch.Tensor, *given: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """One sampling for all rows, or one for each."""
    each = given * len(logits) if len(given) == 1 else given
    temperatures = torch.tensor([s.temperature for s in each], dtype=torch.float64)
    top_p = torch.tensor([s.top_p for s in each], dtype=torch.float64)
    return sampling.choose(logits, uniform, temperatures, top_p, ways_of(each))


def logits(rows: int, seed: int = 0, spread: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, (rows, VOCAB))


def brute_force(row: np.ndarray, uniform: float, temperature: float, top_p: float) -> tuple[int, float]:
    """Meta's rule, token by token: keep while the mass strictly before is at most p, then draw by the kept mass."""
    p = np.exp(row / temperature - np.max(row / temperature))
    p /= p.sum()
    order = range(len(p)) if top_p >= 1 else np.argsort(-p, kind="stable")
    kept, before = [], 0.0
    for token in order:
        if top_p >= 1 or before <= top_p:
            kept.append(int(token))
        before += p[token]
    running, wanted = 0.0, uniform * p[kept].sum()
    for token in kept:
        running += p[token]
        if running > wanted:
            return token, float(np.log(p[token]))
    return kept[-1], float(np.log(p[kept[-1]]))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 1.0])
def test_every_choice_equals_brute_force(temperature: float, top_p: float) -> None:
    rows, uniform = logits(400), np.random.default_rng(1).random(400)
    tokens, logprobs = choose(torch.from_numpy(rows), torch.from_numpy(uniform), Sampling(temperature, top_p))
    for i in range(400):
        token, logprob = brute_force(rows[i], uniform[i], temperature, top_p)
        assert tokens[i] == token
        assert logprobs[i] == pytest.approx(logprob, abs=1e-9)  # before top-p, after temperature


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_what_was_said_is_likelier_to_be_passed_over(temperature: float) -> None:
    """Against brute force, token by token (Keskar et al. 2019, §4.1); log-probs stay the model's own."""
    draw = np.random.default_rng(4)
    rows, uniform = logits(200), draw.random(200)
    drawn, counts = draw.integers(0, VOCAB, (200, 6)), draw.integers(0, 6, 200)
    theta = draw.choice([1.0, 1.2, 5.0], 200)
    by = sampling.penalised(*map(torch.from_numpy, (rows, drawn, counts, theta)))
    told = torch.full((200,), temperature, dtype=torch.float64)
    ways = ways_of([Sampling(temperature, 1.0)])
    ones = torch.ones(200, dtype=torch.float64)
    tokens, logprobs = sampling.choose(torch.from_numpy(rows), torch.from_numpy(uniform), told, ones, ways, by)
    passed_over = 0
    for i in range(200):
        row = rows[i].copy()
        for token in {*drawn[i, : counts[i]].tolist()}:
            row[token] = row[token] / theta[i] if row[token] > 0 else row[token] * theta[i]
        np.testing.assert_allclose(by[i].numpy(), row)
        expected = int(np.argmax(row)) if temperature == 0 else brute_force(row, uniform[i], temperature, 1.0)[0]
        assert tokens[i] == expected
        own = rows[i] / (temperature or 1.0)
        assert logprobs[i] == pytest.approx(float(own[expected] - np.log(np.exp(own).sum())), abs=1e-9)
        passed_over += expected != int(np.argmax(rows[i]))
    assert passed_over > 10


def test_rows_of_different_samplings_choose_as_they_do_alone() -> None:
    kinds = [Sampling(0.0, 0.5), Sampling(0.7, 1.0), Sampling(1.0, 1.0), Sampling(1.3, 0.8), Sampling(0.7, 0.3)]
    rows = torch.from_numpy(logits(200)).float()
    uniform = torch.from_numpy(np.random.default_rng(2).random(200))
    for some in (kinds, kinds[:2], kinds[:1] + kinds[3:], kinds[1:4]):
        each = [some[i % len(some)] for i in range(200)]
        tokens, logprobs = choose(rows, uniform, *each)
        for kind in some:
            at = [i for i in range(200) if each[i] == kind]
            alone = choose(rows[at], uniform[at], kind)
            assert torch.equal(tokens[at], alone[0])
            assert torch.equal(logprobs[at], alone[1])


def test_nan_logits_show_in_the_logprob() -> None:
    row = torch.full((1, VOCAB), float("nan"))
    for kind in (Sampling(0.0), Sampling(1.0, 1.0), Sampling(1.0, 0.5)):
        token, logprob = choose(row, torch.tensor([0.5], dtype=torch.float64), kind)
        assert 0 <= int(token) < VOCAB
        assert torch.isnan(logprob).all()


def test_top_p_by_hand() -> None:
    row = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64).log()
    seen = {
        top_p: {int(choose(row, torch.tensor([u / 100]), Sampling(1.0, top_p))[0]) for u in range(100)}
        for top_p in (0.01, 0.49, 0.6, 0.79, 0.9, 0.96)
    }
    # a token stays while the mass before it (0, 0.5, 0.8, 0.95) is at most p
    assert seen == {0.01: {0}, 0.49: {0}, 0.6: {0, 1}, 0.79: {0, 1}, 0.9: {0, 1, 2}, 0.96: {0, 1, 2, 3}}


def test_greedy_takes_the_best_and_says_its_logprob_at_temperature_1() -> None:
    rows = logits(50)
    tokens, logprobs = choose(torch.from_numpy(rows), torch.rand(50, dtype=torch.float64), Sampling(0.0, 0.5))
    assert tokens.tolist() == rows.argmax(1).tolist()
    expected = rows.max(1) - np.log(np.exp(rows).sum(1))
    np.testing.assert_allclose(logprobs.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.3, 0.8)])
def test_frequencies_match_probabilities(temperature: float, top_p: float) -> None:
    row, count = logits(1, 3, 1.0), 20_000
    drawn = uniforms(np.array([seed_of("chi", i) for i in range(count)], np.uint64), np.zeros(count, np.uint64))
    tokens, _ = choose(torch.from_numpy(row).expand(count, -1), torch.from_numpy(drawn), Sampling(temperature, top_p))
    p = np.exp(row[0] / temperature)
    p /= p.sum()
    order = np.argsort(-p)
    p[order[np.cumsum(p[order]) - p[order] > top_p]] = 0
    p /= p.sum()
    counts = np.bincount(tokens.numpy(), minlength=VOCAB)
    assert (counts[p == 0] == 0).all()
    assert stats.chisquare(counts[p > 0], count * p[p > 0]).pvalue > 1e-3


def test_nothing_of_probability_zero_is_ever_drawn() -> None:
    row = torch.tensor([[float("-inf"), 0.0, float("-inf"), 1.0, float("-inf")]])
    for u in (0.0, 1e-12, 0.5, 1 - 2**-53):  # in fp32 the last rounds to 1
        for top_p in (0.5, 0.9, 1.0):
            token, logprob = choose(row, torch.tensor([u], dtype=torch.float64), Sampling(1.0, top_p))
            assert int(token) in (1, 3)
            assert torch.isfinite(logprob).all()


def test_low_precision_logits_are_lifted() -> None:
    rows = torch.from_numpy(logits(20)).bfloat16()
    uniform = torch.rand(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tokens, logprobs = choose(rows, uniform, Sampling(1.0, 1.0))
    same, expected = choose(rows.float(), uniform, Sampling(1.0, 1.0))
    assert logprobs.dtype == torch.float32
    assert torch.equal(tokens, same)
    assert torch.equal(logprobs, expected)


def test_uniforms_of_the_device_are_the_references_to_the_bit() -> None:
    draw = np.random.default_rng(0)
    seeds = np.concatenate([draw.integers(0, 2**63, 5000, dtype=np.uint64), np.array([0, 1, 2**63 - 1], np.uint64)])
    steps = np.concatenate([draw.integers(0, 2**20, 5000, dtype=np.uint64), np.array([0, 2**20, 2**20], np.uint64)])
    found = sampling.uniforms(*(torch.from_numpy(x.astype(np.int64)) for x in (seeds, steps)))
    assert found.dtype == torch.float64
    assert np.array_equal(found.numpy(), uniforms(seeds, steps))


def test_uniforms_are_uniform_and_independent_of_one_another() -> None:
    seeds = np.array([seed_of("u", i) for i in range(200)], np.uint64)
    grid = np.stack([uniforms(seeds, np.full(200, step, np.uint64)) for step in range(50)])
    assert grid.min() >= 0
    assert grid.max() < 1
    assert stats.kstest(grid.ravel(), "uniform").pvalue > 1e-3
    along = [np.corrcoef(grid[t], grid[t + 1])[0, 1] for t in range(49)]  # neighbouring steps
    across = np.corrcoef(grid[:, :-1].ravel(), grid[:, 1:].ravel())[0, 1]  # neighbouring seeds
    assert abs(np.mean(along)) < 0.03
    assert abs(across) < 0.03
    assert len(np.unique(grid)) == grid.size


def test_a_number_belongs_to_its_seed_and_step() -> None:
    seeds, steps = np.arange(10, dtype=np.uint64), np.arange(10, dtype=np.uint64) * 3
    whole = uniforms(seeds, steps)
    for i in np.random.default_rng(0).permutation(10):
        assert uniforms(seeds[i : i + 1], steps[i : i + 1])[0] == whole[i]
    assert uniforms(np.array([2**63 - 1], np.uint64), np.array([2**20], np.uint64))[0] < 1


@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0, 9.0])
def test_the_nucleus_is_found_without_sorting_what_is_unlikely(spread: float) -> None:
    generator = torch.Generator().manual_seed(int(spread))
    p = torch.softmax(spread * torch.randn(60, 700, generator=generator), -1)
    p[:5] = p[:5].round(decimals=3)  # many alike
    uniform = torch.rand(60, generator=generator, dtype=torch.float64)
    for share in (0.05, 0.5, 0.9, 0.99, 1 - 1e-9):
        top_p = torch.full((60,), share, dtype=torch.float64)
        assert torch.equal(sampling._nucleus(p, uniform, top_p), sampling._sorted_nucleus(p, uniform, top_p))
