"""Heads, applied to the hidden states of the columns that count alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ayni.model.products import WIDTH, crossed, times, times_weight
from ayni.model.rounding import resize, rounded
from ayni.model.transformer import Transformer

CHUNK_ELEMENTS = 1 << 20  # logits at a time: 4 MiB of fp32, what a core's cache holds
KEPT = 1 << 24  # logits that wait for the backward pass: 64 MiB


def at_least_fp32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def token_logprobs(hidden: Tensor, head: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(target | prefix) at M columns: hidden (M, D), head (V, D), targets (M,) → (M,), at least fp32.

    Logits are divided by `temperature` as the sampler's are. More than KEPT of them live a chunk at a time and are
    computed again in the backward pass.
    """
    count = len(hidden)
    if count == 0:
        return at_least_fp32(hidden.sum() * 0 + head.sum() * 0).expand(0)
    # few shapes here too: the columns that count are another number in every batch
    filled = rounded(count, hidden.dtype, hidden.device)
    keeps = torch.is_grad_enabled() and filled * len(head) <= KEPT
    return _TokenLogprobs.apply(resize(hidden, filled), head, resize(targets, filled), temperature, keeps)[:count]


class _TokenLogprobs(torch.autograd.Function):
    """A tile of the vocabulary at a time, over all rows: each of the head's rows is read, cast and given its gradient
    once, however many tokens there are."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, keeps: bool) -> Tensor:
        of_targets = norms = at_least_fp32(hidden.new_full((len(hidden),), float("-inf")))
        kept: list[Tensor] = []
        for tile in _tiles(len(head), len(hidden)):
            logits = _logits(hidden, head[tile], temperature)
            inside, at = _within(targets, tile)
            of_targets = torch.where(inside, logits.gather(-1, at).squeeze(-1), of_targets)
            most = logits.amax(-1)
            weights = logits.sub_(most[:, None]).exp_()
            norms = torch.logaddexp(norms, weights.sum(-1).log_().add_(most))
            kept += [weights, most] if keeps else []
        ctx.save_for_backward(hidden, head, targets, norms, *kept)
        ctx.temperature = temperature
        return of_targets - norms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        hidden, head, targets, norms, *kept = ctx.saved_tensors
        # it adds up over the tiles, in at least fp32
        grad_hidden = torch.zeros_like(hidden, dtype=norms.dtype)
        grad_head = torch.empty_like(head) if ctx.needs_input_grad[1] else None  # an adapter's trunk is frozen
        scaled = grads[0] / ctx.temperature
        for number, tile in enumerate(_tiles(len(head), len(hidden))):
            weight = head[tile].to(hidden.dtype)
            inside, at = _within(targets, tile)
            # d log p(y) / d logits = onehot(y) − softmax
            if kept:
                weights, most = kept[2 * number : 2 * number + 2]
                grad = weights * ((most - norms).exp_() * -scaled)[:, None]
            else:
                logits = _logits(hidden, weight, ctx.temperature)
                grad = logits.sub_(norms[:, None]).exp_().mul_(-scaled[:, None])
            grad.scatter_add_(1, at, (scaled * inside)[:, None])
            # both products in the compute dtype
            grad = grad.to(hidden.dtype)
            grad_hidden += times_weight(grad, weight)
            if grad_head is not None:
                grad_head[tile] = crossed(grad, hidden)
        return grad_hidden.to(hidden.dtype), grad_head, None, None, None


def _tiles(vocab: int, rows: int) -> list[slice]:
    """Slices of the vocabulary, so wide that all rows' logits of one are at most CHUNK_ELEMENTS numbers."""
    width = max(1, CHUNK_ELEMENTS // rows)
    width -= width % WIDTH if width > WIDTH else 0  # a third faster than any other (docs/performance.md)
    return [slice(start, min(start + width, vocab)) for start in range(0, vocab, width)]


def _logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """A fresh tensor, at least fp32."""
    logits = at_least_fp32(times(hidden, weight.to(hidden.dtype)))
    return logits if temperature == 1 else logits.div_(temperature)


def _within(targets: Tensor, tile: slice) -> tuple[Tensor, Tensor]:
    """Which targets lie in the tile (M,), and where there (M, 1); of the others any place."""
    inside = (targets >= tile.start) & (targets < tile.stop)
    return inside, (targets - tile.start).clamp_(0, tile.stop - tile.start - 1)[:, None]


def column_values(model: Transformer, hidden: Tensor) -> Tensor:
    """The scalar head at M columns: (M, D) → (M,), at least fp32. It runs in fp32 whatever the trunk's dtype."""
    return (at_least_fp32(hidden) @ at_least_fp32(model.head).t()).squeeze(-1)


def token_kl(hidden_p: Tensor, head_p: Tensor, hidden_q: Tensor, head_q: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(p‖q) over the whole vocabulary at M columns, exactly: (M,), in nats, at least fp32.

    hidden (M, D), head (V, D); D of p and q may differ. Both logits are divided by `temperature`. Only q learns: p is
    taken as it is. Logits live a chunk at a time and are computed again in the backward pass. Differentiated twice, as
    for the Fisher matrix of a small model, all of them are kept.
    """
    count = len(hidden_q)
    if count == 0:
        return at_least_fp32(hidden_q.sum() * 0 + head_q.sum() * 0).expand(0)
    # π_old: a gradient to it would be of another quantity
    p, q = hidden_p.detach(), hidden_q
    filled = max(rounded(count, x.dtype, x.device) for x in (p, q))
    return _TokenKL.apply(resize(p, filled), head_p.detach(), resize(q, filled), head_q, temperature)[:count]


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
