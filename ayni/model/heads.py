"""Heads, applied only to the columns that count and never as one (T, V) block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ayni.model.layout import Layout
from ayni.model.rounding import resize, rounded
from ayni.model.transformer import Transformer

CHUNK_ELEMENTS = 1 << 20  # logits at a time: 4 MiB of fp32, what a core's cache holds


def at_least_fp32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def token_logprobs(hidden: Tensor, head: Tensor, targets: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(target | prefix) at the M columns where mask is True: hidden (T, D), head (V, D) → (M,), at least fp32.

    Logits are divided by `temperature` as the sampler's are. They live a chunk at a time and are computed again in
    the backward pass.
    """
    columns = mask.nonzero().squeeze(-1)
    if len(columns) == 0:
        return at_least_fp32(hidden.sum() * 0 + head.sum() * 0).expand(0)
    # few shapes here too: the columns that count are another number in every batch
    filled = rounded(len(columns), hidden.dtype, hidden.device)
    rows, wanted = resize(Rows.apply(hidden, columns), filled), resize(targets[columns], filled)
    return _TokenLogprobs.apply(rows, head, wanted, temperature)[: len(columns)]


class Rows(torch.autograd.Function):
    """x[columns] for distinct columns; the gradient is a copy, not an accumulation (which crawls on a CPU)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(columns)
        ctx.shape = x.shape
        return x.index_select(0, columns)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (columns,) = ctx.saved_tensors
        return grads[0].new_zeros(ctx.shape).index_copy_(0, columns, grads[0]), None


class _TokenLogprobs(torch.autograd.Function):
    """A tile of the vocabulary at a time, over all rows: each of the head's rows is read, cast and given its gradient
    once, however many tokens there are."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float) -> Tensor:
        of_targets = norms = at_least_fp32(hidden.new_full((len(hidden),), float("-inf")))
        for tile in _tiles(len(head), len(hidden)):
            logits = _logits(hidden, head[tile], temperature)
            inside, at = _within(targets, tile)
            of_targets = torch.where(inside, logits.gather(-1, at).squeeze(-1), of_targets)
            # kept instead of the logits: (M,) numbers where those would be (M, V)
            most = logits.amax(-1)
            norms = torch.logaddexp(norms, logits.sub_(most[:, None]).exp_().sum(-1).log_().add_(most))
        ctx.save_for_backward(hidden, head, targets, norms)
        ctx.temperature = temperature
        return of_targets - norms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        hidden, head, targets, norms = ctx.saved_tensors
        # it adds up over the tiles, in at least fp32
        grad_hidden = torch.zeros_like(hidden, dtype=norms.dtype)
        grad_head = torch.empty_like(head) if ctx.needs_input_grad[1] else None  # an adapter's trunk is frozen
        scaled = grads[0] / ctx.temperature
        for tile in _tiles(len(head), len(hidden)):
            weight = head[tile].to(hidden.dtype)
            logits = _logits(hidden, weight, ctx.temperature)
            inside, at = _within(targets, tile)
            # d log p(y) / d logits = onehot(y) − softmax
            grad = logits.sub_(norms[:, None]).exp_().mul_(-scaled[:, None])
            grad.scatter_add_(1, at, (scaled * inside)[:, None])
            # both products in the compute dtype
            grad = grad.to(hidden.dtype)
            grad_hidden += grad @ weight
            if grad_head is not None:
                grad_head[tile] = grad.t() @ hidden
        return grad_hidden.to(hidden.dtype), grad_head, None, None


def _tiles(vocab: int, rows: int) -> list[slice]:
    """Slices of the vocabulary, so wide that all rows' logits of one are CHUNK_ELEMENTS numbers."""
    width = max(1, CHUNK_ELEMENTS // rows)
    return [slice(start, min(start + width, vocab)) for start in range(0, vocab, width)]


def _logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """A fresh tensor, at least fp32."""
    logits = at_least_fp32(hidden @ weight.to(hidden.dtype).t())
    return logits if temperature == 1 else logits.div_(temperature)


def _within(targets: Tensor, tile: slice) -> tuple[Tensor, Tensor]:
    """Which targets lie in the tile (M,), and where there (M, 1); of the others any place."""
    inside = (targets >= tile.start) & (targets < tile.stop)
    return inside, (targets - tile.start).clamp_(0, tile.stop - tile.start - 1)[:, None]


def sequence_scores(model: Transformer, hidden: Tensor, layout: Layout) -> Tensor:
    """The reward model's raw score of every sequence, read at its last token: (N,), at least fp32."""
    return column_values(model, hidden, layout.ends)


def column_values(model: Transformer, hidden: Tensor, columns: Tensor) -> Tensor:
    """The scalar head at these columns: (M,), at least fp32. The head runs in fp32 whatever the trunk's dtype."""
    rows = Rows.apply(hidden, columns)
    return (at_least_fp32(rows) @ at_least_fp32(model.head).t()).squeeze(-1)


def token_kl(
    hidden_p: Tensor, head_p: Tensor, hidden_q: Tensor, head_q: Tensor, mask: Tensor, temperature: float = 1.0
) -> Tensor:
    """KL(p‖q) over the whole vocabulary at the M columns where mask is True, exactly: (M,), in nats, at least fp32.

    hidden (T, D), head (V, D); D of p and q may differ. Both logits are divided by `temperature`. Only q learns: p is
    taken as it is. Logits live a chunk at a time and are computed again in the backward pass. Differentiated twice, as
    for the Fisher matrix of a small model, all of them are kept.
    """
    columns = mask.nonzero().squeeze(-1)
    if len(columns) == 0:
        return at_least_fp32(hidden_q.sum() * 0 + head_q.sum() * 0).expand(0)
    # p is π_old: a gradient to it would be of another quantity
    p, q = hidden_p.detach().index_select(0, columns), Rows.apply(hidden_q, columns)
    filled = max(rounded(len(columns), x.dtype, x.device) for x in (p, q))
    return _TokenKL.apply(resize(p, filled), head_p.detach(), resize(q, filled), head_q, temperature)[: len(columns)]


class _TokenKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_p: Tensor, head_p: Tensor, hidden_q: Tensor, head_q: Tensor, temperature: float
    ) -> Tensor:
        ctx.chunk, ctx.temperature = max(1, CHUNK_ELEMENTS // (2 * len(head_q))), temperature
        out = []
        for start in range(0, len(hidden_q), ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            p, q = _both_logprobs(hidden_p[rows], head_p, hidden_q[rows], head_q, temperature)
            out.append((p.exp() * (p - q)).sum(-1))
        ctx.save_for_backward(hidden_p, head_p, hidden_q, head_q)  # inputs alone: the second derivative needs that
        return torch.cat(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor, Tensor | None, None]:
        hidden_p, head_p, hidden_q, head_q = ctx.saved_tensors
        weight = head_q.to(hidden_q.dtype)
        grad_hidden = torch.empty_like(hidden_q)
        grad_head = torch.zeros_like(head_q) if ctx.needs_input_grad[3] else None
        scaled = grads[0] / ctx.temperature
        for start in range(0, len(hidden_q), ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            p, q = _both_logprobs(hidden_p[rows], head_p, hidden_q[rows], head_q, ctx.temperature)
            # d KL / d logits of q = (softmax q − softmax p) / temperature
            grad = ((q.exp() - p.exp()) * scaled[rows, None]).to(hidden_q.dtype)
            grad_hidden[rows] = grad @ weight
            if grad_head is not None:
                grad_head += (grad.t() @ hidden_q[rows]).to(head_q.dtype)
        return None, None, grad_hidden, grad_head, None


def _both_logprobs(
    hidden_p: Tensor, head_p: Tensor, hidden_q: Tensor, head_q: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """log softmax of p and of q, in one dtype: (rows, V) each."""
    p, q = (
        (at_least_fp32(hidden @ head.to(hidden.dtype).t()) / temperature).log_softmax(-1)
        for hidden, head in ((hidden_p, head_p), (hidden_q, head_q))
    )
    return p.to(q.dtype), q
