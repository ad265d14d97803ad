"""Heads on chosen columns: log-probabilities without (T, V) logits, and the scalar head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ayni.model import heads
from ayni.model.heads import column_values, sequence_scores, token_kl, token_logprobs
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


def two_policies(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """hidden and head of p, three wide, and of q; and a mask."""
    generator = torch.Generator().manual_seed(1)
    sizes = ((COLUMNS, 3), (VOCAB, 3), (COLUMNS, WIDTH), (VOCAB, WIDTH))
    four = [torch.randn(*size, generator=generator, dtype=dtype).requires_grad_() for size in sizes]
    return four[0], four[1], four[2], four[3], torch.rand(COLUMNS, generator=generator) < 0.6


def plain_kl(
    hidden_p: Tensor, head_p: Tensor, hidden_q: Tensor, head_q: Tensor, mask: Tensor, temperature: float = 1.0
) -> Tensor:
    p, q = (torch.log_softmax(h @ w.t() / temperature, -1) for h, w in ((hidden_p, head_p), (hidden_q, head_q)))
    return torch.nn.functional.kl_div(q, p.detach(), log_target=True, reduction="none").sum(-1)[mask]


@pytest.mark.parametrize("elements", [1, 2 * VOCAB, 6 * VOCAB, 1 << 22])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_kl_equals_the_plain_one_in_chunks_of_any_size(
    monkeypatch: pytest.MonkeyPatch, elements: int, temperature: float
) -> None:
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", elements)
    results = []
    for function in (token_kl, plain_kl):
        *four, mask = two_policies()
        out = function(*four, mask, temperature)
        (out * torch.linspace(-1, 2, len(out), dtype=out.dtype)).sum().backward()
        results.append((out.detach(), four[2].grad, four[3].grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert (results[0][0] > 0).all()


def test_kl_gradients_against_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", 4 * VOCAB)
    hidden_p, head_p, hidden_q, head_q, mask = two_policies()
    assert torch.autograd.gradcheck(lambda h, w: token_kl(hidden_p, head_p, h, w, mask, 0.7), (hidden_q, head_q))


def test_kl_teaches_q_alone_and_only_inside_the_mask() -> None:
    hidden_p, head_p, hidden_q, head_q, mask = two_policies()
    token_kl(hidden_p, head_p, hidden_q, head_q, mask).sum().backward()
    assert hidden_p.grad is None
    assert head_p.grad is None
    assert hidden_q.grad is not None
    assert hidden_q.grad[~mask].abs().max() == 0
    assert (hidden_q.grad[mask].abs().amax(-1) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_kl_to_itself_is_exactly_zero_and_so_is_its_gradient(dtype: torch.dtype) -> None:
    _, _, hidden, head, mask = two_policies(dtype)
    out = token_kl(hidden, head, hidden, head, mask)
    out.sum().backward()
    assert out.dtype == heads.at_least_fp32(hidden).dtype
    assert hidden.grad is not None
    assert head.grad is not None
    assert out.abs().max() == hidden.grad.abs().max() == head.grad.abs().max() == 0


def test_kl_of_an_empty_mask_still_joins_the_graph() -> None:
    *four, mask = two_policies(torch.bfloat16)
    out = token_kl(*four, torch.zeros_like(mask))
    assert out.shape == (0,)
    assert out.dtype == torch.float32
    out.sum().backward()
    assert four[2].grad is not None
    assert four[3].grad is not None
    assert four[2].grad.abs().max() == four[3].grad.abs().max() == 0


def test_kl_of_bf16_hidden_states_is_fp32_and_its_filling_stays_inside() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(200, 8, generator=generator).bfloat16().requires_grad_() for _ in range(2))
    head = torch.randn(VOCAB, 8, generator=generator).requires_grad_()
    mask = torch.rand(200, generator=generator) < 0.7  # 128 rows and more are filled up to a round number
    rough = token_kl(p, head, q, head, mask)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, plain_kl(p.float(), head, q.float(), head, mask), rtol=0.05, atol=0.05)
    rough.sum().backward()
    assert q.grad is not None
    assert q.grad.dtype == torch.bfloat16
    assert head.grad is not None
    assert head.grad.dtype == torch.float32


def test_the_second_derivative_of_kl_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", 4 * VOCAB)
    hidden_p, head_p, hidden_q, head_q, mask = two_policies()
    assert torch.autograd.gradgradcheck(lambda h, w: token_kl(hidden_p, head_p, h, w, mask, 0.7), (hidden_q, head_q))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_at_p_itself_the_second_derivative_is_the_fisher_matrix(dtype: torch.dtype) -> None:
    """∇(∇KL·v) = Σ over columns of (diag π − ππᵀ) between the logits' moves. In bf16 the columns are filled up."""
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(200, 4, generator=generator).to(dtype)
    head, v = (torch.randn(VOCAB, 4, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    head.requires_grad_()
    kl = token_kl(hidden, head, hidden, head, torch.arange(200) < 150).sum()
    (first,) = torch.autograd.grad(kl, head, create_graph=True)
    (product,) = torch.autograd.grad((first * v).sum(), head)
    rows = hidden[:150].double()
    policy, moves = torch.softmax(rows @ head.detach().double().t(), -1), rows @ v.double().t()
    exact = (policy * (moves - (policy * moves).sum(-1, keepdim=True))).t() @ rows
    close = 1e-10 if dtype == torch.float64 else 0.02 * float(exact.abs().max())
    torch.testing.assert_close(product.double(), exact, rtol=0, atol=close)


class Largest(TorchDispatchMode):
    """How many elements the largest tensor has that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [out] if isinstance(out, Tensor) else []
        self.elements = max([self.elements, *(x.numel() for x in made)])
        return out


@pytest.mark.parametrize("name", ["token_kl", "token_logprobs"])
def test_no_block_of_all_columns_and_words_is_ever_made(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    columns, vocab, chunk = 512, 300, 16 * 300
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", chunk)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(columns, 4, generator=generator).requires_grad_()
    head = torch.randn(vocab, 4, generator=generator).requires_grad_()
    mask = torch.ones(columns, dtype=torch.bool)
    with Largest() as largest:
        if name == "token_kl":
            out = token_kl(2 * hidden, head, hidden, head, mask)
        else:
            out = token_logprobs(hidden, head, torch.arange(columns) % vocab, mask)
        out.sum().backward()
    assert columns * 4 <= largest.elements <= chunk
