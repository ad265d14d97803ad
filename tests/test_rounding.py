"""Columns that fill a flat batch up to a round number change nothing that counts."""

from __future__ import annotations

import pytest
import torch
from small_models import build
from torch import Tensor

from ayni.model import heads, rounding
from ayni.model.heads import token_logprobs
from ayni.model.layout import Layout
from ayni.model.rounding import ROWS, hidden_states, resize, rounded

CPU = torch.device("cpu")


@pytest.mark.parametrize(("rows", "expected"), [(1, 1), (127, 127), (128, 128), (129, 256), (256, 256), (700, 768)])
def test_many_rows_are_rounded_up_in_bf16_on_a_cpu_alone(rows: int, expected: int) -> None:
    assert rounded(rows, torch.bfloat16, CPU) == expected
    assert rounded(rows, torch.float32, CPU) == rows
    assert rounded(rows, torch.bfloat16, torch.device("cuda")) == rows


def test_resizing_cuts_or_fills_with_zeros_and_its_backward_is_its_adjoint() -> None:
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    for rows in (2, 5, 9):
        y = torch.randn(rows, 3, dtype=torch.float64)
        out = resize(x, rows)
        assert out.shape == (rows, 3)
        (grad,) = torch.autograd.grad((out * y).sum(), x)
        assert torch.allclose((x * grad).sum(), (out * y).sum(), rtol=1e-12, atol=1e-12)
    assert torch.equal(resize(x, 9)[5:], torch.zeros(4, 3, dtype=torch.float64))


def test_outputs_and_gradients_are_those_of_the_rows_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp64 and with rounding switched on for it, so that a stray row cannot hide in the noise."""

    def learned() -> tuple[Tensor, list[Tensor]]:
        model = build().double()
        generator = torch.Generator().manual_seed(0)
        lengths = [60, 3, 41, 26, 33]
        tokens = torch.randint(0, model.shape.vocab, (sum(lengths),), generator=generator)
        mask = torch.rand(len(tokens), generator=generator) < 0.97
        asked = mask.nonzero().squeeze(1)
        hidden = hidden_states(model, tokens, Layout.of(lengths), torch.float64, asked)
        logprobs = token_logprobs(hidden, model.head, tokens.roll(-1)[asked])
        logprobs.sum().backward()
        return logprobs.detach(), [p.grad for p in model.parameters() if p.grad is not None]

    plain, plain_grads = learned()
    calls = []

    def always(rows: int, dtype: torch.dtype, device: torch.device) -> int:
        calls.append(rows)
        return -(-rows // ROWS) * ROWS

    for module in (rounding, heads):
        monkeypatch.setattr(module, "rounded", always)
    filled, filled_grads = learned()
    assert len(calls) == 3
    assert torch.allclose(plain, filled, rtol=0, atol=1e-12)
    for a, b in zip(plain_grads, filled_grads, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-11)
