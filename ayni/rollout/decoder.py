"""The model as decoding reads it: laid out once per sync, so that a step runs few kernels.

Projections of one input stand side by side, the norms' gains are folded into what reads them, adapters are merged, and
all of it is in the compute dtype. Its answers are the model's to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ayni.model.columns import take
from ayni.model.kernels import add_norm, rotate, swiglu
from ayni.model.transformer import AttentionContext, Block, Linear, RMSNorm, Transformer
from ayni.rollout.step import Step

FEW_ROWS = 16  # what weights are packed for: a step of a few slots waits for them most
SMALL = 1 << 26  # bytes of weights: one core reads them before several have been woken for each product
Product = Callable[[Tensor], Tensor]  # x ↦ x·weightᵀ


@dataclass(frozen=True, slots=True)
class _Block:
    qkv: Product  # D → (H + 2·KV)·d
    out: Product  # H·d → D
    up: Product  # D → 2·F: gate, then value
    down: Product  # F → D


class Decoder:
    """tokens (T,) and a context → hidden (T, D), of the columns `asked` alone (M, D), as a Transformer; the last norm's
    gain is in `logits`."""

    def __init__(self, model: Transformer) -> None:
        self.shape, self.device = model.shape, model.device
        self._layers: list[_Block] = []
        self._head: Product | None = None
        self.read(model)

    @torch.no_grad()
    def read(self, model: Transformer) -> None:
        """Takes the weights as they are now; a block's old ones are let go before the next block's are made."""
        self.dtype = model.dtype or model.tok_embeddings.weight.dtype
        table = model.tok_embeddings.weight
        self.embeddings = table.detach().to(self.dtype, copy=table.requires_grad)
        self.stream = torch.promote_types(self.dtype, torch.float32)  # residuals are added in it
        self.gain = torch.ones(
            self.shape.dim, dtype=self.stream, device=self.device
        )  # the true one is in what reads it
        everywhere = torch.arange(self.shape.context, device=self.device)
        self.rotations = model.rotary(everywhere, self.stream)
        self.native = Step(self.shape, self.rotations, self.dtype if self.device.type == "cpu" else None)
        for i, block in enumerate(model.layers):
            assert isinstance(block, Block)
            weights = [weight.to(self.dtype) for weight in _read_together(block)]
            if self.native.compiled is None:
                self._layers[i : i + 1] = [_Block(*map(product, weights))]
            self.native.keep(weights)
        head = _gained(model.head, model.norm).to(self.dtype)
        self._head = product(head) if self.native.compiled is None else None
        self.native.keep([head])

    @property
    def bytes(self) -> int:
        """Of the weights that one step reads."""
        shape = self.shape
        block = shape.dim * (2 * (shape.heads + shape.kv_heads) * shape.head_dim + 3 * shape.hidden)
        return (shape.layers * block + shape.vocab * shape.dim) * self.dtype.itemsize

    @property
    def alone(self) -> bool:
        """Whether the thread that asks is best served by `step`: it has one core, or the weights are few."""
        return self.native.compiled is not None and (torch.get_num_threads() == 1 or self.bytes <= SMALL)

    def _products(self) -> tuple[list[_Block], Product]:
        """All that torch's operations read; laid out when they are first asked for where steps read panels."""
        if self._head is None:
            shape, kept = self.shape, self.native.kept
            wide = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
            outputs = (wide, shape.dim, 2 * shape.hidden, shape.dim)
            self._layers = [
                _Block(*(product(kept(4 * i + place, size)) for place, size in enumerate(outputs)))
                for i in range(shape.layers)
            ]
            self._head = product(kept(4 * shape.layers, shape.vocab))
        return self._layers, self._head

    @torch.no_grad()
    def __call__(self, tokens: Tensor, context: AttentionContext, asked: Tensor | None = None) -> Tensor:
        stream, branch = self.embeddings[tokens].to(self.stream), None
        rotation = self.rotations[context.positions]
        layers, _ = self._products()
        for i, layer in enumerate(layers):
            stream, x = self._added(stream, branch)
            attended = self._attended(layer.qkv(x), rotation, context, i)
            if layer is layers[-1]:
                stream, attended = take(stream, asked), take(attended, asked)
            stream, x = self._added(stream, layer.out(attended))
            branch = layer.down(swiglu(*layer.up(x).chunk(2, -1)))
        return self._added(stream, branch)[1]

    def step(
        self,
        tokens: Tensor,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        slots: Tensor,
        at: Tensor,
        asked: int | None = None,
    ) -> Tensor:
        """One core's step: tokens (R,) of some slots (R,), at their positions (R,), a slot's in their order → logits
        (asked, V) of the last of them, or of all."""
        return self.native(self.embeddings[tokens].to(self.stream), keys, values, slots, at, asked)

    def logits(self, hidden: Tensor) -> Tensor:
        """(T, D) → (T, V)."""
        return self._products()[1](hidden)

    def _added(self, stream: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor]:
        return add_norm(stream, branch, self.gain, self.shape.norm_eps, self.dtype)

    def _attended(self, qkv: Tensor, rotation: Tensor, context: AttentionContext, layer: int) -> Tensor:
        shape = self.shape
        heads = qkv.view(len(qkv), -1, shape.head_dim)
        turned, v = heads.split([shape.heads + shape.kv_heads, shape.kv_heads], 1)
        # q and k turn together
        q, k = rotate(turned, rotation).split([shape.heads, shape.kv_heads], 1)
        return context.attend(layer, q, k, v).flatten(1)


def _read_together(block: Block) -> list[Tensor]:
    """The weights of _Block's products, (out, in)."""
    attention, feed_forward = block.attention, block.feed_forward
    return [
        _gained(_stacked(attention.wq, attention.wk, attention.wv), block.attention_norm),
        attention.wo.matrix(),
        _gained(_stacked(feed_forward.w1, feed_forward.w3), block.ffn_norm),
        feed_forward.w2.matrix(),
    ]


def _stacked(*projections: Linear) -> Tensor:
    """One below the other: a single product gives what all of them give."""
    return torch.cat([projection.matrix() for projection in projections])


def _gained(weight: Tensor, norm: RMSNorm) -> Tensor:
    """The weight (out, D) that reads the norm's output without its gain; at least fp32, to be rounded once."""
    return weight.to(torch.promote_types(weight.dtype, torch.float32)) * norm.weight


def product(weight: Tensor) -> Product:
    """x ↦ x·weightᵀ for a weight (out, in) that stays as it is: packed once where that pays (docs/performance.md).

    What is kept is a copy, whatever becomes of the weight.
    """
    if weight.device.type != "cpu":
        kept = weight.clone()
        return lambda x: F.linear(x, kept)
    if weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), FEW_ROWS)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    transposed = weight.t().contiguous()
    return lambda x: x @ transposed
