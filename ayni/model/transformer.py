"""The Llama 2 transformer (paper §2.2): RMSNorm, SwiGLU, rotary positions, grouped-query attention. Only a model.

It reads flat tokens (T,) and a place to attend in: a `Layout` in training, a cache in decoding. It returns hidden
states (T, D); heads are applied outside, only to the columns that count. Parameters carry Meta's names.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ayni.model.columns import put, take
from ayni.model.dropout import ColumnDropout, Dropout
from ayni.model.kernels import add_norm, rotate, swiglu
from ayni.model.products import linear
from ayni.model.shape import Shape
from ayni.model.stored import Base


class AttentionContext(Protocol):
    """Where tokens stand and what they may see."""

    @property
    def positions(self) -> Tensor: ...

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


class Linear(nn.Linear):
    """No bias; computes in the dtype of its input, keeps its weight in its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # Adam moves fp32 weights, matrix units multiply bf16: a cast at every use
        return linear(x, self.weight.to(x.dtype))

    def matrix(self) -> Tensor:
        """(out, in): what it multiplies by."""
        return self.weight


class RMSNorm(nn.Module):
    """x·rsqrt(mean(x²) + ε)·weight, in the dtype of the residual stream (at least fp32)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.added(x, None, x.dtype)[1]

    def added(self, stream: Tensor, branch: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """stream + branch, and its norm in `dtype`."""
        return add_norm(stream, branch, self.weight, self.eps, dtype)


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        self.wq = Linear(shape.dim, shape.heads * shape.head_dim)
        self.wk = Linear(shape.dim, shape.kv_heads * shape.head_dim)
        self.wv = Linear(shape.dim, shape.kv_heads * shape.head_dim)
        self.wo = Linear(shape.heads * shape.head_dim, shape.dim)

    def forward(
        self, x: Tensor, rotation: Tensor, context: AttentionContext, layer: int, asked: Tensor | None
    ) -> Tensor:
        # whoever is not asked answers nothing, but all others may look at it: it has a key and a value
        queries = put(self.wq(take(x, asked)), asked, len(x))
        q, k, v = (y.unflatten(-1, (-1, self.head_dim)) for y in (queries, self.wk(x), self.wv(x)))
        attended = context.attend(layer, rotate(q, rotation), rotate(k, rotation), v)
        return self.wo(take(attended.flatten(1), asked))


class FeedForward(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.w1 = Linear(shape.dim, shape.hidden)
        self.w2 = Linear(shape.hidden, shape.dim)
        self.w3 = Linear(shape.dim, shape.hidden)

    def forward(self, x: Tensor) -> Tensor:
        # w1 is the gate, w3 the value
        return self.w2(swiglu(self.w1(x), self.w3(x)))


class Block(nn.Module):
    """The stream so far and a branch that is not added yet → the same of the next block, at the `asked` columns alone.

    Residuals are added in the dtype of the stream, branches run in the compute dtype.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.feed_forward = FeedForward(shape)
        self.attention_norm = RMSNorm(shape.dim, shape.norm_eps)
        self.ffn_norm = RMSNorm(shape.dim, shape.norm_eps)

    def forward(
        self,
        stream: Tensor,
        branch: Tensor | None,
        rotation: Tensor,
        context: AttentionContext,
        layer: int,
        dtype: torch.dtype,
        columns: ColumnDropout | None = None,
        asked: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        # norms stand inside the branches: nothing ever scales the stream itself (§2.2, pre-normalisation)
        stream, x = self.attention_norm.added(stream, branch, dtype)
        attended, stream = self.attention(x, rotation, context, layer, asked), take(stream, asked)
        if columns is not None:
            columns = columns.at(asked)
            attended = columns.drop(attended, layer, 0)
        stream, x = self.ffn_norm.added(stream, attended, dtype)
        fed = self.feed_forward(x)
        return stream, fed if columns is None else columns.drop(fed, layer, 1)


class Transformer(nn.Module):
    """tokens (T,) and a context → hidden (T, D) in `dtype` (the parameters' own unless set); (M, D) of distinct
    columns `asked` (M,), behind whose last attention the other columns are not computed.

    With `recompute` only the blocks' inputs are kept for the backward pass, which computes the rest a second time
    (activation checkpointing, Chen et al. 2016): the same bits, a third more time.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.dtype: torch.dtype | None = None
        self.recompute = False
        self.dropout: Dropout | None = None  # while a step of training computes its gradient, and never else
        self.base: Base | None = None  # the directory whose weights these are: what an adapter's file refers to
        self.tok_embeddings = nn.Embedding(shape.vocab, shape.dim)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.dim, shape.norm_eps)
        if shape.head == "score":
            self.score = Linear(shape.dim, 1)
        elif not shape.tied:
            self.output = Linear(shape.dim, shape.vocab)

    @property
    def head(self) -> Tensor:
        """The head's weight: (V, D) of a language model, (1, D) of a reward model or critic."""
        if self.shape.head == "score":
            return self.score.weight
        return self.tok_embeddings.weight if self.shape.tied else self.output.weight

    @property
    def device(self) -> torch.device:
        return self.tok_embeddings.weight.device

    def forward(self, tokens: Tensor, context: AttentionContext, asked: Tensor | None = None) -> Tensor:
        stream = self.tok_embeddings(tokens)
        dtype = self.dtype or stream.dtype
        # 2L branches add up in it: 8 bits of mantissa would round the small ones away
        if stream.dtype in (torch.bfloat16, torch.float16):
            stream = stream.float()
        # once for all layers: angles depend on positions alone
        rotation = self.rotary(context.positions, stream.dtype)
        columns = None if self.dropout is None else self.dropout.on(tokens, context.positions, len(self.layers))
        branch: Tensor | None = None
        for i, layer in enumerate(self.layers):
            last = i == len(self.layers) - 1
            inputs = (stream, branch, rotation, context, i, dtype, columns, asked if last else None)
            if self.recompute and torch.is_grad_enabled():
                # no random state in a block: none to put back
                stream, branch = checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)
            else:
                stream, branch = layer(*inputs)
        return self.norm.added(stream, branch, dtype)[1]

    def rotary(self, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """e^(i·pos·θ^(−2j/d)): (T, 1, d/2) complex, the angles in fp32 as Meta's."""
        half = torch.arange(0, self.shape.head_dim, 2, device=positions.device).float()
        angles = torch.outer(positions.float(), self.shape.theta ** (-half / self.shape.head_dim))
        return torch.polar(torch.ones_like(angles, dtype=dtype), angles.to(dtype)).unsqueeze(1)


def initialise(model: Transformer, seed: int) -> Transformer:
    """N(0, 0.02), residual outputs wo and w2 divided by √(2L). The paper is silent (docs/departures.md)."""
    # one generator for all, in the order of names: a parameter more moves every later draw
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
                continue
            residual = name.endswith(("wo.weight", "w2.weight"))
            # 2L branches add up in the stream; scaled so, their variance does not grow with depth (GPT-2)
            std = 0.02 / (2 * model.shape.layers) ** 0.5 if residual else 0.02
            parameter.copy_(torch.empty(parameter.shape).normal_(0, std, generator=generator))
    return model
