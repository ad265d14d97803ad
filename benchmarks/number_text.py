"""Text that is its tokens' numbers, for works that go through text: any vocabulary, nothing to train or download."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from ayni.text.tokenizer import Tokenizer
from benchmarks.data import BOS, FIRST


class NumberTokenizer:
    """`17 23` ↔ [17, 23]; the chat format's two tags are the first ordinary ids. No id ends an answer."""

    bos, eos, fingerprint = BOS, -1, "numbers"
    tags = ("[INST]", "[/INST]")

    def encode(self, text: str) -> list[int]:
        return [FIRST + self.tags.index(word) if word in self.tags else int(word) for word in text.split()]

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join(map(str, ids))


def number_tokenizer() -> Tokenizer:
    return cast(Tokenizer, NumberTokenizer())
