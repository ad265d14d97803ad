"""What a block does between its products: residual sum and norm, SwiGLU, rotary positions.

Each reads and writes memory once where native.c could be compiled (fp32 and bf16 on a CPU; that the results agree is a
test), and is torch's operations elsewhere, which pass over it five to ten times.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ayni.model.native import passes


def _has_native(x: Tensor, dtype: torch.dtype) -> bool:
    return x.device.type == "cpu" and passes(dtype) is not None


def _native(dtype: torch.dtype) -> ctypes.CDLL:
    found = passes(dtype)
    assert found is not None  # who asks has looked
    return found


def _applied(function: type[torch.autograd.Function], *inputs: Any) -> Any:
    # a step of decoding is short: remembering nothing saves it a tenth
    return function.apply(*inputs) if torch.is_grad_enabled() else function.forward(_Nothing(), *inputs)


class _Nothing:
    """A context that keeps nothing."""

    def save_for_backward(self, *tensors: Tensor) -> None: ...
    def set_materialize_grads(self, value: bool) -> None: ...


def add_norm(
    stream: Tensor, branch: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """(stream + branch, its RMSNorm in `dtype`): stream (T, D) at least fp32, branch (T, D) in `dtype` or none."""
    if stream.dtype == torch.float32 and _has_native(stream, dtype):
        summed, normed = _applied(_AddNorm, stream, branch, weight, eps, dtype)
        return summed, normed
    summed = stream if branch is None else stream + branch
    return summed, F.rms_norm(summed, summed.shape[-1:], weight.to(summed.dtype), eps).to(dtype)


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, stream: Tensor, branch: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        stream, weight = stream.contiguous(), weight.float()
        rows, dim = stream.shape
        summed = stream.view_as(stream) if branch is None else torch.empty_like(stream)
        normed, scales = torch.empty(rows, dim, dtype=dtype), torch.empty(rows)
        branch = None if branch is None else branch.to(dtype).contiguous()
        pointers = (summed.data_ptr(), normed.data_ptr(), scales.data_ptr())
        _native(dtype).add_norm(rows, dim, stream.data_ptr(), _pointer(branch), weight.data_ptr(), eps, *pointers)
        ctx.save_for_backward(summed, weight, scales)
        ctx.dtype, ctx.branches = dtype, branch is not None
        # the stream behind the last norm is nobody's
        ctx.set_materialize_grads(False)
        return summed, normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        summed, weight, scales = ctx.saved_tensors
        of_stream, of_normed = (None if g is None else g.contiguous() for g in grads)
        if of_normed is None:
            return of_stream, of_stream if ctx.branches else None, None, None, None
        rounds = ctx.branches and ctx.dtype != torch.float32
        d_stream, d_weight = torch.empty_like(summed), torch.zeros_like(weight)
        d_branch = torch.empty_like(summed, dtype=ctx.dtype) if rounds else d_stream
        _native(ctx.dtype).add_norm_backward(
            *summed.shape,
            of_normed.data_ptr(),
            _pointer(of_stream),
            summed.data_ptr(),
            weight.data_ptr(),
            scales.data_ptr(),
            d_stream.data_ptr(),
            d_branch.data_ptr() if rounds else None,
            d_weight.data_ptr(),
        )
        return d_stream, d_branch if ctx.branches else None, d_weight, None, None


def swiglu(gate: Tensor, value: Tensor) -> Tensor:
    """silu(gate)·value, both (T, F) (Shazeer 2020)."""
    alike = (gate.dtype, gate.stride()) == (value.dtype, value.stride()) and gate.stride(1) == 1
    if alike and _has_native(gate, gate.dtype):
        return _applied(_SwiGLU, gate, value)
    return F.silu(gate) * value


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, value: Tensor) -> Tensor:
        out = torch.empty(gate.shape, dtype=gate.dtype)
        pointers = (gate.data_ptr(), value.data_ptr(), out.data_ptr())
        _native(gate.dtype).swiglu(*gate.shape, gate.stride(0), *pointers)
        ctx.save_for_backward(gate, value)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        g, gate, value = (x.contiguous() for x in (grads[0], *ctx.saved_tensors))
        d_gate, d_value = torch.empty_like(gate), torch.empty_like(value)
        pointers = (x.data_ptr() for x in (g, gate, value, d_gate, d_value))
        _native(gate.dtype).swiglu_backward(gate.numel(), *pointers)
        return d_gate, d_value


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary positions on adjacent pairs as complex numbers, as Meta does: x (T, H, d), rotation (T, 1, d/2)."""
    if rotation.dtype == torch.complex64 and _has_native(x, x.dtype):
        return _applied(_Rotate, x, torch.view_as_real(rotation).contiguous())
    # bf16 has no complex numbers: pairs turn in fp32 and are rounded once, after it
    pairs = torch.view_as_complex(x.to(rotation.real.dtype).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rotation: Tensor) -> Tensor:
        ctx.save_for_backward(rotation)
        return _turned(x, rotation, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (rotation,) = ctx.saved_tensors
        return _turned(grads[0], rotation, -1), None


def _turned(x: Tensor, rotation: Tensor, direction: int) -> Tensor:
    rows, heads, size = x.shape
    if x.stride()[1:] != (size, 1):
        x = x.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype)
    pointers = (x.data_ptr(), rotation.data_ptr(), direction, out.data_ptr())
    _native(x.dtype).rotate(rows, heads, size // 2, x.stride(0), *pointers)
    return out


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
