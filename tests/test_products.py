"""product.c beside torch: values and gradients, at any number of rows; what it does not take is torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from ayni.model import native, products

SIZES = [(1, 16, 16), (64, 48, 32), (77, 256, 688), (300, 688, 256), (1031, 32, 2048), (600, 9000, 32)]


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this processor is called."""
    library = native.passes(torch.float32)
    if library is None:
        pytest.skip("no C compiler")
    monkeypatch.setattr(products, "_library", lambda: library)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


def drawn(seed: int, *size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
def test_the_three_products(rows: int, inputs: int, outputs: int) -> None:
    x, w, g = drawn(1, rows, inputs), drawn(2, outputs, inputs) / inputs**0.5, drawn(3, rows, outputs)
    near = {"rtol": 1e-5, "atol": 2e-5 * max(1.0, (rows / 100) ** 0.5)}
    assert_close(products.times(x, w), (x.double() @ w.double().t()).float(), **near)
    assert_close(products.times_weight(g, w), (g.double() @ w.double()).float(), **near)
    assert_close(products.crossed(g, x), (g.double().t() @ x.double()).float(), **near)


@pytest.mark.usefixtures("ours")
def test_the_gradients() -> None:
    x, w, g = (t.requires_grad_() for t in (drawn(1, 130, 48), drawn(2, 64, 48), drawn(3, 130, 64)))
    mine = torch.autograd.grad((products.linear(x, w) * g.detach()).sum(), (x, w))
    theirs = torch.autograd.grad((F.linear(x, w) * g.detach()).sum(), (x, w))
    for a, b in zip(mine, theirs, strict=True):
        assert_close(a, b, rtol=1e-5, atol=1e-4)
    frozen = w.detach()
    (alone,) = torch.autograd.grad(products.linear(x, frozen).sum(), (x,))
    assert_close(alone, torch.autograd.grad(F.linear(x, frozen).sum(), (x,))[0], rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("ours")
def test_a_row_is_the_same_among_any_others() -> None:
    x, w = drawn(1, 200, 256), drawn(2, 96, 256)
    whole = products.times(x, w)
    for start, end in ((0, 64), (3, 90), (199, 200)):
        assert torch.equal(products.times(x[start:end].contiguous(), w), whole[start:end])


@pytest.mark.usefixtures("ours")
def test_what_lies_crosswise_is_read_right() -> None:
    x, w = drawn(1, 48, 80).t(), drawn(2, 48, 32).t()
    assert_close(products.times(x, w), x @ w.t(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("x", "w"),
    [
        (drawn(1, 80, 20), drawn(2, 32, 20)),  # no whole vectors
        (drawn(1, 80, 32), drawn(2, 20, 32)),
        (drawn(1, 80, 32).double(), drawn(2, 32, 32).double()),
        (drawn(1, 80, 32).bfloat16(), drawn(2, 32, 32).bfloat16()),
        (drawn(1, 5, 32), drawn(2, 32, 32)),  # few rows
        (drawn(1, 4, 20, 32), drawn(2, 32, 32)),
        (drawn(1, 0, 32), drawn(2, 32, 32)),
    ],
)
def test_what_is_not_for_it_is_torchs(ours: None, x: Tensor, w: Tensor) -> None:
    assert torch.equal(products.linear(x, w), F.linear(x, w))
