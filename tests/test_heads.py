"""Heads on chosen columns: log-probabilities without (T, V) logits, and the scalar head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ayni.model import heads
from ayni.model.heads import column_values, sequence_scores, token_logprobs
from ayni.model.layout import Layout
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise

COLUMNS, WIDTH, VOCAB = 13, 5, 7


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(COLUMNS, WIDTH, generator=generator, dtype=dtype).requires_grad_()
    head = torch.randn(VOCAB, WIDTH, generator=generator, dtype=dtype).requires_grad_()
    targets = torch.randint(0, VOCAB, (COLUMNS,), generator=generator)
    mask = torch.rand(COLUMNS, generator=generator) < 0.6
    return hidden, head, targets, mask


def plainly(hidden: Tensor, head: Tensor, targets: Tensor, mask: Tensor, temperature: float) -> Tensor:
    logprobs = torch.log_softmax(hidden @ head.t() / temperature, -1)
    return logprobs.gather(-1, targets[:, None]).squeeze(-1)[mask]


@pytest.mark.parametrize("elements", [1, VOCAB, 3 * VOCAB, 1 << 22])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_equal_log_softmax_in_chunks_of_any_size(
    monkeypatch: pytest.MonkeyPatch, elements: int, temperature: float
) -> None:
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", elements)
    results = []
    for function in (token_logprobs, plainly):
        hidden, head, targets, mask = inputs()
        out = function(hidden, head, targets, mask, temperature)
        (out * torch.linspace(-1, 2, len(out), dtype=out.dtype)).sum().backward()
        results.append((out.detach(), hidden.grad, head.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_gradients_against_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", 2 * VOCAB)
    hidden, head, targets, mask = inputs()
    assert torch.autograd.gradcheck(lambda h, w: token_logprobs(h, w, targets, mask, 0.7), (hidden, head))


def test_columns_outside_the_mask_get_no_gradient() -> None:
    hidden, head, targets, mask = inputs()
    token_logprobs(hidden, head, targets, mask).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad[~mask].abs().max() == 0
    assert (hidden.grad[mask].abs().amax(-1) > 0).all()


def test_an_empty_mask_still_joins_the_graph() -> None:
    hidden, head, targets, mask = inputs(torch.bfloat16)
    out = token_logprobs(hidden, head, targets, torch.zeros_like(mask))
    assert out.shape == (0,)
    assert out.dtype == torch.float32
    out.sum().backward()  # a rank without work must still take part in every reduction
    assert hidden.grad is not None
    assert head.grad is not None
    assert hidden.grad.abs().max() == head.grad.abs().max() == 0


def test_bf16_hidden_states_give_fp32_logprobs() -> None:
    hidden, head, targets, mask = inputs(torch.float32)
    exact = token_logprobs(hidden, head, targets, mask)
    rough = token_logprobs(hidden.bfloat16(), head, targets, mask)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)
    rough.sum().backward()
    assert head.grad is not None
    assert head.grad.dtype == torch.float32


def test_scores_are_read_at_the_last_token_of_every_sequence() -> None:
    shape = Shape(dim=16, layers=1, heads=2, kv_heads=2, hidden=24, vocab=31, head="score")
    model = initialise(Transformer(shape), 0)
    layout = Layout.of([4, 1, 6])
    hidden = model(torch.arange(11), layout)
    scores = sequence_scores(model, hidden, layout)
    torch.testing.assert_close(scores, (hidden @ model.head[0])[[3, 4, 10]])
    alone = Layout.of([6])
    torch.testing.assert_close(scores[2:], sequence_scores(model, model(torch.arange(5, 11), alone), alone))


def test_the_scalar_head_runs_in_fp32_on_bf16_states() -> None:
    shape = Shape(dim=16, layers=1, heads=2, kv_heads=2, hidden=24, vocab=31, head="score")
    model = initialise(Transformer(shape), 0)
    hidden = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    values = column_values(model, hidden, torch.tensor([4, 0]))
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, (hidden.float() @ model.head[0])[[4, 0]])


def test_column_values_have_gradients_against_finite_differences() -> None:
    shape = Shape(dim=4, layers=1, heads=1, kv_heads=1, hidden=4, vocab=5, head="score")
    model = initialise(Transformer(shape), 0).double()
    hidden = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: column_values(model, h, torch.tensor([5, 1, 2])), (hidden,))
