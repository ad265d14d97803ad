"""Decoding and reading in C: what torch's operations give, for any shape and rows; a row's bits are its own."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tokenizer
from torch import Tensor

from ayni.model.role import Role
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise
from ayni.records import Message, Prompt, Sample
from ayni.rollout import prefill, prefixes, sampling, step
from ayni.rollout.conversations import own_answers
from ayni.rollout.decode import Slots
from ayni.rollout.decoder import Decoder
from ayni.rollout.engine import Request
from ayni.rollout.local import LocalEngine
from ayni.rollout.prefill import read
from ayni.rollout.prefixes import Prefixes
from ayni.rollout.sampling import Sampling
from ayni.text.chat import render_prompt

LENGTH = 50
SHAPES = {  # head sizes 16, 32, 48, 64, 128; shared keys; widths that fill no panel
    "16": Shape(dim=64, layers=2, heads=4, kv_heads=2, hidden=90, vocab=101, context=LENGTH),
    "32": Shape(dim=64, layers=3, heads=2, kv_heads=1, hidden=70, vocab=64, context=LENGTH),
    "48": Shape(dim=96, layers=1, heads=2, kv_heads=2, hidden=34, vocab=33, context=LENGTH),
    "64": Shape(dim=256, layers=1, heads=4, kv_heads=1, hidden=130, vocab=300, context=LENGTH),
    "128": Shape(dim=256, layers=2, heads=2, kv_heads=1, hidden=16, vocab=17, context=LENGTH),
}


pytestmark = pytest.mark.usefixtures("each_machine")


def decoder(name: str, dtype: torch.dtype) -> Decoder:
    model = initialise(Transformer(SHAPES[name]), 0).to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():  # gains other than 1, scores far enough from each other
            p += 0.05 * torch.empty_like(p).normal_(generator=generator)
    return Decoder(model)


def caches(of: Decoder, slots: int) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(2)
    size = (slots, of.shape.kv_heads, LENGTH, of.shape.head_dim)
    drawn = [torch.randn(size, generator=generator).to(of.dtype) for _ in range(2 * of.shape.layers)]
    return drawn[: of.shape.layers], drawn[of.shape.layers :]


def asked(of: Decoder, rows: int) -> tuple[Tensor, Tensor]:
    """Tokens and positions, the first and the last among them."""
    draw = np.random.default_rng(3)
    positions = draw.integers(0, LENGTH, rows)
    positions[:2] = (LENGTH - 1, 0)[:rows]
    return torch.from_numpy(draw.integers(0, of.shape.vocab, rows)), torch.from_numpy(positions)


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 39])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SHAPES)
def test_it_is_what_torch_gives(name: str, dtype: torch.dtype, rows: int) -> None:
    of = decoder(name, dtype)
    assert of.alone
    tokens, positions = asked(of, rows)
    (keys, values), (ours_k, ours_v), slots = caches(of, rows), caches(of, rows), torch.arange(rows)
    expected = of.logits(of(tokens, Slots(keys, values, positions, LENGTH))).float()
    found = of.step(tokens, ours_k, ours_v, slots, positions)
    limit = 2e-5 if dtype == torch.float32 else 4e-2  # torch rounds every layer's activations to bf16
    assert (found - expected).abs().max() <= limit * expected.abs().max()
    for theirs, ours in zip([*keys, *values], [*ours_k, *ours_v], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=limit, atol=limit)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_row_has_its_bits_whatever_stands_beside_it(dtype: torch.dtype) -> None:
    of = decoder("16", dtype)
    tokens, positions = asked(of, 39)
    together = of.step(tokens, *caches(of, 39), torch.arange(39), positions)
    for rows in (slice(5, 6), slice(3, 14), slice(1, 39)):
        slots = torch.arange(39)[rows]
        assert torch.equal(of.step(tokens[rows], *caches(of, 39), slots, positions[rows]), together[rows])


@torch.no_grad()
def test_in_bf16_it_is_nearer_to_the_truth_than_torch() -> None:
    """The truth: the same weights in fp64. What lies between two products is not rounded here."""
    of = decoder("32", torch.bfloat16)
    exact = Decoder(initialise(Transformer(SHAPES["32"]), 0).to(torch.bfloat16).double())
    rough = Decoder(initialise(Transformer(SHAPES["32"]), 0).to(torch.bfloat16))
    tokens, positions = asked(of, 16)
    cache = caches(rough, 16)
    wide = tuple([x.double() for x in of_kind] for of_kind in cache)
    truth = exact.logits(exact(tokens, Slots(*wide, positions, LENGTH)))
    ours = rough.step(tokens, *caches(rough, 16), torch.arange(16), positions)
    torchs = rough.logits(rough(tokens, Slots(*cache, positions, LENGTH)))
    assert (ours - truth).abs().mean() < (torchs - truth).abs().mean()


def test_where_it_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Decoder(initialise(Transformer(SHAPES["16"]), 0).double()).alone
    odd = Shape(dim=24, layers=1, heads=3, kv_heads=1, hidden=10, vocab=9, context=8)  # heads of 8
    assert not Decoder(initialise(Transformer(odd), 0)).alone
    of = decoder("16", torch.float32)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert of.alone  # so few weights one core reads by itself
    monkeypatch.setattr("ayni.rollout.decoder.SMALL", 0)
    assert not of.alone


def test_answers_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape(dim=64, layers=2, heads=4, kv_heads=2, hidden=90, vocab=tokenizer().vocab_size, context=LENGTH)
    model = initialise(Transformer(shape), 0)
    requests = [
        Request((3 + i, 7, 11), tuple(range(4 * i, 4 * i + 4)), Sampling(temperature, top_p, 5 + 3 * i))
        for i, (temperature, top_p) in enumerate([(1, 1), (0, 1), (0.7, 0.9), (1.3, 1)])
    ]
    ours = LocalEngine(Role(model), tokenizer()).generate(requests)
    monkeypatch.setattr(step, "passes", lambda dtype: None)
    torchs = LocalEngine(Role(model), tokenizer()).generate(requests)
    for one, other in zip(itertools.chain(*ours), itertools.chain(*torchs), strict=True):
        assert one.tokens == other.tokens
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


def chosen(logits: Tensor, uniform: Tensor, temperatures: Tensor) -> tuple[Tensor, Tensor]:
    """By torch, in fp64."""
    ways = sampling.ways_of(Sampling(float(t), 1.0) for t in temperatures)
    return sampling.choose(logits.double(), uniform, temperatures, torch.ones(len(logits)).double(), ways)


@pytest.mark.parametrize("vocab", [1, 5, 256, 257, 4099])
def test_draws_are_those_of_torch(vocab: int) -> None:
    generator = torch.Generator().manual_seed(vocab)
    logits = 3 * torch.randn(600, vocab, generator=generator)
    uniform = torch.rand(600, generator=generator, dtype=torch.float64)
    uniform[:2] = torch.tensor([0.0, 1 - 2**-53])
    temperatures = torch.tensor([0.0, 0.3, 1.0, 1.7], dtype=torch.float64).repeat(150)
    tokens, logprobs = step.draw(logits, uniform, temperatures)
    expected, theirs = chosen(logits, uniform, temperatures)
    same = tokens == expected
    assert (
        same.double().mean() > 0.998
    )  # where a sum passes the number by less than fp32's rounding, the next may be it
    torch.testing.assert_close(logprobs[same].double(), theirs[same], rtol=1e-5, atol=1e-5)


def test_what_has_no_weight_is_not_drawn_and_no_number_says_so() -> None:
    logits = torch.full((3, 40), -torch.inf)
    logits[:, 17] = 0
    tokens, logprobs = step.draw(logits, torch.tensor([0.0, 0.5, 1 - 2**-53]).double(), torch.ones(3).double())
    assert tokens.tolist() == [17] * 3
    assert logprobs.tolist() == [0.0] * 3
    logits[1, 20], logits[2, 20] = torch.nan, torch.inf
    _, logprobs = step.draw(logits, torch.full((3,), 0.5).double(), torch.ones(3).double())
    assert logprobs.isnan().tolist() == [False, True, True]


# A prompt's reading


PROMPTS = [
    [(7 * row + at * (row + 3)) % 61 + 3 for at in range(length)] for row, length in enumerate((1, 2, 40, 33, 49))
]


def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each step from now on computes."""
    counts: list[int] = []
    step_itself = Decoder.step

    def counted(of: Decoder, tokens: Tensor, *given: Any, **asked: Any) -> Tensor:
        counts.append(len(tokens))
        return step_itself(of, tokens, *given, **asked)

    monkeypatch.setattr(Decoder, "step", counted)
    return counts


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SHAPES)
def test_a_prompt_is_read_as_torch_reads_it(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    of = decoder(name, dtype)
    prompts = [[token % of.shape.vocab for token in prompt] for prompt in PROMPTS]
    ours, logits = read(of, prompts)
    monkeypatch.setattr(Decoder, "alone", False)
    theirs, expected = read(of, prompts)
    limit = 3e-5 if dtype == torch.float32 else 6e-2
    assert ours.lengths == theirs.lengths == [1, 2, 40, 33, 49]
    assert (logits - expected.float()).abs().max() <= limit * expected.abs().max()
    for one, other in zip([*ours.keys, *ours.values], [*theirs.keys, *theirs.values], strict=True):
        torch.testing.assert_close(one, other, rtol=limit, atol=limit)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_prompt_leaves_the_same_bits_however_it_is_cut(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    of = decoder("32", dtype)
    together, logits = read(of, PROMPTS)
    monkeypatch.setattr(prefill, "AT_ONCE", 7)
    for row, prompt in enumerate(PROMPTS):
        alone, own = read(of, [prompt])
        assert torch.equal(own[0], logits[row])
        for one, other in zip([*alone.keys, *alone.values], [*together.keys, *together.values], strict=True):
            assert torch.equal(one[0], other[row, :, : len(prompt)])


@torch.no_grad()
def test_what_is_known_of_a_prompt_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    of, known = decoder("32", torch.bfloat16), Prefixes()
    fresh, logits = read(of, PROMPTS)
    known.keep(PROMPTS[2][:37], [x[2] for x in (*fresh.keys, *fresh.values)])
    known.keep([*PROMPTS[4][:20], 60, 60], [x[4] for x in (*fresh.keys, *fresh.values)])  # goes on otherwise
    counts = rows_read(monkeypatch)
    again, same = read(of, PROMPTS, known)
    assert sum(counts) == sum(map(len, PROMPTS)) - 37 - 20
    assert torch.equal(same, logits)
    for one, other in zip([*again.keys, *again.values], [*fresh.keys, *fresh.values], strict=True):
        assert torch.equal(one, other)


def test_no_more_is_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "MOST", 2 * 20 * 4 * 2)
    known, columns = Prefixes(), [torch.arange(80.0).view(1, 20, 4)] * 2
    known.keep(range(15), columns)  # shorter than what is looked up
    assert known.bytes == 0
    known.keep(range(20), [x.half() for x in columns])
    known.keep(range(100, 120), columns)
    assert known.bytes == 2 * 20 * 4 * 2
    there = [torch.zeros(1, 30, 4) for _ in range(2)]
    assert known.put(range(100, 130), there) == 0
    assert known.put([*range(18), 9, 9], there) == 18
    assert all(torch.equal(x[:, :18], columns[0][:, :18]) and not x[:, 18:].any() for x in there)


def test_a_conversation_goes_on_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape(dim=64, layers=2, heads=4, kv_heads=2, hidden=90, vocab=tokenizer().vocab_size, context=400)
    engine = LocalEngine(Role(initialise(Transformer(shape), 0)), tokenizer())
    asked = [Prompt(str(i), (Message("user", f"{i} sheep?"),) * 4) for i in range(3)]

    def conversations() -> list[list[Sample]]:
        return own_answers(engine, asked, sampling=Sampling(1.0, 1.0, 20), seed=0, say=print, n=2)

    def drawn(*dialog: str) -> list[int]:
        messages = tuple(Message(role, text) for role, text in zip(("user", "assistant") * 2, dialog, strict=False))
        request = Request(tuple(render_prompt(messages, tokenizer())), (1,), Sampling(1.0, 1.0, 9))
        return list(engine.stream(request))

    counts = rows_read(monkeypatch)
    found = conversations()
    rows = sum(counts)
    said = drawn("how many sheep are on the hill?"), drawn("how many sheep are on the hill?", "two", "and now?")
    monkeypatch.setattr(Prefixes, "put", lambda known, tokens, columns: 0)
    counts.clear()
    assert conversations() == found
    assert sum(counts) > 3 * rows / 2
    assert said == (
        drawn("how many sheep are on the hill?"),
        drawn("how many sheep are on the hill?", "two", "and now?"),
    )


def test_other_weights_know_nothing_of_what_was_read() -> None:
    shape = Shape(dim=64, layers=2, heads=4, kv_heads=2, hidden=90, vocab=tokenizer().vocab_size, context=90)
    old, new = (Role(initialise(Transformer(shape), seed)) for seed in (0, 1))
    engine, prompt = LocalEngine(old, tokenizer()), tuple(range(5, 45))
    engine.generate([Request(prompt, (0,), Sampling(1.0, 1.0, 20))], keep=True)
    engine.sync(new)
    again = [Request((*prompt, 9), (0,), Sampling(1.0, 1.0, 20))]
    assert engine.generate(again) == LocalEngine(new, tokenizer()).generate(again)
