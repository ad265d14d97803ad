"""Some columns of a batch: what is asked of them alone is what they say among all, and so is what is learned."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ayni.model.adapters import Lora, with_adapter
from ayni.model.columns import put, take
from ayni.model.dropout import Dropout
from ayni.model.layout import Layout
from ayni.model.rounding import hidden_states
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise
from ayni.rollout.decoder import Decoder

LENGTHS, SHARED = [40, 3, 71, 26, 90], [0, 0, 0, 20, 0]
COLUMNS = sum(LENGTHS) - sum(SHARED)
ASKED: dict[str, Callable[[Layout], Tensor]] = {
    "last": lambda layout: layout.ends,
    "some": lambda layout: (torch.rand(COLUMNS, generator=torch.Generator().manual_seed(1)) < 0.6).nonzero()[:, 0],
    "one": lambda layout: torch.tensor([57]),
    "all": lambda layout: torch.arange(COLUMNS),
}


def test_each_is_the_others_derivative() -> None:
    columns = torch.tensor([4, 0, 5])
    x, y = torch.randn(7, 2, 3, dtype=torch.float64), torch.randn(3, 2, 3, dtype=torch.float64)
    assert torch.equal(take(x, columns), x[columns])
    assert torch.equal(put(y, columns, 7)[columns], y)
    assert int(put(y, columns, 7).ne(0).sum()) == y.numel()
    assert torch.autograd.gradcheck(lambda x: take(x, columns), x.requires_grad_())
    assert torch.autograd.gradcheck(lambda y: put(y, columns, 7), y.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda x: take(x, columns), x)
    assert take(x, None) is x
    assert put(y, None, 7) is y


def language_model() -> Transformer:
    """Sharper than a fresh one; heads of 16 numbers, as attention in C wants them."""
    model = initialise(Transformer(Shape(dim=32, layers=2, heads=2, kv_heads=1, hidden=24, vocab=99, context=96)), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.ndim > 1 else 1)
    return model


def plain(model: Transformer) -> Transformer:
    return model


def dropping(model: Transformer) -> Transformer:
    model.dropout = Dropout(0.3, seed=1)
    return model


def recomputing(model: Transformer) -> Transformer:
    model.recompute = True
    return model


def adapted(model: Transformer) -> Transformer:
    return with_adapter(model, Lora(rank=2), seed=0)


def learned(model: Transformer, layout: Layout, asked: Tensor, alone: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """The hidden states of the columns asked, alone or among all, and the gradients of something of them."""
    tokens = torch.randint(3, model.shape.vocab, (COLUMNS,), generator=torch.Generator().manual_seed(0))
    dtype = model.dtype or model.tok_embeddings.weight.dtype
    if alone:
        hidden = hidden_states(model, tokens, layout, dtype, asked)
    else:
        hidden = hidden_states(model, tokens, layout, dtype)[asked]
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
    (hidden.float() * weights).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return hidden.detach().float(), {name: grad.clone() for name, grad in grads.items()}


@pytest.mark.parametrize("way", ASKED)
@pytest.mark.parametrize("made", [plain, dropping, recomputing, adapted])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_columns_asked_alone_say_and_teach_the_same(
    way: str, made: Callable[[Transformer], Transformer], dtype: torch.dtype
) -> None:
    layout = Layout.of(LENGTHS, shared=SHARED)
    asked = ASKED[way](layout)
    results = []
    for alone in (True, False):
        model = made(language_model().to(torch.float64 if dtype == torch.float64 else torch.float32))
        model.dtype = dtype
        results.append(learned(model, layout, asked, alone))
    close = {torch.float64: 1e-11, torch.float32: 1e-4, torch.bfloat16: 0.06}[dtype]
    (hidden, grads), (among, theirs) = results
    assert (hidden - among).abs().max() <= close * among.abs().max()
    assert grads.keys() == theirs.keys()
    assert {name for name in grads if (grads[name] - theirs[name]).norm() > close * theirs[name].norm()} == set()


def test_no_column_asked_teaches_nothing_but_joins_the_graph() -> None:
    model = language_model()
    hidden, grads = learned(model, Layout.of(LENGTHS, shared=SHARED), torch.tensor([], dtype=torch.long), True)
    assert hidden.shape == (0, model.shape.dim)
    trunk = {name for name, _ in model.named_parameters() if name != "output.weight"}
    assert grads.keys() == trunk
    assert all(grad.abs().max() == 0 for grad in grads.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_decoder_is_asked_alike(dtype: torch.dtype) -> None:
    model = language_model()
    model.dtype = dtype
    decoder, layout = Decoder(model), Layout.of(LENGTHS, shared=SHARED)
    tokens = torch.randint(3, model.shape.vocab, (COLUMNS,), generator=torch.Generator().manual_seed(0))
    alone = hidden_states(decoder, tokens, layout, dtype, layout.ends)
    among = hidden_states(decoder, tokens, layout, dtype)[layout.ends]
    torch.testing.assert_close(alone, among, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.05)


def test_behind_the_last_attention_only_they_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, layout, seen = language_model(), Layout.of(LENGTHS), list[int]()
    for layer in model.layers:
        layer.feed_forward.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))  # type: ignore[union-attr]
    tokens = torch.zeros(sum(LENGTHS), dtype=torch.long)
    model(tokens, layout, layout.ends)
    assert seen == [sum(LENGTHS), len(LENGTHS)]
