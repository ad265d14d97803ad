"""Products of training: x·Wᵀ, and the g·W and gᵀ·x of its gradient.

By product.c where that pays: in fp32 on one thread (the lanes of a step) of an AMD processor with AVX-512, where it
takes four fifths of the time of torch's, which come from Intel's library. That the results agree is a test.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ayni.model.native import passes

WIDTH = 16  # columns of a vector: what product.c multiplies has a multiple of them
FEWEST = 64  # rows for which laying out the weights pays


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x·Wᵀ: x (T, in), weight (out, in) in the same dtype."""
    if x.dim() == 2 and len(x) >= FEWEST and len(weight) % WIDTH == 0 and _ours(x, weight):
        return _Linear.apply(x, weight) if torch.is_grad_enabled() else _multiplied(x, weight, turned=True)
    return F.linear(x, weight)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _multiplied(x, weight, turned=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        g, asked = grads[0], ctx.needs_input_grad
        return times_weight(g, weight) if asked[0] else None, crossed(g, x) if asked[1] else None


def times(x: Tensor, weight: Tensor) -> Tensor:
    """x·Wᵀ (T, out), without a gradient."""
    if len(weight) % WIDTH or not _ours(x, weight):
        return x @ weight.t()
    return _multiplied(x, weight, turned=True)


def times_weight(g: Tensor, weight: Tensor) -> Tensor:
    """g·W (T, in): g (T, out), weight (out, in)."""
    if not _ours(g, weight):
        return g @ weight
    return _multiplied(g, weight, turned=False)


def crossed(g: Tensor, x: Tensor) -> Tensor:
    """gᵀ·x (out, in): g (T, out), x (T, in)."""
    if not _ours(g, x):
        return g.t() @ x
    g, x = g.contiguous(), x.contiguous()
    (tokens, outputs), inputs = g.shape, x.shape[1]
    found, library = torch.empty(outputs, inputs), _library()
    assert library is not None  # _ours has looked
    room = torch.empty(library.product_room(inputs, outputs))
    library.weigh(tokens, inputs, outputs, g.data_ptr(), x.data_ptr(), found.data_ptr(), room.data_ptr())
    return found


def _multiplied(x: Tensor, weight: Tensor, *, turned: bool) -> Tensor:
    x, weight = x.contiguous(), weight.contiguous()
    (rows, inputs), outputs = x.shape, weight.shape[0 if turned else 1]
    found, library = torch.empty(rows, outputs), _library()
    assert library is not None  # _ours has looked
    room = torch.empty(library.product_room(inputs, outputs))
    pointers = (x.data_ptr(), weight.data_ptr(), int(turned), found.data_ptr(), room.data_ptr())
    library.multiply(rows, inputs, outputs, *pointers)
    return found


def _ours(*factors: Tensor) -> bool:
    return (
        all(each.dtype == torch.float32 and each.device.type == "cpu" and len(each) for each in factors)
        and all(each.shape[1] % WIDTH == 0 for each in factors)
        and torch.get_num_threads() == 1
        and _library() is not None
    )


@cache
def _library() -> ctypes.CDLL | None:
    """None where torch's products are as fast: Intel's library's on Intel's processors, and by shorter vectors."""
    try:
        amd = "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        amd = False
    library = passes(torch.float32) if amd else None
    return library if library is not None and library.panel_lanes() == WIDTH else None
