"""Attention in C: what torch gives, values and gradients, for any lengths, heads and shared prompts; no sequence's bits
depend on what stands beside it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ayni.model import attention, layout
from ayni.model.layout import Layout

DTYPES = [torch.float32, torch.bfloat16]
HEADS = [(4, 2, 16), (3, 3, 32), (2, 1, 48), (6, 2, 64), (2, 1, 128)]  # heads, key-value heads, size
LENGTHS: list[tuple[list[int], list[int] | None]] = [
    ([1], None),
    ([16, 32], None),
    ([5, 17, 40], None),
    ([33, 20, 41, 64, 50], [0, 7, 20, 0, 13]),
    ([100, 1, 150, 151, 152], [0, 0, 0, 149, 1]),
]


pytestmark = pytest.mark.usefixtures("each_machine")


def inputs(lay: Layout, heads: int, kv_heads: int, size: int) -> tuple[Tensor, ...]:
    """q, k, v and the gradient of what comes out, in fp64."""
    generator, columns = torch.Generator().manual_seed(size), len(lay.positions)
    return tuple(
        torch.randn(columns, h, size, generator=generator).double() for h in (heads, kv_heads, kv_heads, heads)
    )


def attended(lay: Layout, given: tuple[Tensor, ...], dtype: torch.dtype) -> list[Tensor]:
    """What comes out, and the gradients of q, k and v."""
    q, k, v = (x.to(dtype).detach().requires_grad_() for x in given[:3])
    out = lay.attend(0, q, k, v)
    out.backward(given[3].to(dtype))
    return [x.detach() for x in (out, q.grad, k.grad, v.grad) if x is not None]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_it_is_as_near_the_truth_as_torch(
    lengths: tuple[list[int], list[int] | None],
    heads: tuple[int, int, int],
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The truth: fp64, which has no native passes."""
    lay = Layout.of(lengths[0], shared=lengths[1])
    given = tuple(x.to(dtype).double() for x in inputs(lay, *heads))
    truth = attended(lay, given, torch.float64)
    assert attention.takes_native(given[0].to(dtype))
    ours = attended(lay, given, dtype)
    monkeypatch.setattr(layout, "takes_native", lambda q: False)
    torchs = attended(lay, given, dtype)
    least = {torch.float32: 2e-6, torch.bfloat16: 2e-3}[dtype]
    for exact, mine, others in zip(truth, ours, torchs, strict=True):
        assert mine.dtype == dtype
        scale = max(float(exact.abs().max()), 1.0)  # of a single token the gradients of q and k are 0
        assert (mine - exact).abs().max() <= 2 * (others - exact).abs().max() + least * scale


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sequence_has_its_bits_whatever_stands_beside_it(dtype: torch.dtype) -> None:
    lengths, shared = [33, 20, 41, 64, 50], [0, 7, 20, 0, 13]
    lay = Layout.of(lengths, shared=shared)
    given = inputs(lay, 4, 2, 32)
    together = attended(lay, given, dtype)
    at = int(lay.offsets[3])  # the second prompt and its follower
    apart = attended(Layout.of(lengths[3:], shared=shared[3:]), tuple(x[at:] for x in given), dtype)
    for whole, part in zip(together, apart, strict=True):
        assert torch.equal(whole[at:], part)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_several_cores_give_the_same_bits(threads: int) -> None:
    lay = Layout.of([33, 20, 41, 64, 50, 9], shared=[0, 7, 20, 0, 13, 0])
    given = inputs(lay, 4, 2, 16)
    alone = attended(lay, given, torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for one, several in zip(alone, attended(lay, given, torch.float32), strict=True):
            assert torch.equal(one, several)
    finally:
        torch.set_num_threads(before)


def test_a_part_begins_with_columns_of_its_own() -> None:
    lengths, shared = torch.tensor([10, 10, 10, 10, 10, 10]), torch.tensor([0, 5, 5, 0, 5, 0])
    assert attention._parts(lengths, shared, 1) == [(0, 6)]
    assert attention._parts(lengths, shared, 2) == [(0, 3), (3, 6)]
    assert attention._parts(lengths, shared, 3) == [(0, 3), (3, 5), (5, 6)]
    assert attention._parts(lengths, shared, 9) == [(0, 3), (3, 5), (5, 6)]
    assert attention._parts(torch.tensor([4]), torch.tensor([0]), 4) == [(0, 1)]


def test_what_is_no_number_stays_none_and_goes_no_further() -> None:
    lay = Layout.of([8, 8])
    given = inputs(lay, 2, 2, 16)
    given[1][4] = torch.nan
    out = attended(lay, given, torch.float32)[0]
    assert out[:4].isfinite().all()
    assert out[4:8].isnan().all()
    assert out[8:].isfinite().all()
