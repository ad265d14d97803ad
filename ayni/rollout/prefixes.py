"""Keys and values of what has been read and drawn, for prompts that begin with it: the turns of a conversation."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple
from zlib import crc32

from torch import Tensor

BLOCK = 16  # tokens: a prompt is looked up by beginnings of so many more each
MOST = 1 << 28  # bytes that are kept


class _Kept(NamedTuple):
    tokens: tuple[int, ...]
    columns: list[Tensor]  # (KV, n, d): keys, then values, of every layer


class Prefixes:
    """Sequences of which keys and values are kept, until MOST bytes are."""

    def __init__(self) -> None:
        self.bytes = 0
        self._found: dict[int, _Kept] = {}  # by the checksums of its beginnings; what is found is compared, too

    def keep(self, tokens: Sequence[int], columns: Sequence[Tensor]) -> None:
        """Keeps a copy of the first len(tokens) columns of (KV, ·, d) each, as long as there is room."""
        n = len(tokens)
        size = sum(x[:, :n].numel() * x.element_size() for x in columns)
        if n < BLOCK or self.bytes + size > MOST:
            return
        self.bytes += size
        kept = _Kept(tuple(tokens), [x[:, :n].clone() for x in columns])
        for _, key in _beginnings(kept.tokens):
            self._found[key] = kept

    def put(self, tokens: Sequence[int], columns: Sequence[Tensor]) -> int:
        """Writes the longest beginning of these tokens that is kept into the columns (KV, ·, d); returns its length."""
        asked = tuple(tokens)
        for end, key in reversed(list(_beginnings(asked))):
            kept = self._found.get(key)
            if kept is not None and kept.tokens[:end] == asked[:end]:
                more = takewhile(lambda pair: pair[0] == pair[1], zip(asked[end:], kept.tokens[end:], strict=False))
                n = end + sum(1 for _ in more)
                for there, here in zip(columns, kept.columns, strict=True):
                    there[:, :n] = here[:, :n]
                return n
        return 0


def _beginnings(tokens: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(tokens, checksum) of every beginning of whole blocks."""
    key = 0
    for end in range(BLOCK, len(tokens) + 1, BLOCK):
        key = crc32(array("q", tokens[end - BLOCK : end]), key)
        yield end, key


NONE = Prefixes()  # nobody keeps anything in it
