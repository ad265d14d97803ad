"""Exact and near duplicates among documents: MinHash with banding (Broder 1997), every candidate verified.

A document leaves a fingerprint of half a kilobyte, and only fingerprints are compared: many of them may lie in a file.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

WORD = re.compile(r"\w+")
SHINGLE = 5  # words
SHORTEST = 20  # words; a document of fewer is compared exactly only
SIMILAR = 0.8  # share of common shingles from which on two documents are near duplicates
# Documents that share 80% meet in a band with probability 1 − 2e-8, those that share half with 0.87; of the candidates
# the whole signature decides: its estimate has a deviation of 0.035 at 80%.
BANDS, ROWS = 32, 4
HASHES = BANDS * ROWS
FINGERPRINT = np.dtype([("exact", "V16"), ("near", "?"), ("minima", "<u4", HASHES)])
_AT_ONCE = 1 << 16  # shingles, or fingerprints: tens of megabytes of work


def fingerprint(text: str, *, near: bool = True) -> np.ndarray:
    """What is remembered of a document, the same after folding case, punctuation and white space: () FINGERPRINT.

    With `near`, and from SHORTEST words on, it can be told for a near duplicate too.
    """
    words = WORD.findall(text.lower())
    found = np.zeros((), FINGERPRINT)
    found["exact"] = np.void(hashlib.blake2b(" ".join(words).encode(), digest_size=16).digest())
    if near and len(words) >= SHORTEST:
        found["near"], found["minima"] = True, minhash(words)
    return found


def minhash(words: Sequence[str]) -> np.ndarray:
    """The minima of HASHES random hashes over the document's shingles: (HASHES,) uint32. Two documents agree in as
    large a share of them as they have shingles in common (Jaccard), on average."""
    hashed = np.array([zlib.crc32(word.encode()) for word in words], np.uint64)
    # fewer words than a shingle has are one shingle
    width = min(SHINGLE, len(words))
    shingles = sum(hashed[i : len(hashed) - width + 1 + i] * _PLACES[i] for i in range(width))
    # multiplied numbers are random in their upper half only
    shingles = (shingles ^ (shingles >> np.uint64(32))) * _PLACES[0]
    minima = np.full(HASHES, np.iinfo(np.uint32).max, np.uint32)
    for start in range(0, len(shingles), _AT_ONCE // 16):
        drawn = _FACTORS * shingles[start : start + _AT_ONCE // 16] + _OFFSETS
        # the upper half again; without wrapping all minima would agree
        np.minimum(minima, (drawn.min(1) >> np.uint64(32)).astype(np.uint32), out=minima)
    return minima


def _odd(draw: np.random.Generator, *size: int) -> np.ndarray:
    """Odd factors permute the numbers modulo 2⁶⁴."""
    return draw.integers(0, 1 << 64, size, dtype=np.uint64) | np.uint64(1)


_DRAW = np.random.default_rng(0)
_PLACES = _odd(_DRAW, SHINGLE)
_FACTORS = _odd(_DRAW, HASHES, 1)
_OFFSETS = _DRAW.integers(0, 1 << 64, (HASHES, 1), dtype=np.uint64)


def duplicates(fingerprints: np.ndarray) -> np.ndarray:
    """Which of the documents (N,) repeat an earlier one, exactly or nearly: (N,) bool.

    Within a band a document is held against the first and against the last before it of those it meets there.
    Memory: some 50 bytes a document beside the fingerprints.
    """
    _, first = np.unique(np.ascontiguousarray(fingerprints["exact"]), return_index=True)
    found = np.ones(len(fingerprints), bool)
    found[first] = False
    near = np.flatnonzero(fingerprints["near"])
    for band in range(BANDS):
        rows = fingerprints["minima"][:, band * ROWS : (band + 1) * ROWS][near].astype(np.uint64)
        keys = (rows * _FACTORS[:ROWS, 0]).sum(1, dtype=np.uint64)
        # stable: those that meet stand in their own order
        order = np.argsort(keys, kind="stable")
        meets = np.concatenate([[False], keys[order[1:]] == keys[order[:-1]]])
        starts = np.maximum.accumulate(np.where(meets, 0, np.arange(len(order))))
        at = np.flatnonzero(meets)
        for before in (starts[at], at - 1):
            mine, theirs = near[order[at]], near[order[before]]
            for pairs in _parts(np.flatnonzero(~found[mine])):
                agree = fingerprints["minima"][mine[pairs]] == fingerprints["minima"][theirs[pairs]]
                found[mine[pairs]] |= agree.mean(1) >= SIMILAR
    return found


def _parts(indices: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(indices), _AT_ONCE):
        yield indices[start : start + _AT_ONCE]


def without_duplicates(texts: Sequence[str], *, against: Iterable[str] = (), near: bool = True) -> list[str]:
    """The texts in order, less those that repeat an earlier one or one of `against`; `near`: nearly, too."""
    taken = [fingerprint(text, near=near) for text in against]
    found = duplicates(np.array([*taken, *(fingerprint(text, near=near) for text in texts)], FINGERPRINT))
    return [text for text, repeats in zip(texts, found[len(taken) :], strict=True) if not repeats]


def repeated(document: np.ndarray, known: np.ndarray) -> int | None:
    """Which of the `known` documents (N,) this one () repeats, exactly or nearly: the first; None where it does none.

    All are held against it, which is quick as long as they are few: a test set, a held-out set.
    """
    same = known["exact"] == document["exact"]
    if document["near"]:
        same |= known["near"] & ((known["minima"] == document["minima"]).mean(1) >= SIMILAR)
    return int(same.argmax()) if same.any() else None


def without(texts: Iterable[str], heldout: Iterable[str]) -> Iterator[str]:
    """The texts, one at a time, less those that repeat a held-out one exactly or nearly."""
    known = np.array([fingerprint(text) for text in heldout], FINGERPRINT)
    return (text for text in texts if not len(known) or repeated(fingerprint(text), known) is None)
