"""LoRA: a frozen trunk under small trained matrices, W·x + α/r · B·A·x (Hu et al. 2021, §4.1).

An adapted model holds the trunk's parameters themselves, not copies: policy, reference, critic and reward models on one
trunk cost its memory once, and `.to(…)` of one moves the trunk under all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ayni.config import Config, Field, field_validator
from ayni.errors import BadInput
from ayni.model.shape import Shape
from ayni.model.transformer import Block, Linear, Transformer
from ayni.seeds import seed_of

Target = Literal["wq", "wk", "wv", "wo", "w1", "w2", "w3"]
TARGETS: tuple[Target, ...] = get_args(Target)
LARGEST_RANK = 2**14
SCORE = "score.weight"  # a reward model's or critic's head, trained with its adapter


class Lora(Config):
    """What an adapter adapts, and how freely."""

    rank: int = Field(16, ge=1, le=LARGEST_RANK, description="columns of B, rows of A")
    alpha: float = Field(32.0, gt=0, description="B·A counts alpha / rank times")
    layers: int | Literal["all"] = Field("all", description="all, or only the last N blocks")
    targets: tuple[Target, ...] = Field(TARGETS, strict=False, min_length=1, description="which matrices of a block")

    @field_validator("layers")
    @classmethod
    def _at_least_one(cls, layers: int | str) -> int | str:
        if isinstance(layers, int) and layers < 1:
            raise ValueError(f"{layers} is not positive")
        return layers

    @field_validator("targets")
    @classmethod
    def _each_once(cls, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        if len(set(targets)) < len(targets):
            raise ValueError("a target stands twice")
        return targets

    def first_of(self, layers: int) -> int:
        """The first adapted block of a model with so many; BadInput if it has fewer than the adapter wants."""
        if self.layers == "all":
            return 0
        if self.layers > layers:
            raise BadInput(f"{self.layers} of {layers} layers cannot be adapted", field="layers")
        return layers - self.layers


class LoraLinear(Linear):
    """`weight` stays as it is; `lora_A` (r, in) and `lora_B` (out, r) learn. All compute in the input's dtype."""

    def __init__(self, inputs: int, outputs: int, lora: Lora) -> None:
        super().__init__(inputs, outputs)
        self.scale = lora.alpha / lora.rank
        self.lora_A = nn.Parameter(torch.empty(lora.rank, inputs))
        self.lora_B = nn.Parameter(torch.empty(outputs, lora.rank))

    def forward(self, x: Tensor) -> Tensor:
        # scaled while it is (T, r): r numbers a token instead of the output's hundreds
        low = F.linear(x, self.lora_A.to(x.dtype)) * self.scale
        return super().forward(x) + F.linear(low, self.lora_B.to(x.dtype))

    def matrix(self) -> Tensor:
        """W + α/r · B·A, added in at least fp32."""
        added = self.scale * (self.lora_B @ self.lora_A)
        return self.weight.to(added.dtype) + added


class Adapted(Transformer):
    """A Transformer whose own parameters are A, B and a score head; every other one is a frozen trunk's, shared."""

    def __init__(self, shape: Shape, lora: Lora) -> None:
        # before anything is built: a wrong number of layers is an error of settings
        first = lora.first_of(shape.layers)
        super().__init__(shape)
        self.lora = lora
        for block in list(self.layers)[first:]:
            for target in lora.targets:
                part = _part(block, target)
                plain = getattr(part, target)
                setattr(part, target, LoraLinear(plain.in_features, plain.out_features, lora))

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Of the adapter alone: the trunk is others' too, and stays frozen."""
        for parameter in adapter_tensors(self).values():
            parameter.requires_grad_(requires_grad)
        return self


def adapter_of(model: Transformer) -> Lora | None:
    """What the model's adapter is like; None for a plain model."""
    return model.lora if isinstance(model, Adapted) else None


def adapter_tensors(model: Transformer) -> dict[str, Tensor]:
    """The parameters that an adapted model owns, by name: A, B and a score head. ValueError for a plain model."""
    return {name: p for name, p in _adapted(model).named_parameters() if _owned(name)}


def adapter_shapes(shape: Shape, lora: Lora) -> dict[str, tuple[int, ...]]:
    """The name of every tensor that an adapter of such a model has → its sizes; BadInput as `with_adapter`."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in adapter_tensors(Adapted(shape, lora)).items()}


def with_adapter(model: Transformer, lora: Lora, seed: int) -> Adapted:
    """The model under a fresh adapter, which changes nothing yet: A from U(−1/√in, 1/√in), B zero, as PEFT does.

    The trunk is shared and frozen from now on; a score head is copied and goes on learning. A and B are at least fp32,
    each A drawn from (seed, its name). Raises BadInput for more layers than there are, or a model with an adapter.
    """
    if adapter_of(model) is not None:
        raise BadInput("the model is an adapter already", fix="train it as it is, or `ayni export` it, which merges it")
    own: dict[str, Tensor] = {}
    for name, size in adapter_shapes(model.shape, lora).items():
        if name == SCORE:
            own[name] = model.head.detach()
        elif name.endswith("lora_A"):
            # nn.Linear's own and PEFT's: Kaiming's uniform with a = √5 comes to 1/√in
            bound, generator = size[1] ** -0.5, torch.Generator().manual_seed(seed_of(seed, name))
            own[name] = torch.empty(size).uniform_(-bound, bound, generator=generator)
        else:
            # B·A = 0: the first forward is the trunk's, to the bit
            own[name] = torch.zeros(size)
    return adapted(model, lora, own)


def adapted(trunk: Transformer, lora: Lora, own: Mapping[str, Tensor]) -> Adapted:
    """The trunk, shared and frozen, under an adapter of copies of these tensors; a score head among them is the head.

    An adapter that `trunk` has itself is left behind. ValueError where names or sizes are not those of such an adapter.
    """
    shape = replace(trunk.shape, head="score", tied=False) if SCORE in own else trunk.shape
    sizes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if sizes != adapter_shapes(shape, lora):
        raise ValueError("these are not the tensors of such an adapter")
    with torch.device("meta"):
        model = Adapted(shape, lora)
    # a step of 1e-4 would vanish in a bf16 weight
    dtype = torch.promote_types(trunk.tok_embeddings.weight.dtype, torch.float32)
    copies = {name: nn.Parameter(p.detach().to(trunk.device, dtype, copy=True)) for name, p in own.items()}
    _fill(model, {**dict(trunk.named_parameters()), **copies})
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_owned(name))
    model.dtype, model.base = trunk.dtype, trunk.base
    return model


def copy_adapter(model: Transformer) -> Adapted:
    """The same trunk under a copy of the adapter (and score head). ValueError for a plain model."""
    source = _adapted(model)
    return adapted(source, source.lora, adapter_tensors(source))


def without_adapter(model: Transformer) -> Transformer:
    """The trunk alone (with the score head, where there is one): a Transformer of its own that shares its tensors."""
    with torch.device("meta"):
        plain = Transformer(model.shape)
    _fill(plain, dict(model.named_parameters()))
    plain.dtype = model.dtype
    if adapter_of(model) is None or model.shape.head == "logits":  # else the head is the adapter's, not the base's
        plain.base = model.base
    return plain


def merged(model: Transformer) -> Transformer:
    """A plain Transformer of the same numbers in memory of its own: W + α/r · B·A, added in at least fp32.

    Every tensor keeps its dtype. ValueError for a plain model.
    """
    source = _adapted(model)
    with torch.device("meta"):
        plain = Transformer(source.shape)
    state = {name: p.detach().clone() for name, p in source.named_parameters() if name == SCORE or not _owned(name)}
    for name, part in source.named_modules():
        if isinstance(part, LoraLinear):
            # rounded once, after the sum: B·A is small beside W
            state[f"{name}.weight"] = part.matrix().detach().to(part.weight.dtype)
    plain.load_state_dict(state, assign=True)
    plain.dtype = source.dtype
    return plain


def _fill(model: Transformer, parameters: Mapping[str, nn.Parameter]) -> None:
    """Puts these very parameters in place of the model's."""
    for name, _ in list(model.named_parameters()):
        place, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(place), leaf, parameters[name])


def _part(block: nn.Module, target: Target) -> nn.Module:
    assert isinstance(block, Block)
    return block.attention if target in ("wq", "wk", "wv", "wo") else block.feed_forward


def _owned(name: str) -> bool:
    return name == SCORE or name.endswith((".lora_A", ".lora_B"))


def _adapted(model: Transformer) -> Adapted:
    if not isinstance(model, Adapted):
        raise ValueError("the model has no adapter")
    return model
