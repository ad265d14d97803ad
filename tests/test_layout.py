"""Flat batches: every sequence stands alone, whatever lies beside it and however its rows are padded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ayni.model import attention
from ayni.model.attention import causal_attention, plain_attention
from ayni.model.layout import STRIDE, Layout
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise

LENGTHS = [3, 1, 17, 16, 40, 2, 17]
lengths_of_any_kind = st.lists(st.integers(1, 70), min_size=1, max_size=12)


def one_by_one(lengths: list[int], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of every sequence on its own, one query and one head at a time."""
    groups = q.shape[1] // k.shape[1]
    out, start = torch.empty_like(q), 0
    for n in lengths:
        for i in range(start, start + n):
            for h in range(q.shape[1]):
                keys, values = k[start : i + 1, h // groups], v[start : i + 1, h // groups]
                out[i, h] = (keys @ q[i, h] / q.shape[2] ** 0.5).softmax(0) @ values
        start += n
    return out


def some_qkv(total: int, heads: int = 4, kv_heads: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(total)
    sizes = (heads, kv_heads, kv_heads)
    q, k, v = (torch.randn(total, n, 6, generator=generator, dtype=torch.float64) for n in sizes)
    return q, k, v


def test_offsets_positions_and_ends_by_hand() -> None:
    layout = Layout.of([2, 3, 1])
    assert layout.offsets.tolist() == [0, 2, 5, 6]
    assert layout.positions.tolist() == [0, 1, 0, 1, 2, 0]
    assert layout.ends.tolist() == [1, 4, 5]
    assert layout.lengths == (2, 3, 1)


def test_a_sequence_without_a_column_of_its_own_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        Layout.of([3, 2], shared=[0, 2])


@pytest.mark.parametrize("lengths", [[], [3, 0], [-1]])
def test_an_empty_sequence_is_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="empty"):
        Layout.of(lengths)


@given(st.lists(st.integers(1, 70) | st.integers(200, 600), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_buckets_hold_every_column_once_and_waste_little(lengths: list[int]) -> None:
    layout = Layout.of(lengths)
    padded = layout.padded.own.tolist()
    assert len(padded) == len(set(padded)) == sum(lengths)
    start = 0
    for bucket in layout.buckets:
        assert bucket.start == start
        start += bucket.rows * bucket.length
    assert min(padded) >= 0
    assert max(padded) < start
    assert sum(bucket.rows for bucket in layout.buckets) == len(lengths)
    column = 0
    for n in lengths:
        row = padded[column : column + n]
        bucket = next(b for b in layout.buckets if b.start <= row[0] < b.start + b.rows * b.length)
        assert row == list(range(row[0], row[0] + n))  # in one piece
        assert (row[0] - bucket.start) % bucket.length == 0  # from a row's beginning
        assert n <= bucket.length
        waste = bucket.length - n
        assert waste <= STRIDE + (bucket.length + 1) // 2
        assert bucket.length <= 256 or waste <= STRIDE + bucket.length // 8  # long rows cost their square
        column += n


@given(lengths_of_any_kind)
@settings(max_examples=10, deadline=None)
def test_attention_equals_every_sequence_on_its_own(lengths: list[int]) -> None:
    q, k, v = some_qkv(sum(lengths))
    torch.testing.assert_close(
        Layout.of(lengths).attend(0, q, k, v), one_by_one(lengths, q, k, v), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("lengths", [LENGTHS, [5, 5, 5], [4]], ids=["ragged", "equal", "single"])
def test_gradients_pass_through_the_buckets(lengths: list[int]) -> None:
    weights = torch.randn(sum(lengths), 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    grads = []
    for attend in (lambda *qkv: Layout.of(lengths).attend(0, *qkv), lambda *qkv: one_by_one(lengths, *qkv)):
        qkv = [x.requires_grad_() for x in some_qkv(sum(lengths))]
        (attend(*qkv) * weights).sum().backward()
        grads.append([x.grad for x in qkv])
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


SHARED = {
    "pairs": ([9, 7, 40, 33], [0, 6, 0, 20]),
    "three": ([8, 9, 70, 5], [0, 7, 7, 0]),
    "last": ([4, 4, 6], [0, 3, 3]),
}


@pytest.mark.parametrize("kernel", ["buckets", "variable length"])
@pytest.mark.parametrize("case", SHARED)
def test_shared_columns_stand_in_every_sequence(case: str, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths, shared = SHARED[case]
    if kernel == "variable length":
        monkeypatch.setattr("ayni.model.layout.takes_variable_length", lambda q: True)
        spans = lambda bounds: bounds.diff().tolist()  # noqa: E731
        monkeypatch.setattr(
            "ayni.model.layout.variable_length_attention",
            lambda q, k, v, bounds, longest: one_by_one(spans(bounds), q, k, v),
        )
    layout = Layout.of(lengths, shared=shared)
    own = [n - begin for n, begin in zip(lengths, shared, strict=True)]
    assert layout.offsets.diff().tolist() == own
    # which column stands at which place of the sequences written out
    columns: list[int] = []
    for i, begin in enumerate(shared):
        first = max(j for j in range(i + 1) if not shared[j])
        columns += [int(layout.offsets[first]) + k for k in range(begin)]
        columns += range(int(layout.offsets[i]), int(layout.offsets[i + 1]))
    ends = np.cumsum(lengths)
    kept = [place for end, n in zip(ends, own, strict=True) for place in range(end - n, end)]
    weights = torch.randn(sum(own), 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    results = []
    for attend in (
        lambda *qkv: layout.attend(0, *qkv),
        lambda *qkv: one_by_one(lengths, *(x[columns] for x in qkv))[kept],
    ):
        qkv = [x.requires_grad_() for x in some_qkv(sum(own))]
        out = attend(*qkv)
        (out * weights).sum().backward()
        results.append([out, *(x.grad for x in qkv)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("length", [32, attention.QUERIES, 2 * attention.QUERIES + 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fused_kernel_equals_the_plain_form(kv_heads: int, length: int, dtype: torch.dtype) -> None:
    weights = torch.randn(2, 4, length, 6, dtype=dtype, generator=torch.Generator().manual_seed(1))
    results = []
    for attend in (causal_attention, plain_attention):
        q, k, v = (
            x.to(dtype).unflatten(0, (2, length)).transpose(1, 2).detach().requires_grad_()
            for x in some_qkv(2 * length, kv_heads=kv_heads)
        )
        out = attend(q, k, v)
        (out * weights).sum().backward()
        results.append((out.detach(), q.grad, k.grad, v.grad))
    tight = 1e-5 if dtype == torch.float32 else 1e-12
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tight, atol=tight)


@pytest.mark.parametrize("length", [40, attention.PLAIN_BELOW])
def test_bf16_takes_the_plain_form_on_short_rows_and_is_near_fp32(length: int) -> None:
    q, k, v = (x.float().transpose(0, 1)[None] for x in some_qkv(length))
    rough = causal_attention(*(x.bfloat16() for x in (q, k, v)))
    torch.testing.assert_close(rough.float(), causal_attention(q, k, v), rtol=0.05, atol=0.05)


def test_hidden_states_do_not_depend_on_the_neighbours() -> None:
    model = initialise(Transformer(Shape(dim=32, layers=2, heads=4, kv_heads=2, hidden=48, vocab=61)), 0).double()
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(0, 61, (n,), generator=generator) for n in LENGTHS]
    with torch.no_grad():
        alone = [model(row, Layout.of([len(row)])) for row in rows]
        for order in (list(range(7)), [4, 2, 0, 6, 1, 3, 5], [3, 2]):
            together = model(torch.cat([rows[i] for i in order]), Layout.of([LENGTHS[i] for i in order]))
            for i, part in zip(order, together.split([LENGTHS[i] for i in order]), strict=True):
                torch.testing.assert_close(part, alone[i], rtol=1e-12, atol=1e-12)


def test_a_layout_moves_between_devices_whole() -> None:
    layout = Layout.of([4, 3], shared=[0, 2])
    moved = layout.to("meta")
    columns = (moved.offsets, moved.positions, moved.ends, moved.bounds)
    places = [t for each in (moved.padded, moved.whole) if each for t in (each.own, *each.again[0])]
    assert {t.device.type for t in (*columns, *places)} == {"meta"}
    assert (moved.buckets, moved.lengths) == (layout.buckets, layout.lengths)
