"""Parts for passes without a gradient: in order, one a core, of nearly as many tokens each."""

from __future__ import annotations

import numpy as np
import pytest

from ayni.records import TokenSequence
from ayni.train import shares as module
from ayni.train.shares import shares


def sequences(count: int) -> list[TokenSequence]:
    lengths = np.random.default_rng(count).integers(1, 300, count)
    return [TokenSequence([0] * int(n), [False] * int(n)) for n in lengths]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 17, 200])
@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("budget", [1, 512, 4096, 10**6])
def test_parts_are_even_and_in_order(monkeypatch: pytest.MonkeyPatch, count: int, cores: int, budget: int) -> None:
    monkeypatch.setattr(module, "cores", lambda device: cores)
    every = sequences(count)
    parts = shares(every, budget, "cpu")
    assert [id(x) for part in parts for x in part] == [id(x) for x in every]
    sizes = [sum(len(x.tokens) for x in part) for part in parts]
    longest = max((len(x.tokens) for x in every), default=0)
    assert all(size <= budget / cores + longest for size in sizes)
    if budget > sum(sizes) and count >= 17:
        assert len(parts) == cores
        assert max(sizes) - min(sizes) <= longest
