"""Random bits as a function of a number: splitmix64's finaliser, so that order and neighbours never matter.

Products wrap in int64 as they do in the uint64 of splitmix64; shifts fill up with zeros.
"""

from __future__ import annotations

from torch import Tensor

_WIDTH = 1 << 64
GOLDEN = 0x9E3779B97F4A7C15 - _WIDTH  # a step of splitmix64's counter


def mixed(x: Tensor) -> Tensor:
    """Every int64 to another that looks like chance: a bijection."""
    x = (x ^ shifted(x, 30)) * (0xBF58476D1CE4E5B9 - _WIDTH)
    x = (x ^ shifted(x, 27)) * (0x94D049BB133111EB - _WIDTH)
    return x ^ shifted(x, 31)


def shifted(x: Tensor, bits: int) -> Tensor:
    """To the right, filled up with zeros."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
