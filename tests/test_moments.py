"""Running moments against numpy on all numbers at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ayni.maths.moments import Moments


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_in_parts_as_at_once(offset: float) -> None:
    draw = np.random.default_rng(0)
    parts = [draw.normal(offset + i, 1 + i, size) for i, size in enumerate((1, 7, 0, 300, 2))]
    moments = Moments()
    for part in parts:
        moments = moments.joined(torch.from_numpy(part))
    whole = np.concatenate(parts)
    assert moments.count == len(whole)
    assert moments.mean == pytest.approx(whole.mean(), rel=1e-12)
    assert moments.deviation == pytest.approx(whole.std(), rel=1e-8)


def test_of_none_and_of_equal_ones_there_is_no_deviation() -> None:
    assert Moments().deviation == 0
    assert Moments().joined(torch.full((3,), 0.5)).deviation == 0
