"""`auto` takes what this machine multiplies faster; a choice is a choice."""

from __future__ import annotations

import pytest
import torch

from ayni.model import precision
from ayni.model.precision import compute_dtype


@pytest.mark.parametrize(("bf16", "expected"), [(0.1, torch.bfloat16), (0.9, torch.float32), (3.0, torch.float32)])
def test_auto_is_what_pays(bf16: float, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bf16's seconds where fp32 takes one."""
    monkeypatch.setattr(precision, "seconds", {torch.float32: 1.0, torch.bfloat16: bf16}.__getitem__)
    assert compute_dtype("auto") == expected
    assert compute_dtype("bf16") == torch.bfloat16
    assert compute_dtype("fp32") == torch.float32


def test_the_measurement_measures() -> None:
    assert precision.seconds(torch.float32) > 0
    assert precision.seconds(torch.bfloat16) is precision.seconds(torch.bfloat16)  # once a process
