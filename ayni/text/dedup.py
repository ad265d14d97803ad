"""Exact and near duplicates among documents, by hashed word shingles (MinHash with banding, Broder 1997)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

import numpy as np

WORD = re.compile(r"\w+")
SHINGLE = 5  # words
BANDS, ROWS = 8, 4  # two documents sharing ≥ 80% of their shingles meet in a band with probability 0.985


def without_duplicates(texts: Sequence[str], *, against: Iterable[str] = (), near: bool = True) -> list[str]:
    """The texts in order, less those seen before among themselves or in `against`.

    Exact after folding case, punctuation and white space; `near` also drops documents of at least 20 words whose
    shingle sets agree in about 80% or more with an earlier document's.
    """
    exact: set[bytes] = set()
    bands: set[tuple[int, bytes]] = set()

    def seen(text: str) -> bool:
        words = WORD.findall(text.lower())
        key = hashlib.blake2b(" ".join(words).encode(), digest_size=16).digest()
        known = key in exact
        exact.add(key)
        if known or not near or len(words) < 20:
            return known
        signature = minhash(words)
        keys = [(band, signature[band * ROWS : (band + 1) * ROWS].tobytes()) for band in range(BANDS)]
        known = any(k in bands for k in keys)
        bands.update(keys)
        return known

    for text in against:
        seen(text)
    return [text for text in texts if not seen(text)]


def minhash(words: Sequence[str]) -> np.ndarray:
    """BANDS·ROWS minima of random linear hashes, modulo 2⁶⁴, over the document's shingles: (32,) uint64."""
    shingles = {" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))}
    hashed = np.array(
        [int.from_bytes(hashlib.blake2b(s.encode(), digest_size=8).digest(), "big") for s in sorted(shingles)],
        dtype=np.uint64,
    )
    draw = np.random.default_rng(0)
    a, b = draw.integers(0, 1 << 64, (2, BANDS * ROWS, 1), dtype=np.uint64)
    return ((a | np.uint64(1)) * hashed + b).min(1)  # odd factors permute; without wrapping all minima would agree
