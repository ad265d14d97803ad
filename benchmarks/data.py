"""The shapes and the data of all works: ragged sequences as dialogues have them, the same on both sides."""

from __future__ import annotations

import numpy as np

from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise
from ayni.records import TokenSequence
from ayni.seeds import rng
from ayni.train.batch import Pair

SHAPES = {
    "A": Shape(256, 6, 8, 4, 688, 4096, 1024),
    "B": Shape(512, 8, 8, 8, 1376, 32_000, 1024),
    "tiny": Shape(32, 2, 2, 1, 48, 256, 1024),
}
SHORTEST, LONGEST, MEDIAN, SPREAD = 24, 512, 181, 0.41  # mean 196; 1.9 padded tokens per real one in rows of 16
ROWS = 16  # sequences an optimiser step
PAD, BOS, EOS, FIRST = 0, 1, 2, 3  # ids; drawn tokens start at FIRST


def start(shape: str) -> Transformer:
    """The language model that every side starts from."""
    return initialise(Transformer(SHAPES[shape]), 0)


def lengths(draw: np.random.Generator, count: int) -> np.ndarray:
    """Of dialogues, in tokens: log-normal, cut off at both ends."""
    return np.clip(np.exp(draw.normal(np.log(MEDIAN), SPREAD, count)).round(), SHORTEST, LONGEST).astype(int)


def tokens(draw: np.random.Generator, shape: str, count: int) -> list[int]:
    drawn: list[int] = draw.integers(FIRST, SHAPES[shape].vocab, count).tolist()
    return drawn


def dialogue(draw: np.random.Generator, shape: str, prompt: list[int], length: int) -> TokenSequence:
    """So many tokens: the prompt, then a supervised answer up to EOS."""
    answer = [*tokens(draw, shape, length - len(prompt) - 1), EOS]
    return TokenSequence(prompt + answer, [False] * len(prompt) + [True] * len(answer))


def sequences(shape: str, step: int, count: int = ROWS) -> list[TokenSequence]:
    """The dialogues of one step: a sixth to a half of each is its prompt, the rest the supervised answer."""
    draw = rng("benchmark", "sequences", step)
    asked = zip(lengths(draw, count), draw.uniform(1 / 6, 1 / 2, count), strict=True)
    return [dialogue(draw, shape, tokens(draw, shape, round(n * share)), n) for n, share in asked]


def pairs(shape: str, step: int, count: int = ROWS // 2) -> list[Pair]:
    """The comparisons of one step: two answers to one prompt, which is a sixth to a half of the shorter dialogue."""
    draw = rng("benchmark", "pairs", step)
    found = []
    for _ in range(count):
        both = lengths(draw, 2)
        prompt = tokens(draw, shape, round(min(both) * draw.uniform(1 / 6, 1 / 2)))
        chosen, rejected = (dialogue(draw, shape, prompt, length) for length in both)
        found.append(Pair(chosen, rejected))
    return found


def prompt_of(sequence: TokenSequence) -> list[int]:
    return sequence.tokens[: sequence.mask.index(True)]


def answer_of(sequence: TokenSequence) -> list[int]:
    return sequence.tokens[sequence.mask.index(True) :]


def padded_share(step_lengths: list[list[int]]) -> float:
    """Padded tokens per real one when the rows of a step are filled up to its longest."""
    return sum(max(row) * len(row) for row in step_lengths) / sum(map(sum, step_lengths))
