"""Heads on chosen columns: log-probabilities without (T, V) logits, and the scalar head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ayni.model import heads
from ayni.model.heads import column_values, token_kl, token_logprobs
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise

COLUMNS, WIDTH, VOCAB = 13, 5, 7


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(COLUMNS, WIDTH, generator=generator, dtype=dtype).requires_grad_()
    head = torch.randn(VOCAB, WIDTH, generator=generator, dtype=dtype).requires_grad_()
    targets = torch.randint(0, VOCAB, (COLUMNS,), generator=generator)
    return hidden, head, targets


def plainly(hidden: Tensor, head: Tensor, targets: Tensor, temperature: float) -> Tensor:
    logprobs = torch.log_softmax(hidden @ head.t() / temperature, -1)
    return logprobs.gather(-1, targets[:, None]).squeeze(-1)


@pytest.mark.parametrize("elements", [1, VOCAB, 3 * VOCAB, 1 << 22])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("kept", [0, 1 << 22])
def test_equal_log_softmax_in_chunks_of_any_size(
    monkeypatch: pytest.MonkeyPatch, elements: int, temperature: float, kept: int
) -> None:
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", elements)
    monkeypatch.setattr(heads, "KEPT", kept)
    results = []
    for function in (token_logprobs, plainly):
        hidden, head, targets = inputs()
        out = function(hidden, head, targets, temperature)
        (out * torch.linspace(-1, 2, len(out), dtype=out.dtype)).sum().backward()
        results.append((out.detach(), hidden.grad, head.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kept", [0, 1 << 22])
def test_gradients_against_finite_differences(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", 2 * VOCAB)
    monkeypatch.setattr(heads, "KEPT", kept)
    hidden, head, targets = inputs()
    assert torch.autograd.gradcheck(lambda h, w: token_logprobs(h, w, targets, 0.7), (hidden, head))


def test_no_columns_still_join_the_graph() -> None:
    hidden, head, targets = inputs(torch.bfloat16)
    out = token_logprobs(hidden[:0], head, targets[:0])
    assert out.shape == (0,)
    assert out.dtype == torch.float32
    out.sum().backward()  # a rank without work must still take part in every reduction
    assert hidden.grad is not None
    assert head.grad is not None
    assert hidden.grad.abs().max() == head.grad.abs().max() == 0


def test_bf16_hidden_states_give_fp32_logprobs() -> None:
    hidden, head, targets = inputs(torch.float32)
    exact = token_logprobs(hidden, head, targets)
    rough = token_logprobs(hidden.bfloat16(), head, targets)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)
    rough.sum().backward()
    assert head.grad is not None
    assert head.grad.dtype == torch.float32


def test_the_scalar_head_runs_in_fp32_on_bf16_states() -> None:
    shape = Shape(dim=16, layers=1, heads=2, kv_heads=2, hidden=24, vocab=31, head="score")
    model = initialise(Transformer(shape), 0)
    hidden = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    values = column_values(model, hidden)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, hidden.float() @ model.head[0])


def test_column_values_have_gradients_against_finite_differences() -> None:
    shape = Shape(dim=4, layers=1, heads=1, kv_heads=1, hidden=4, vocab=5, head="score")
    model = initialise(Transformer(shape), 0).double()
    hidden = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: column_values(model, h), (hidden,))


def two_policies(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden and head of p, three wide, and of q."""
    generator = torch.Generator().manual_seed(1)
    sizes = ((COLUMNS, 3), (VOCAB, 3), (COLUMNS, WIDTH), (VOCAB, WIDTH))
    four = [torch.randn(*size, generator=generator, dtype=dtype).requires_grad_() for size in sizes]
    return four[0], four[1], four[2], four[3]


def plain_kl(hidden_p: Tensor, head_p: Tensor, hidden_q: Tensor, head_q: Tensor, temperature: float = 1.0) -> Tensor:
    p, q = (torch.log_softmax(h @ w.t() / temperature, -1) for h, w in ((hidden_p, head_p), (hidden_q, head_q)))
    return torch.nn.functional.kl_div(q, p.detach(), log_target=True, reduction="none").sum(-1)


@pytest.mark.parametrize("elements", [1, 2 * VOCAB, 6 * VOCAB, 1 << 22])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_kl_equals_the_plain_one_in_chunks_of_any_size(
    monkeypatch: pytest.MonkeyPatch, elements: int, temperature: float
) -> None:
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", elements)
    results = []
    for function in (token_kl, plain_kl):
        four = two_policies()
        out = function(*four, temperature)
        (out * torch.linspace(-1, 2, len(out), dtype=out.dtype)).sum().backward()
        results.append((out.detach(), four[2].grad, four[3].grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert (results[0][0] > 0).all()


def test_kl_gradients_against_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", 4 * VOCAB)
    hidden_p, head_p, hidden_q, head_q = two_policies()
    assert torch.autograd.gradcheck(lambda h, w: token_kl(hidden_p, head_p, h, w, 0.7), (hidden_q, head_q))


def test_kl_teaches_q_alone() -> None:
    hidden_p, head_p, hidden_q, head_q = two_policies()
    token_kl(hidden_p, head_p, hidden_q, head_q).sum().backward()
    assert hidden_p.grad is None
    assert head_p.grad is None
    assert hidden_q.grad is not None
    assert (hidden_q.grad.abs().amax(-1) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_kl_to_itself_is_exactly_zero_and_so_is_its_gradient(dtype: torch.dtype) -> None:
    _, _, hidden, head = two_policies(dtype)
    out = token_kl(hidden, head, hidden, head)
    out.sum().backward()
    assert out.dtype == heads.at_least_fp32(hidden).dtype
    assert hidden.grad is not None
    assert head.grad is not None
    assert out.abs().max() == hidden.grad.abs().max() == head.grad.abs().max() == 0


def test_kl_of_no_columns_still_joins_the_graph() -> None:
    four = two_policies(torch.bfloat16)
    out = token_kl(four[0][:0], four[1], four[2][:0], four[3])
    assert out.shape == (0,)
    assert out.dtype == torch.float32
    out.sum().backward()
    assert four[2].grad is not None
    assert four[3].grad is not None
    assert four[2].grad.abs().max() == four[3].grad.abs().max() == 0


def test_kl_of_bf16_hidden_states_is_fp32_and_its_filling_stays_inside() -> None:
    generator = torch.Generator().manual_seed(0)
    # 128 rows and more are filled up to a round number
    p, q = (torch.randn(140, 8, generator=generator).bfloat16().requires_grad_() for _ in range(2))
    head = torch.randn(VOCAB, 8, generator=generator).requires_grad_()
    rough = token_kl(p, head, q, head)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, plain_kl(p.float(), head, q.float(), head), rtol=0.05, atol=0.05)
    rough.sum().backward()
    assert q.grad is not None
    assert q.grad.dtype == torch.bfloat16
    assert head.grad is not None
    assert head.grad.dtype == torch.float32


def test_the_second_derivative_of_kl_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", 4 * VOCAB)
    hidden_p, head_p, hidden_q, head_q = two_policies()
    assert torch.autograd.gradgradcheck(lambda h, w: token_kl(hidden_p, head_p, h, w, 0.7), (hidden_q, head_q))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_at_p_itself_the_second_derivative_is_the_fisher_matrix(dtype: torch.dtype) -> None:
    """∇(∇KL·v) = Σ over columns of (diag π − ππᵀ) between the logits' moves. In bf16 the columns are filled up."""
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(150, 4, generator=generator).to(dtype)
    head, v = (torch.randn(VOCAB, 4, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    head.requires_grad_()
    kl = token_kl(hidden, head, hidden, head).sum()
    (first,) = torch.autograd.grad(kl, head, create_graph=True)
    (product,) = torch.autograd.grad((first * v).sum(), head)
    rows = hidden.double()
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
    monkeypatch.setattr(heads, "KEPT", chunk)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(columns, 4, generator=generator).requires_grad_()
    head = torch.randn(vocab, 4, generator=generator).requires_grad_()
    with Largest() as largest:
        if name == "token_kl":
            out = token_kl(2 * hidden, head, hidden, head)
        else:
            out = token_logprobs(hidden, head, torch.arange(columns) % vocab)
        out.sum().backward()
    assert columns * 4 <= largest.elements <= chunk
