"""The native passes: what torch's operations give, values and gradients, in fp32 and bf16; absent, nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ayni.model import kernels, native
from ayni.model.layout import Layout
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise

ROWS, DIM, HEADS = 37, 48, 3  # neither a multiple of any vector
DTYPES = [torch.float32, torch.bfloat16]
Results = tuple[Tensor, ...]


@pytest.fixture(autouse=True)
def compiled() -> None:
    if native.passes(torch.float32) is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no native kernels: is there a C compiler?")
        pytest.skip("no C compiler")


def drawn(seed: int, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def norm(dtype: torch.dtype, branch: bool = True) -> tuple[Callable[..., Results], list[Tensor]]:
    inputs = [drawn(1, ROWS, DIM), drawn(2, DIM) + 1]
    if branch:
        inputs.append(drawn(3, ROWS, DIM, dtype=dtype))
    return lambda x, w, b=None: kernels.add_norm(x, b, w, 1e-5, dtype), inputs


def swiglu(dtype: torch.dtype) -> tuple[Callable[..., Results], list[Tensor]]:
    return lambda a, b: (kernels.swiglu(a, b),), [3 * drawn(i, ROWS, DIM, dtype=dtype) for i in (1, 2)]


def joined(dtype: torch.dtype) -> tuple[Callable[..., Results], list[Tensor]]:
    return lambda x: (kernels.swiglu(*x.chunk(2, -1)),), [3 * drawn(1, ROWS, 2 * DIM, dtype=dtype)]


def rotate(dtype: torch.dtype) -> tuple[Callable[..., Results], list[Tensor]]:
    angles = drawn(4, ROWS, 1, DIM // 6)
    turn = torch.polar(torch.ones_like(angles), angles)
    return lambda x: (kernels.rotate(x, turn),), [drawn(1, ROWS, HEADS, DIM // 3, dtype=dtype)]


def rotate_some(dtype: torch.dtype) -> tuple[Callable[..., Results], list[Tensor]]:
    (turn, _), inputs = rotate(dtype), [drawn(1, ROWS, HEADS + 2, DIM // 3, dtype=dtype)]
    return lambda x: turn(x[:, 1 : HEADS + 1]), inputs


def alone(dtype: torch.dtype) -> tuple[Callable[..., Results], list[Tensor]]:
    return norm(dtype, branch=False)


def values_and_gradients(run: Callable[..., Results], inputs: list[Tensor]) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = run(*leaves)
    torch.autograd.backward(list(out), [drawn(10 + i, *x.shape, dtype=x.dtype) for i, x in enumerate(out)])
    return [x.detach() for x in out] + [x.grad for x in leaves if x.grad is not None]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [norm, alone, swiglu, joined, rotate, rotate_some])
def test_values_and_gradients_are_those_of_torch(case, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    run, inputs = case(dtype)
    found = values_and_gradients(run, inputs)
    with torch.no_grad():
        again = run(*inputs)
    monkeypatch.setattr(kernels, "passes", lambda dtype: None)
    expected = values_and_gradients(run, inputs)
    # the reference's own steps are rounded to bf16 where ours are not
    near = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    assert len(found) == len(expected) == len(inputs) + len(again)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, **near)
    for ours, without in zip(found, again, strict=False):
        assert torch.equal(ours, without)


@pytest.mark.parametrize("case", [norm, alone])
def test_a_norm_that_nobody_reads_lets_the_stream_through(case) -> None:  # type: ignore[no-untyped-def]
    run, inputs = case(torch.float32)
    leaves = [x.clone().requires_grad_() for x in inputs]
    run(*leaves)[0].sum().backward()
    assert [x.grad is None for x in leaves] == [False, True, False][: len(leaves)]
    assert all(torch.equal(x.grad, torch.ones_like(x)) for x in leaves if x.grad is not None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_numbers_stay_bad(dtype: torch.dtype, bad: float) -> None:
    for case in (norm, swiglu, rotate):
        run, inputs = case(dtype)
        inputs[0].view(-1)[5] = bad
        assert not run(*inputs)[-1].isfinite().all(), case.__name__


def test_a_sigmoid_of_anything_is_finite() -> None:
    for dtype in DTYPES:
        gate = torch.tensor([[-1e30, -1e4, -200.0, -88.0, -87.0, 0.0, 88.0, 200.0, 1e4]], dtype=dtype).requires_grad_()
        out = kernels.swiglu(gate, torch.ones_like(gate))
        out.sum().backward()
        torch.testing.assert_close(out.detach(), torch.nn.functional.silu(gate.detach()), rtol=1e-2, atol=1e-30)
        assert gate.grad is not None
        assert gate.grad.isfinite().all()


def test_bf16_rounds_as_torch_does() -> None:
    x = torch.randn(4, 4096, generator=torch.Generator().manual_seed(0)) * torch.logspace(-30, 30, 4096)
    x[0, :3] = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8])  # ties go to even
    # no rotation: what goes in comes out, through fp32
    turn = torch.ones(4, 1, 2048, dtype=torch.complex64)
    for source in (x.bfloat16(), x.bfloat16().neg()):
        assert torch.equal(kernels.rotate(source.view(4, 1, 4096), turn).view_as(source), source)
    _, normed = kernels.add_norm(x, None, torch.ones(4096), 1e-5, torch.bfloat16)
    scale = (x.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt()
    off = (normed.float() - (x * scale)).abs() / (x * scale).abs().clamp(min=1e-30)
    assert float(off.max()) <= 2**-8 * 1.001  # half a step of 8 bits


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_gives_the_same_either_way(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for there in (True, False):
        if not there:
            monkeypatch.setattr(kernels, "passes", lambda dtype: None)
        model = initialise(Transformer(Shape(32, 3, 4, 2, 48, 61, tied=True)), 0)
        model.dtype = dtype
        hidden = model(torch.arange(1, 31), Layout.of([12, 18]))
        (hidden.float() @ model.head.t()).square().sum().backward()
        found.append([hidden.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    exact = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.02}
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, **exact)


def test_what_it_is_not_made_for_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    run, inputs = norm(torch.float64)
    wide = [x.double() for x in inputs]
    assert run(*wide)[0].dtype == torch.float64
    assert torch.autograd.gradcheck(lambda a, b: kernels.swiglu(a, b), [x[:3].requires_grad_() for x in wide[::2]])
    assert native.passes(torch.float64) is None


def test_without_a_compiler_there_is_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, value in (("AYNI_NATIVE", "0"), ("CC", "false"), ("CC", str(tmp_path / "nothing"))):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            native.passes.cache_clear()
            assert native.passes(torch.float32) is None
    (tmp_path / "file").write_text("no directory")
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        native.passes.cache_clear()
        assert native.passes(torch.float32) is None
    native.passes.cache_clear()
    assert native.passes(torch.float32) is not None
    # compiled once: the second process finds it
    (made,) = (tmp_path / "ayni").iterdir()
    torn = tmp_path / "other" / "ayni" / made.name
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"torn")
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        native.passes.cache_clear()
        assert native.passes(torch.float32) is None
    assert not torn.exists()  # so the next process makes it anew
    native.passes.cache_clear()
