"""Text to tokens: ours, text by text, beside SentencePiece's own encoding of the whole list.

    python -m benchmarks.tokenise

The village's corpus, a tokenizer of 4,096 pieces trained on it; both run the same library on one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import sentencepiece

from ayni.text.sentencepiece_codec import SentencePieceCodec
from ayni.text.tokenizer import Tokenizer, train_tokenizer
from ayni.village.village import Village
from benchmarks.options import Options
from benchmarks.side import Turns
from benchmarks.work import OURS, Work, main

WORDS, PIECES = {"tiny": 20_000}, {"tiny": 1024}


@cache
def material(shape: str) -> tuple[list[str], Tokenizer]:
    texts = Village(7).corpus(WORDS.get(shape, 400_000))
    return texts, train_tokenizer(texts, PIECES.get(shape, 4096))


def side(encode: Callable[[list[str], Tokenizer], list[list[int]]], options: Options, turns: Turns) -> None:
    turns.imported()
    texts, tokenizer = material(options.shape)
    for _ in turns:
        for _ in range(options.steps):
            found = encode(texts, tokenizer)
        # the same ids in the same order, or another number
        turns.end(options.steps * sum(map(len, found)), losses=[hash(tuple(map(tuple, found)))])


def ours(texts: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer.encode(text) for text in texts]


def theirs(texts: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    assert isinstance(tokenizer.codec, SentencePieceCodec)
    processor: sentencepiece.SentencePieceProcessor = tokenizer.codec.processor
    found: list[list[int]] = processor.encode(texts, num_threads=1)
    return found


SIDES = {OURS: partial(side, ours), "sentencepiece": partial(side, theirs)}
WORK = Work("tokenise", "tokens/s", SIDES, tolerance={"fp32": 0.0}, ceiling=False, needs="sentencepiece")

if __name__ == "__main__":
    main(WORK, __doc__ or "")
