"""A corpus as token ids on disk: written once, document by document, and read through memory maps, however large."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ayni.records import TokenSequence

# tokens.bin: the ids of all documents end to end, little-endian; ends.bin: where each of them ends, as int64
_TOKENS, _ENDS = "tokens.bin", "ends.bin"


def write_token_file(directory: Path, documents: Iterable[Sequence[int]], vocab: int) -> None:
    """The documents' ids as files in `directory`, which exists; two bytes a token while the vocabulary fits them."""
    end = 0
    with open(directory / _TOKENS, "wb") as tokens, open(directory / _ENDS, "wb") as ends:
        for ids in documents:
            tokens.write(np.array(ids, _dtype(vocab)).tobytes())
            end += len(ids)
            ends.write(np.int64(end).tobytes())


def _dtype(vocab: int) -> str:
    return "<u2" if vocab <= 1 << 16 else "<u4"


class TokenFile:
    """The documents of a token file, by number."""

    def __init__(self, directory: Path, vocab: int) -> None:
        self.ends = _mapped(directory / _ENDS, "<i8")
        self._tokens = _mapped(directory / _TOKENS, _dtype(vocab))

    def __len__(self) -> int:
        return len(self.ends)

    def lengths(self) -> np.ndarray:
        """(N,), in tokens."""
        return np.diff(self.ends, prepend=0)

    def document(self, index: int, start: int, stop: int) -> np.ndarray:
        """Its tokens from `start` to before `stop`."""
        begin = self.ends[index - 1] if index else 0
        return self._tokens[begin + start : min(begin + stop, self.ends[index])]


def _mapped(path: Path, dtype: str) -> np.ndarray:
    # an empty file cannot be mapped
    return np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)


class PackedRows:
    """Documents in this order (their numbers, any of them any number of times) laid end to end and cut every `length`
    tokens; a last incomplete row is dropped. A row is put together when it is asked for."""

    def __init__(self, file: TokenFile, order: np.ndarray, length: int) -> None:
        self.file, self.order, self.length = file, order, length
        self._ends = file.lengths()[order].cumsum()
        self._mask = [False] + [True] * (length - 1)

    @property
    def tokens(self) -> int:
        """Of all documents together, as often as they come."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __len__(self) -> int:
        return self.tokens // self.length

    def __getitem__(self, index: int) -> TokenSequence:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, stop = index * self.length, (index + 1) * self.length
        at = int(np.searchsorted(self._ends, start, "right"))
        tokens: list[int] = []
        while len(tokens) < self.length:
            before = int(self._ends[at - 1]) if at else 0
            tokens += self.file.document(int(self.order[at]), max(start - before, 0), stop - before).tolist()
            at += 1
        return TokenSequence(tokens, self._mask)
