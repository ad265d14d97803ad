"""A step of decoding, and a prompt's reading, on one core, in C (ayni/model/step.c): the whole model by one call.

There where native.c could be compiled; elsewhere, and where several cores share a product, they are torch's operations
(ayni.rollout.decoder).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ayni.model.native import passes
from ayni.model.shape import Shape

LANES = 16  # of which a head's size is a multiple
WIDEST = 128  # head that its registers hold


class _Shape(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_long) for name in ("layers", "dim", "heads", "kv_heads", "size", "hidden", "vocab")),
        ("eps", ctypes.c_float),
        ("rotations", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
    ]


class Step:
    """The weights in panels, in the order in which they are read: qkv, out, up and down of each layer; the head."""

    def __init__(self, shape: Shape, rotations: Tensor, dtype: torch.dtype | None) -> None:
        self.shape, self.rotations = shape, torch.view_as_real(rotations).contiguous()
        self.panels: list[Tensor] = []
        fits = shape.head_dim % LANES == 0 and shape.head_dim <= WIDEST and shape.hidden % 2 == 0
        compiled = passes(dtype) if dtype is not None and fits else None
        self.compiled = compiled if compiled is not None and compiled.panel_pays() else None

    def keep(self, weights: Sequence[Tensor]) -> None:
        """The next weights, (out, in) each."""
        if self.compiled is None:
            return
        lanes, pair = self.compiled.panel_lanes(), self.compiled.panel_pair()
        for weight in weights:
            filled = F.pad(weight, (0, 0, 0, -len(weight) % lanes))
            panels = filled.view(-1, lanes, weight.shape[1] // pair, pair)
            self.panels.append(panels.transpose(1, 2).contiguous())

    def kept(self, place: int, outputs: int) -> Tensor:
        """The weight (outputs, in) that was kept as number `place`."""
        return self.panels[place].transpose(1, 2).flatten(2).flatten(0, 1)[:outputs]

    def __call__(
        self,
        stream: Tensor,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        slots: Tensor,
        positions: Tensor,
        asked: int | None = None,
    ) -> Tensor:
        """Embeddings (R, D) of tokens at `positions` (R,) of `slots` (R,), behind those of its slot that each sees →
        logits (asked, V) of the last rows, or of all (R, V); both fp32."""
        shape, rows, length = self.shape, len(stream), keys[0].shape[2]
        asked = rows if asked is None else asked
        weights = _pointers(self.panels)
        of = _Shape(
            shape.layers,
            shape.dim,
            shape.heads,
            shape.kv_heads,
            shape.head_dim,
            shape.hidden,
            shape.vocab,
            shape.norm_eps,
            self.rotations.data_ptr(),
            ctypes.addressof(weights),
        )
        wide = (2 * shape.heads + 2 * shape.kv_heads) * shape.head_dim + 3 * shape.dim + 3 * shape.hidden
        widest = max(shape.dim, shape.hidden)
        scratch = torch.empty(rows * (wide + widest) + length + LANES)
        logits = torch.empty(asked, shape.vocab)
        caches = _pointers([x for pair in zip(keys, values, strict=True) for x in pair])
        pointers = (slots.data_ptr(), positions.data_ptr(), ctypes.addressof(caches))
        assert self.compiled is not None
        self.compiled.decode(
            ctypes.addressof(of),
            rows,
            asked,
            length,
            *pointers,
            stream.data_ptr(),
            scratch.data_ptr(),
            logits.data_ptr(),
        )
        return logits


def can_draw(logits: Tensor) -> bool:
    return logits.device.type == "cpu" and logits.dtype == torch.float32 and passes(torch.float32) is not None


def draw(logits: Tensor, uniform: Tensor, temperatures: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens and log-probs, (B,), as ayni.rollout.sampling.choose draws them from all or greedily; in one pass."""
    rows, vocab = logits.shape
    logits = logits.contiguous()
    tokens, logprobs, scratch = torch.empty(rows, dtype=torch.long), torch.empty(rows), torch.empty(vocab)
    given = (logits.data_ptr(), temperatures.data_ptr(), uniform.data_ptr())
    library = passes(torch.float32)
    assert library is not None  # who asks has looked
    library.draw(rows, vocab, *given, scratch.data_ptr(), tokens.data_ptr(), logprobs.data_ptr())
    return tokens, logprobs


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors))
