"""The model as decoding reads it is the model: whole, adapted, in every format; and it keeps what it has read."""

from __future__ import annotations

import pytest
import torch
from tiny import policy_model

from ayni.model.adapters import Lora, with_adapter
from ayni.model.layout import Layout
from ayni.model.transformer import Transformer
from ayni.rollout.decoder import Decoder, product

LENGTHS = [5, 17, 40]
TOKENS = torch.randint(3, 250, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
LIMIT = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 4e-3}  # relative to the largest


def stirred(model: Transformer) -> Transformer:
    """Gains other than 1, and an adapter's B other than 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name or "lora_B" in name:
                p += 0.2 * torch.empty_like(p).normal_(generator=generator)
    return model


@torch.no_grad()
def logits(model: Transformer) -> torch.Tensor:
    hidden = model(TOKENS, Layout.of(LENGTHS))
    return hidden @ model.head.to(hidden.dtype).t()


@torch.no_grad()
@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize(
    ("held", "computed"),
    [(torch.float64,) * 2, (torch.float32,) * 2, (torch.bfloat16,) * 2, (torch.float32, torch.bfloat16)],
    ids=str,
)
def test_it_is_as_near_the_truth_as_the_model(held: torch.dtype, computed: torch.dtype, lora: bool) -> None:
    """The truth: the same weights in fp64."""
    model = policy_model(0).to(held)
    if lora:
        model = with_adapter(model, Lora(rank=4, alpha=8), seed=0)
    model = stirred(model)
    model.dtype = computed
    ours, decoder = logits(model), Decoder(model)
    found = decoder.logits(decoder(TOKENS, Layout.of(LENGTHS)))
    model.double().dtype = None
    truth = logits(model)
    assert found.dtype == ours.dtype == computed
    assert (found - truth).abs().mean() <= 1.3 * (ours - truth).abs().mean() + 1e-12


@torch.no_grad()
def test_it_keeps_what_it_has_read_until_it_reads_again() -> None:
    model = policy_model(0)
    decoder = Decoder(model)
    before = decoder.logits(decoder(TOKENS, Layout.of(LENGTHS)))
    for p in model.parameters():
        p.mul_(1.5)
    assert torch.equal(decoder.logits(decoder(TOKENS, Layout.of(LENGTHS))), before)
    decoder.read(model)
    assert torch.equal(decoder.logits(decoder(TOKENS, Layout.of(LENGTHS))), Decoder(model).logits(
        Decoder(model)(TOKENS, Layout.of(LENGTHS))
    ))  # fmt: skip
    assert not torch.equal(decoder.logits(decoder(TOKENS, Layout.of(LENGTHS))), before)


@pytest.mark.parametrize("dtype", LIMIT, ids=str)
@pytest.mark.parametrize("rows", [1, 16, 37, 300])
def test_a_packed_weight_multiplies_as_it_is(dtype: torch.dtype, rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight, x = (torch.randn(size, generator=generator).to(dtype) for size in ((48, 64), (rows, 64)))
    kept = product(weight)
    expected = x.double() @ weight.double().t()
    weight.zero_()
    assert (kept(x).double() - expected).abs().max() < LIMIT[dtype] * expected.abs().max()
