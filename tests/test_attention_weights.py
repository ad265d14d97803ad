"""Attention weights: the same forward as the model's own, and what one head's softmax gives by hand."""

from __future__ import annotations

import pytest
import torch
from tiny import language_model, shape

from ayni.model.attention import plain_attention
from ayni.model.attention_weights import Watched, strongest_attention
from ayni.model.layout import Layout
from ayni.model.transformer import Transformer, initialise

TOKENS = [1, 7, 31, 12, 9, 40, 5, 17, 2]


def test_the_forward_is_the_models_own() -> None:
    model = language_model(3)
    tokens = torch.tensor(TOKENS)
    watched = Watched(len(TOKENS), 1, 3, tokens.device)
    with torch.no_grad():
        ours, real = model(tokens, watched), model(tokens, Layout.of([len(TOKENS)]))
    torch.testing.assert_close(ours, real, atol=1e-4, rtol=1e-4)


def test_weights_are_those_of_the_softmax() -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(6, heads, 4, generator=draw) for heads in (4, 2, 2))
    watched = Watched(6, 2, 4, q.device)
    out = watched.attend(0, q, k, v)
    expected = plain_attention(*(x.transpose(0, 1)[None] for x in (q, k, v)))
    torch.testing.assert_close(out, expected[0].transpose(0, 1))
    weights = torch.zeros(4, 6, 6)
    for head in range(4):
        for t in range(6):
            scores = torch.stack([q[t, head] @ k[s, head // 2] / 2 for s in range(t + 1)])
            weights[head, t, : t + 1] = scores.softmax(0)
    torch.testing.assert_close(watched.strongest, weights[:, :, 2:4].amax((0, 2)))
    torch.testing.assert_close(weights.sum(2), torch.ones(4, 6))


def test_nothing_before_the_span_sees_it_and_one_token_sees_itself() -> None:
    found = strongest_attention(language_model(1), TOKENS, 3, 5)
    assert found[:3].tolist() == [0, 0, 0]
    assert (found[3:] > 0).all()
    assert (found <= 1).all()
    assert strongest_attention(language_model(1), TOKENS, 0, 1)[0] == 1
    for begin, end in ((3, 3), (-1, 2), (2, 10)):
        with pytest.raises(ValueError, match="is no span"):
            strongest_attention(language_model(1), TOKENS, begin, end)


def test_of_a_model_that_looks_nowhere_all_weights_are_alike() -> None:
    model = initialise(Transformer(shape()), 0)
    with torch.no_grad():
        for layer in model.layers:
            layer.attention.wq.weight.zero_()  # type: ignore[union-attr,operator]
    found = strongest_attention(model, TOKENS, 0, 2)
    torch.testing.assert_close(found, 1 / torch.arange(1.0, 10.0))
