"""The transformer: the paper's sizes, the start, and what one forward pass must and must not depend on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ayni.errors import BadInput
from ayni.model.kernels import rotate
from ayni.model.layout import Layout
from ayni.model.score_head import with_score_head
from ayni.model.shape import SHAPES, Shape, ffn_hidden
from ayni.model.transformer import RMSNorm, Transformer, initialise

SMALL = Shape(dim=32, layers=2, heads=4, kv_heads=2, hidden=48, vocab=61)
# Of the released params.json: FFN size and parameters.
PAPER = {
    "7B": (11008, 6_738_415_616),
    "13B": (13824, 13_015_864_320),
    "34B": (22016, 33_743_970_304),
    "70B": (28672, 68_976_648_192),
}


def build(shape: Shape, seed: int = 0) -> Transformer:
    return initialise(Transformer(shape), seed)


def logits(model: Transformer, tokens: list[int]) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor(tokens), Layout.of([len(tokens)])) @ model.head.t()


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_models_have_the_papers_sizes(name: str) -> None:
    hidden, parameters = PAPER[name]
    assert SHAPES[name].hidden == hidden
    assert SHAPES[name].head_dim == 128
    assert SHAPES[name].parameters == parameters
    reward = replace(SHAPES[name], head="score")
    assert parameters - reward.parameters == (32000 - 1) * SHAPES[name].dim  # a reward model replaces V·d by d


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("kind", [{}, {"tied": True}, {"head": "score"}], ids=["untied", "tied", "score"])
def test_a_built_model_has_as_many_parameters_as_its_shape_says(name: str, kind: dict) -> None:
    shape = replace(SHAPES[name], **kind)
    with torch.device("meta"):
        model = Transformer(shape)
    assert sum(p.numel() for p in model.parameters()) == shape.parameters
    assert model.head.shape == ((1 if shape.head == "score" else shape.vocab), shape.dim)


def test_ffn_width_follows_the_reference_code() -> None:
    assert ffn_hidden(64, 4) == 172  # ⌊8·64/3⌋ = 170
    assert ffn_hidden(6, 1) == 16
    assert ffn_hidden(6, 16) == 16
    assert ffn_hidden(6, 1, 1.3) == 20  # ⌊1.3·16⌋


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dim": 30}, "dim"),
        ({"dim": 12}, "dim"),
        ({"kv_heads": 3}, "kv_heads"),
        ({"layers": 0}, "layers"),
        ({"heads": -4}, "heads"),
    ],
)
def test_impossible_shapes_are_refused(change: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(SMALL, **change)


def test_the_start_is_normal_with_smaller_residual_outputs() -> None:
    model = build(Shape(dim=128, layers=8, heads=4, kv_heads=2, hidden=256, vocab=400))
    for name, p in model.named_parameters():
        if name.endswith("norm.weight"):
            assert torch.equal(p, torch.ones_like(p)), name
            continue
        std = 0.02 / math.sqrt(16) if name.endswith(("wo.weight", "w2.weight")) else 0.02
        error = 4 / math.sqrt(p.numel())  # four standard errors of a mean; half of that for a deviation
        assert abs(float(p.detach().mean())) < error * std, name
        assert abs(float(p.detach().std()) / std - 1) < error, name


def test_the_start_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = build(SMALL).state_dict()
    torch.manual_seed(2)
    again, other = build(SMALL).state_dict(), build(SMALL, seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["tok_embeddings.weight"], other["tok_embeddings.weight"])


def test_norm_by_hand() -> None:
    norm = RMSNorm(2, eps=0.0)
    norm.weight.data = torch.tensor([1.0, 10.0])
    # mean square of (3, 4) is 12.5
    torch.testing.assert_close(norm(torch.tensor([[3.0, 4.0]])), torch.tensor([[3.0, 40.0]]) / math.sqrt(12.5))


def test_rotation_turns_adjacent_pairs() -> None:
    quarter, half = math.pi / 2, math.pi
    turn = torch.polar(torch.ones(1, 1, 2), torch.tensor([[[quarter, half]]]))
    turned = rotate(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), turn)
    torch.testing.assert_close(turned, torch.tensor([[[-2.0, 1.0, -3.0, -4.0]]]))


def test_angles_are_position_times_theta_to_the_minus_2i_over_d() -> None:
    model = build(SMALL)
    turn = model.rotary(torch.tensor([0, 3]), torch.float64)
    angles = [3 * 10000 ** (-2 * i / 8) for i in range(4)]
    torch.testing.assert_close(turn.real[:, 0], torch.tensor([[1.0] * 4, [math.cos(a) for a in angles]]).double())
    torch.testing.assert_close(turn.imag[1, 0], torch.tensor([math.sin(a) for a in angles]).double())


def test_no_token_sees_the_future() -> None:
    model = build(SMALL)
    before, after = logits(model, [5, 6, 7, 8, 9]), logits(model, [5, 6, 7, 40, 41])
    torch.testing.assert_close(before[:3], after[:3])
    assert (before[3:] - after[3:]).abs().max() > 1e-3


def test_grouped_queries_equal_repeated_key_value_heads() -> None:
    grouped = build(SMALL)
    full = Transformer(replace(SMALL, kv_heads=4))
    state = grouped.state_dict()
    for name, tensor in state.items():
        if name.endswith(("wk.weight", "wv.weight")):
            state[name] = tensor.unflatten(0, (2, 8)).repeat_interleave(2, 0).flatten(0, 1)
    full.load_state_dict(state)
    torch.testing.assert_close(logits(grouped, [1, 2, 3, 4]), logits(full, [1, 2, 3, 4]))


def test_against_the_equations_written_out_slowly() -> None:
    shape = Shape(dim=8, layers=1, heads=2, kv_heads=1, hidden=12, vocab=11)
    model = build(shape).double()
    for p in model.parameters():
        p.data.mul_(20)
    tokens = [3, 1, 4, 1, 5]
    w = {name.removeprefix("layers.0.").removesuffix(".weight"): p.detach() for name, p in model.named_parameters()}

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.pow(2).mean() + shape.norm_eps).sqrt() * weight

    def turn(x: Tensor, position: int) -> Tensor:
        z = torch.view_as_complex(x.view(2, 2))
        angles = torch.tensor([position * 10000 ** (-i / 2) for i in range(2)]).double()
        return torch.view_as_real(z * torch.polar(torch.ones_like(angles), angles)).flatten()

    stream = [w["tok_embeddings"][t] for t in tokens]
    normed = [norm(x, w["attention_norm"]) for x in stream]
    keys = [turn(w["attention.wk"] @ x, i) for i, x in enumerate(normed)]
    values = [w["attention.wv"] @ x for x in normed]
    out = []
    for i, x in enumerate(stream):
        query = w["attention.wq"] @ normed[i]
        heads = []
        for part in query.split(4):
            scores = torch.stack([turn(part, i) @ keys[j] / 2 for j in range(i + 1)])  # √d_h = 2
            heads.append(sum(p * v for p, v in zip(scores.softmax(0), values, strict=False)))
        h = x + w["attention.wo"] @ torch.cat(heads)
        y = norm(h, w["ffn_norm"])
        y = h + w["feed_forward.w2"] @ (F.silu(w["feed_forward.w1"] @ y) * (w["feed_forward.w3"] @ y))
        out.append(w["output"] @ norm(y, w["norm"]))
    torch.testing.assert_close(logits(model, tokens), torch.stack(out), rtol=1e-6, atol=1e-6)


def test_tied_head_is_the_embedding() -> None:
    model = build(replace(SMALL, tied=True))
    assert model.head is model.tok_embeddings.weight
    assert "output.weight" not in model.state_dict()


def test_bf16_stays_near_fp32_and_keeps_its_dtype() -> None:
    model = build(SMALL)
    exact = logits(model, [1, 2, 3, 4, 5])
    model.dtype = torch.bfloat16  # bf16 arithmetic on fp32 weights
    hidden = model(torch.tensor([1, 2, 3, 4, 5]), Layout.of([5]))
    assert hidden.dtype == torch.bfloat16
    torch.testing.assert_close((hidden.float() @ model.head.t()).detach(), exact, rtol=0, atol=0.02)
    model.dtype = None
    model.to(torch.bfloat16)  # bf16 weights
    hidden = model(torch.tensor([1, 2, 3, 4, 5]), Layout.of([5]))
    assert hidden.dtype == torch.bfloat16
    torch.testing.assert_close((hidden @ model.head.t()).detach().float(), exact, rtol=0, atol=0.02)


def test_every_parameter_gets_a_gradient() -> None:
    model = build(SMALL)
    (model(torch.arange(1, 6), Layout.of([2, 3])) @ model.head.t()).pow(2).sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().max() > 0, name


def test_a_score_head_on_a_copied_trunk() -> None:
    shape = Shape(dim=1024, layers=1, heads=4, kv_heads=4, hidden=64, vocab=61, tied=True)
    model = build(shape)
    reward = with_score_head(model, seed=3)
    assert reward.shape.head == "score"
    assert reward.head.shape == (1, 1024)
    assert sum(p.numel() for p in reward.parameters()) == reward.shape.parameters
    head = reward.head.detach()
    assert abs(float(head.std()) * math.sqrt(1025) - 1) < 0.1
    for name, p in model.named_parameters():
        copy = reward.get_parameter(name)
        assert torch.equal(copy, p), name
        assert copy.data_ptr() != p.data_ptr(), name
        assert copy.requires_grad
    assert torch.equal(with_score_head(model, seed=3).head, reward.head)
    assert not torch.equal(with_score_head(model, seed=4).head, reward.head)
    assert "output.weight" not in with_score_head(build(replace(shape, tied=False)), seed=0).state_dict()
    with pytest.raises(BadInput, match="reward model already"):
        with_score_head(reward, seed=0)
