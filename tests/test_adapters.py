"""LoRA adapters: what they compute, what of them learns, and that a trunk is in memory once for all roles."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_models import refused, same
from tiny import VOCAB, language_model, policy, prompts, reward_model
from torch import Tensor

from ayni.config import parse_config
from ayni.model.adapters import (
    TARGETS,
    Adapted,
    Lora,
    adapted,
    adapter_of,
    adapter_shapes,
    adapter_tensors,
    copy_adapter,
    merged,
    with_adapter,
    without_adapter,
)
from ayni.model.heads import column_values, token_logprobs
from ayni.model.layout import Layout
from ayni.model.role import Role
from ayni.model.score_head import with_score_head
from ayni.model.transformer import Transformer, initialise
from ayni.records import TokenSequence
from ayni.rollout.engine import rollout
from ayni.rollout.local import LocalEngine
from ayni.rollout.sampling import Sampling
from ayni.train.objectives import NextToken
from ayni.train.trainer import Optimiser, Trainer, freeze

LENGTHS = [12, 3, 7, 30]
LORAS = {
    "all": Lora(rank=4, alpha=8),
    "last block": Lora(rank=3, alpha=5, layers=1),
    "attention": Lora(rank=2, alpha=2, targets=("wv", "wq")),
    "feed-forward of one block": Lora(rank=8, alpha=4, layers=1, targets=("w1", "w2", "w3")),
}
each_lora = pytest.mark.parametrize("lora", LORAS.values(), ids=LORAS)


def tokens(seed: int = 0) -> tuple[Tensor, Layout]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB, (sum(LENGTHS),), generator=generator), Layout.of(LENGTHS)


def logits(model: Transformer) -> Tensor:
    hidden = model(*tokens())
    return hidden @ model.head.to(hidden.dtype).t()


def stirred(model: Adapted, seed: int = 0) -> Adapted:
    """The same with random A and B, so that the adapter changes what the model says."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in adapter_tensors(model).items():
            if "lora" in name:
                tensor.copy_(torch.randn(tensor.shape, generator=generator).to(tensor.dtype) * 0.1)
    return model


def tied_model(dtype: torch.dtype = torch.float32) -> Transformer:
    shape = replace(language_model().shape, tied=True)
    model = initialise(Transformer(shape), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(12 if parameter.ndim > 1 else 1)
    return model.to(dtype)


MODELS = {"untied": language_model, "tied": tied_model, "score": reward_model}
each_model = pytest.mark.parametrize("kind", MODELS)


# what it computes


@each_lora
@each_model
def test_a_fresh_adapter_changes_no_bit(kind: str, lora: Lora) -> None:
    model = MODELS[kind]()
    fresh = with_adapter(model, lora, seed=1)
    for dtype in (None, torch.bfloat16):
        model.dtype = fresh.dtype = dtype
        with torch.no_grad():
            assert torch.equal(fresh(*tokens()), model(*tokens()))
    assert torch.equal(fresh.head, model.head)


@each_lora
@each_model
def test_merged_weights_say_the_same(kind: str, lora: Lora) -> None:
    for dtype, atol in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        plain = MODELS[kind](dtype=dtype)
        model = stirred(with_adapter(plain, lora, seed=1))
        whole = merged(model)
        with torch.no_grad():
            assert (logits(model) - logits(plain)).abs().max() > 0.01
            torch.testing.assert_close(logits(model), logits(whole), rtol=0, atol=atol)
    assert type(whole) is Transformer
    assert adapter_of(whole) is None
    assert whole.shape == model.shape
    assert all(p.requires_grad for p in whole.parameters())
    mine = {p.data_ptr() for p in model.parameters()}
    assert mine.isdisjoint(p.data_ptr() for p in whole.parameters())


def test_merging_keeps_the_dtype_and_adds_in_fp32() -> None:
    model = stirred(with_adapter(language_model(dtype=torch.bfloat16), Lora(rank=4, alpha=8), seed=0))
    model.dtype = torch.bfloat16
    whole = merged(model)
    assert whole.dtype == torch.bfloat16
    assert {p.dtype for p in whole.parameters()} == {torch.bfloat16}
    wq: Any = model.layers[0].attention.wq
    expected = wq.weight.double() + 2 * wq.lora_B.double() @ wq.lora_A.double()
    torch.testing.assert_close(whole.layers[0].attention.wq.weight.double(), expected, rtol=2**-8, atol=1e-7)


def test_in_bf16_an_adapter_computes_as_its_trunk_does() -> None:
    """To bf16's rounding, for a trunk in fp32 that computes in bf16 as for one that is held in bf16."""
    for held in (torch.float32, torch.bfloat16):
        model = stirred(with_adapter(language_model(dtype=held), Lora(rank=4, alpha=8), seed=0))
        assert {p.dtype for p in adapter_tensors(model).values()} == {torch.float32}
        model.dtype = torch.bfloat16
        with torch.no_grad():
            hidden, expected = model(*tokens()), merged(model)(*tokens())
        assert hidden.dtype == torch.bfloat16
        torch.testing.assert_close(hidden, expected, rtol=0.05, atol=0.1)


@each_model
def test_gradients_are_those_of_the_merged_weights(kind: str) -> None:
    """Of the sum of some log-probs or scores, in fp64, against autograd through W + α/r · B·A."""
    lora = Lora(rank=3, alpha=5, layers=1)
    model = stirred(with_adapter(MODELS[kind](dtype=torch.float64), lora, seed=0))
    ids, layout = tokens()
    mask = torch.rand(len(ids), generator=torch.Generator().manual_seed(1)) < 0.7

    def loss(hidden: Tensor, head: Tensor) -> Tensor:
        if kind == "score":
            return (hidden[layout.ends] @ head.t()).square().sum()
        return torch.log_softmax(hidden @ head.t(), -1)[mask, ids.roll(-1)[mask]].sum()

    if kind == "score":
        column_values(model, model(ids, layout, layout.ends)).square().sum().backward()
    else:
        token_logprobs(model(ids, layout, mask.nonzero()[:, 0]), model.head, ids.roll(-1)[mask]).sum().backward()

    own = {name: p.detach().clone().requires_grad_() for name, p in adapter_tensors(model).items()}
    weights = {name: p.detach() for name, p in model.named_parameters() if name not in own}
    for name in list(weights):
        stem = name.removesuffix("weight")
        if f"{stem}lora_A" in own:
            weights[name] = weights[name] + lora.alpha / lora.rank * own[f"{stem}lora_B"] @ own[f"{stem}lora_A"]
    if "score.weight" in own:
        weights["score.weight"] = own["score.weight"]
    plain = Transformer(model.shape)
    again = torch.func.functional_call(plain, weights, (ids, layout))
    head = weights.get("score.weight", weights.get("output.weight", weights["tok_embeddings.weight"]))
    expected = torch.autograd.grad(loss(again, head), list(own.values()))
    for (name, p), grad in zip(adapter_tensors(model).items(), expected, strict=True):
        assert p.grad is not None
        assert grad.abs().max() > 0
        torch.testing.assert_close(p.grad, grad, rtol=1e-9, atol=1e-12, msg=name)


def test_a_fresh_adapter_draws_the_samples_of_its_trunk() -> None:
    plain = policy()
    fresh = LocalEngine(Role(with_adapter(plain.role.model, Lora(rank=4), seed=0)), plain.tokenizer, plain.name)
    for dtype in (None, torch.bfloat16):
        for engine in (plain, fresh):
            engine.role.model.dtype = dtype
            engine.sync(engine.role)
        drawn = [rollout(p, prompts(3), n=2, sampling=Sampling(1.0, 1.0, 8), seed=0) for p in (plain, fresh)]
        assert drawn[0] == drawn[1]
    assert {p.dtype for p in fresh.role.model.parameters()} == {torch.float32}  # casting for speed made a copy


# what learns


@each_model
def test_only_the_adapter_and_a_score_head_learn(kind: str) -> None:
    model = with_adapter(MODELS[kind](), Lora(rank=4), seed=0)
    hidden = model(*tokens())
    (hidden @ model.head.t()).square().sum().backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learned == set(adapter_tensors(model)) == set(adapter_shapes(model.shape, Lora(rank=4)))
    assert ("score.weight" in learned) == (kind == "score")
    assert model.requires_grad_(True) is model
    assert {name for name, p in model.named_parameters() if p.requires_grad} == learned
    model.requires_grad_(False)
    assert not any(p.requires_grad for p in model.parameters())


def test_training_moves_the_adapter_alone_and_lowers_the_loss() -> None:
    plain = language_model()
    before = {name: p.detach().clone() for name, p in plain.named_parameters()}
    model = with_adapter(plain, Lora(rank=4), seed=0)
    started = {name: p.detach().clone() for name, p in adapter_tensors(model).items()}
    ids = tokens()[0][:20].tolist()
    examples = [TokenSequence(ids, [False] * 4 + [True] * 16)]
    trainer = Trainer(Role(model), Optimiser(lr=1e-2, schedule="constant", warmup=0), steps=20)
    losses = [trainer.update(examples, NextToken())["loss"] for _ in range(20)]
    assert losses[-1] < losses[0] - 0.5
    assert all(torch.equal(before[name], p) for name, p in plain.named_parameters())
    assert not any(torch.equal(started[name], p) for name, p in adapter_tensors(model).items())
    line = refused(lambda: freeze(model, 1))
    assert "train_layers: an adapter is trained as a whole" in line


def test_a_checkpoint_holds_what_learns_alone_and_resumes_to_the_same_bits() -> None:
    ids = tokens()[0][:20].tolist()
    examples = [TokenSequence(ids, [False] * 4 + [True] * 16)]

    def trainer() -> Trainer:
        model = with_adapter(language_model(), Lora(rank=4), seed=0)
        return Trainer(Role(model), Optimiser(lr=1e-2, warmup=0), steps=6)

    straight, first, second = trainer(), trainer(), trainer()
    for _ in range(6):
        straight.update(examples, NextToken())
    for _ in range(3):
        first.update(examples, NextToken())
    tensors, numbers = first.state()
    own = set(adapter_tensors(first.role.model))
    assert {name.removeprefix("model.") for name in tensors if name.startswith("model.")} == own
    second.load({name: tensor.clone() for name, tensor in tensors.items()}, numbers)
    for _ in range(3):
        second.update(examples, NextToken())
    assert same(second.role.model, straight.role.model)


def test_a_frozen_head_gets_no_gradient_and_the_hidden_states_the_same() -> None:
    ids, layout = tokens()
    grads = []
    for learns in (True, False):
        model = language_model()
        model.output.requires_grad_(learns)
        hidden = model(ids, layout).detach().requires_grad_()
        token_logprobs(hidden, model.head, ids).sum().backward()
        assert (model.head.grad is not None) == learns
        grads.append(hidden.grad)
    assert torch.equal(*grads)


# one trunk


def trunk_pointers(model: Transformer) -> dict[str, int]:
    own = adapter_tensors(model) if adapter_of(model) else {}
    return {name: p.data_ptr() for name, p in model.named_parameters() if name not in own}


def test_policy_reference_critic_and_reward_model_share_one_trunk() -> None:
    plain = language_model()
    actor = stirred(with_adapter(plain, Lora(rank=4), seed=0))
    reference = copy_adapter(actor).requires_grad_(False)
    reward = with_score_head(actor, seed=3)
    critic = copy_adapter(reward)
    place = trunk_pointers(plain)
    for role in (actor, reference, without_adapter(actor)):
        assert trunk_pointers(role) == place
    del place["output.weight"]
    for role in (reward, critic):
        assert trunk_pointers(role) == place
    owned = [{p.data_ptr() for p in adapter_tensors(role).values()} for role in (actor, reference, reward, critic)]
    assert len(set().union(*owned)) == sum(len(one) for one in owned)
    for start, copied in ((actor, reference), (actor, reward), (reward, critic)):
        for name, tensor in adapter_tensors(start).items():
            assert torch.equal(tensor, adapter_tensors(copied)[name])
    assert all(p.requires_grad for p in adapter_tensors(critic).values())
    assert not any(p.requires_grad for p in reference.parameters())
    assert reward.score.weight.dtype == torch.float32
    ids, layout = tokens()
    with torch.no_grad():
        assert torch.equal(reference(ids, layout), actor(ids, layout))
        assert torch.equal(reward(ids, layout), actor(ids, layout))
        assert torch.equal(without_adapter(actor)(ids, layout), plain(ids, layout))
        assert column_values(reward, reward(ids, layout, layout.ends)).std() > 0.1


def test_what_moves_the_trunk_moves_it_for_all() -> None:
    """`.to` of one role must not leave each with a trunk of its own."""
    actor = with_adapter(language_model(), Lora(rank=4), seed=0)
    critic = with_score_head(actor, seed=0)
    actor.to(torch.bfloat16)
    pointers = trunk_pointers(actor)
    assert {name: pointers[name] for name in trunk_pointers(critic)} == trunk_pointers(critic)
    assert critic.tok_embeddings.weight.dtype == torch.bfloat16
    assert critic.score.weight.dtype == torch.float32


def test_a_reward_model_starts_as_one_on_copied_weights_does() -> None:
    plain = language_model()
    whole = with_score_head(plain, seed=7)
    model = with_score_head(with_adapter(plain, Lora(rank=4), seed=0), seed=7)
    assert torch.equal(model.head, whole.head)
    ids, layout = tokens()
    with torch.no_grad():
        scores = [column_values(m, m(ids, layout, layout.ends)) for m in (model, whole)]
    assert torch.equal(*scores)
    assert "already" in refused(lambda: with_score_head(model, seed=0))
    half = with_score_head(with_adapter(language_model(dtype=torch.bfloat16), Lora(rank=4), seed=0), seed=7)
    assert half.head.dtype == torch.float32


def test_a_reward_model_adapted_learns_a_copy_of_its_head() -> None:
    plain = reward_model()
    model = with_adapter(plain, Lora(rank=4), seed=0)
    assert torch.equal(model.head, plain.head)
    assert model.head.data_ptr() != plain.head.data_ptr()
    assert without_adapter(model).head.data_ptr() == model.head.data_ptr()


def test_the_compute_dtype_goes_along() -> None:
    plain = language_model()
    plain.dtype = torch.bfloat16
    model = with_adapter(plain, Lora(rank=4), seed=0)
    roles = (model, copy_adapter(model), with_score_head(model, 0), without_adapter(model), merged(model))
    assert {role.dtype for role in roles} == {torch.bfloat16}


def test_a_deep_copy_owns_its_trunk() -> None:
    model = stirred(with_adapter(language_model(), Lora(rank=4), seed=0))
    own = copy.deepcopy(model)
    assert adapter_of(own) == adapter_of(model)
    assert same(own, model)
    assert {p.data_ptr() for p in own.parameters()}.isdisjoint(p.data_ptr() for p in model.parameters())


# random numbers, settings, mistakes


def test_a_depends_on_the_seed_and_its_name_alone() -> None:
    def drawn(seed: int, **settings: Any) -> dict[str, Tensor]:
        return adapter_tensors(with_adapter(language_model(), Lora(rank=4, **settings), seed))

    whole, part, other = drawn(0), drawn(0, layers=1, targets=("w2", "wq")), drawn(1)
    assert len(part) == 4
    for name, tensor in part.items():
        assert torch.equal(tensor, whole[name])
        if name.endswith("lora_B"):
            assert tensor.abs().max() == 0
        else:
            assert not torch.equal(tensor, other[name])
            bound = tensor.shape[1] ** -0.5  # PEFT: kaiming_uniform_(a=√5)
            assert 0.7 * bound < tensor.abs().max() <= bound
    assert not torch.equal(whole["layers.0.attention.wq.lora_A"], whole["layers.1.attention.wq.lora_A"])


def test_settings() -> None:
    assert parse_config(Lora, {}) == Lora(rank=16, alpha=32, layers="all", targets=TARGETS)
    assert parse_config(Lora, {"targets": ["wq", "wv"], "alpha": 8}).targets == ("wq", "wv")
    assert Lora().model_dump(mode="json") == {"rank": 16, "alpha": 32, "layers": "all", "targets": list(TARGETS)}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"rank": 0}, "rank"),
        ({"alpha": 0}, "alpha"),
        ({"layers": 0}, "layers: 0 is not positive"),
        ({"layers": "some"}, "layers"),
        ({"targets": []}, "targets"),
        ({"targets": ["wq", "wq"]}, "targets: a target stands twice"),
        ({"targets": ["q_proj"]}, "targets"),
        ({"dropout": 0.1}, "dropout: unknown key; known here: alpha, layers, rank, targets"),
    ]
    for given, says in wrong:
        assert says in refused(lambda given=given: parse_config(Lora, given))


def test_mistakes_are_refused() -> None:
    plain = language_model()
    line = refused(lambda: with_adapter(plain, Lora(layers=3), 0))
    assert line == "layers: 3 of 2 layers cannot be adapted"
    model = with_adapter(plain, Lora(rank=4), 0)
    assert "adapter already" in refused(lambda: with_adapter(model, Lora(), 0))
    for call in (copy_adapter, merged, adapter_tensors):
        with pytest.raises(ValueError, match="no adapter"):
            call(plain)
    with pytest.raises(ValueError, match="not the tensors"):
        adapted(plain, Lora(rank=5), adapter_tensors(model))
    with pytest.raises(ValueError, match="not the tensors"):
        adapted(plain, Lora(rank=4, layers=1), adapter_tensors(model))
    assert adapter_of(plain) is None
