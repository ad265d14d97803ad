"""Tiny models, a tiny tokenizer, and made-up examples: what the tests of the training core share."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from ayni.model.role import Role
from ayni.model.score_head import with_score_head
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise
from ayni.records import Message, Prompt, TokenSequence
from ayni.rollout.local import LocalEngine
from ayni.text.tokenizer import Tokenizer, train_tokenizer
from ayni.train.batch import Group, Pair, Trajectory

SENTENCE = "the hare asks a wise owl why rain falls on the green hill and who may sing at night"
WORDS = SENTENCE.split()
VOCAB = 290  # 256 bytes, 3 special ids and a few pieces


@cache
def tokenizer(seed: int = 0) -> Tokenizer:
    draw = np.random.default_rng(seed)
    return train_tokenizer([" ".join(draw.choice(WORDS, 8)) + f" {i}." for i in range(60)], VOCAB)


def shape(vocab: int = VOCAB, *, context: int = 96, layers: int = 2) -> Shape:
    return Shape(dim=16, layers=layers, heads=2, kv_heads=1, hidden=24, vocab=vocab, context=context)


def language_model(
    seed: int = 0, *, vocab: int = VOCAB, context: int = 96, layers: int = 2, dtype: torch.dtype = torch.float32
) -> Transformer:
    """Sharper than a fresh model, so that its predictions differ from token to token."""
    model = initialise(Transformer(shape(vocab, context=context, layers=layers)), seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(12)
    return model.to(dtype)


def reward_model(
    seed: int = 0, *, vocab: int = VOCAB, context: int = 96, dtype: torch.dtype = torch.float32
) -> Transformer:
    return with_score_head(language_model(seed, vocab=vocab, context=context, dtype=dtype), seed)


def policy_model(seed: int = 0, *, context: int = 96, dtype: torch.dtype = torch.float32) -> Transformer:
    """Speaks in sharp, varied nonsense, and ends about every second answer within 20 tokens."""
    model = language_model(seed, context=context)
    with torch.no_grad():
        model.output.weight.mul_(2)
        model.output.weight[tokenizer().eos].mul_(2)
    return model.to(dtype)


def policy(seed: int = 0, *, context: int = 96, dtype: torch.dtype = torch.float32) -> LocalEngine:
    """The same, to sample from."""
    return LocalEngine(Role(policy_model(seed, context=context, dtype=dtype)), tokenizer(), f"policy-{seed}")


def prompts(count: int, *, seed: int = 0, task: str = "helpfulness") -> list[Prompt]:
    """Of 1 to 5 words each."""
    draw = np.random.default_rng(seed)
    texts = [" ".join(draw.choice(WORDS, draw.integers(1, 6))) for _ in range(count)]
    return [Prompt(f"p{seed}-{i}", (Message("user", text),), task) for i, text in enumerate(texts)]  # type: ignore[arg-type]


def sequence_of_words(count: int, *, seed: int = 0) -> list[int]:
    """So many tokens of the tiny tokenizer's."""
    return np.random.default_rng(seed).integers(3, VOCAB, count).tolist()


def answered(draw: np.random.Generator, *, vocab: int = VOCAB, prompt: int = 4, answer: int = 6) -> TokenSequence:
    """A random prompt of up to `prompt` tokens and a supervised answer of up to `answer`."""
    before, after = int(draw.integers(1, prompt + 1)), int(draw.integers(1, answer + 1))
    return TokenSequence(draw.integers(3, vocab, before + after).tolist(), [False] * before + [True] * after)


def answers(draw: np.random.Generator, size: int, *, vocab: int = VOCAB) -> tuple[TokenSequence, ...]:
    """Random answers to one prompt of up to 8 tokens, which goes on in words of its own before every fourth."""
    prompt = draw.integers(3, vocab, draw.integers(1, 9)).tolist()
    rows = []
    for _ in range(size):
        own = answered(draw, vocab=vocab, prompt=3)
        start = 0 if draw.random() < 0.25 else own.mask.index(True)
        rows.append(TokenSequence([*prompt, *own.tokens[start:]], [False] * len(prompt) + own.mask[start:]))
    return tuple(rows)


def pair(draw: np.random.Generator, *, vocab: int = VOCAB) -> Pair:
    margin, labels = float(draw.integers(0, 4)) / 3, ((None, None), (True, False), (True, True), (False, False))
    reference = tuple(float(x) for x in draw.normal(-20, 3, 2))
    return Pair(*answers(draw, 2, vocab=vocab), margin, labels[int(draw.integers(4))], reference)  # type: ignore[arg-type]


def group(draw: np.random.Generator, *, vocab: int = VOCAB, size: int = 3) -> Group:
    return Group(answers(draw, size, vocab=vocab), tuple(float(x) for x in draw.normal(0, 1, size)))


def trajectory(draw: np.random.Generator, *, vocab: int = VOCAB) -> Trajectory:
    """A sampled answer with made-up memories, all in fp64 and zero where the mask is False."""
    sequence = answered(draw, vocab=vocab)
    mask = torch.tensor([*sequence.mask[1:], False])

    def column(centre: float, spread: float) -> Tensor:
        drawn = torch.from_numpy(draw.normal(centre, spread, len(mask)))
        return torch.where(mask, drawn, torch.zeros_like(drawn))

    logprobs, values, advantages, returns = column(-5.6, 0.2), column(0, 1), column(0, 1), column(0, 1)
    return Trajectory(sequence, logprobs, advantages, column(-5.6, 0.2), values, returns)
