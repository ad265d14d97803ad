"""Random numbers that depend only on what they are for: no hidden state, so any order and any resume agree."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_of(*parts: object) -> int:
    """A 63-bit seed from the parts, e.g. `seed_of(seed, "reject", iteration, prompt_id, k)`."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(*parts: object) -> np.random.Generator:
    """A fresh generator for these parts."""
    return np.random.default_rng(seed_of(*parts))
