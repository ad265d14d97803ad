"""An adapter as PEFT keeps it: adapter_config.json beside adapter_model.safetensors, under Hugging Face's names.

PEFT's module tree puts `base_model.model.` before the names of transformers. Rows of wq's and wk's B are rotated as
those weights are (ayni.model.hugging_face); A is the same there and here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ayni.errors import BadInput
from ayni.files import read_object
from ayni.model.adapters import LARGEST_RANK, SCORE, TARGETS, Adapted, Lora, Target, adapter_shapes, adapter_tensors
from ayni.model.fields import positive, shown, whole
from ayni.model.hugging_face import halves_to_pairs, our_name, pairs_to_halves, read_file, rotated_heads, their_name
from ayni.model.shape import Shape
from ayni.model.stored import check_size
from ayni.model.weights import Weight, collected

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_OLD_WEIGHTS = "adapter_model.bin"  # written by older versions of peft
_PREFIX = "base_model.model."
_TASKS: dict[str, Literal["logits", "score"]] = {"CAUSAL_LM": "logits", "SEQ_CLS": "score"}
# What an adapter_config.json may say freely: what is read below, and what changes no number of a trained adapter.
_READ = {"peft_type", "task_type", "r", "lora_alpha", "target_modules", "layers_to_transform", "modules_to_save"}
_FREE = {
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "peft_version", "revision"),
    *("eva_config", "megatron_core", "qalora_group_size", "runtime_config"),
}
# Anything else must be absent, empty or one of these: dora, rslora, biases, patterns, … compute something else.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, "gaussian", "eva", "orthogonal"),  # others change the base's weights too
    "layers_pattern": ("layers", ["layers"]),
}


def is_adapter(directory: Path) -> bool:
    return (directory / CONFIG).is_file()


def their_target(target: Target) -> str:
    """`wq` → `q_proj`."""
    branch = "attention" if target in ("wq", "wk", "wv", "wo") else "feed_forward"
    return their_name(f"layers.0.{branch}.{target}.weight").split(".")[-2]


def their_adapter_name(name: str) -> str:
    """`layers.0.attention.wq.lora_A` → `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`."""
    linear, _, part = name.rpartition(".")
    renamed = their_name(name) if name == SCORE else their_name(f"{linear}.weight")
    return _PREFIX + (renamed if name == SCORE else f"{renamed.removesuffix('weight')}{part}.weight")


def our_adapter_name(name: str) -> str | None:
    """The inverse; None for a name that no adapter of ours has."""
    inner = name.removeprefix(_PREFIX)
    for part in ("lora_A", "lora_B"):
        if inner.endswith(f".{part}.weight"):
            linear = (our_name(inner.removesuffix(f"{part}.weight") + "weight") or "").removesuffix(".weight")
            return f"{linear}.{part}" if linear.rpartition(".")[2] in TARGETS else None
    return SCORE if name == _PREFIX + SCORE else None


def their_adapter_tensors(model: Adapted) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the adapter under its PEFT name, rotated as Hugging Face does."""
    for name, parameter in adapter_tensors(model).items():
        heads = _rotated(name, model.shape)
        tensor = parameter.detach()
        yield their_adapter_name(name), tensor if heads is None else pairs_to_halves(tensor, heads)


def adapter_config_of(model: Adapted, base: str) -> dict[str, Any]:
    """adapter_config.json, for the base model at `base`: no newer keys than it takes, for older versions of peft."""
    lora, score = model.lora, model.shape.head == "score"
    layers = None if lora.layers == "all" else list(range(lora.first_of(model.shape.layers), model.shape.layers))
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if score else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": None,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha.is_integer() else lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": [their_target(target) for target in lora.targets],
        "layers_to_transform": layers,
        "layers_pattern": None,
        "modules_to_save": ["classifier", "score"] if score else None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }


def read_adapter_config(directory: Path) -> dict[str, Any]:
    """adapter_config.json of a LoRA; BadInput for anything with which the numbers would differ from ours."""
    path = directory / CONFIG
    config = read_object(path)
    if config.get("peft_type") != "LORA":
        raise _refusal(config, "peft_type", path, "supported: LORA")
    if config.get("task_type") not in (None, *_TASKS):
        raise _refusal(config, "task_type", path, f"supported: {' and '.join(_TASKS)}")
    for key, value in config.items():
        if key not in _READ | _FREE and value and value not in _HARMLESS.get(key, ()):
            raise _refusal(config, key, path)
    allowed = {"classifier", "score"} if config.get("task_type") == "SEQ_CLS" else set()
    trained = config.get("modules_to_save") or []
    if not isinstance(trained, list) or not all(isinstance(name, str) and name in allowed for name in trained):
        raise _refusal(config, "modules_to_save", path)
    return config


def shape_of_adapted(base: Shape, config: dict[str, Any], path: Path) -> Shape:
    """The shape of the base under such an adapter: a classifier's has a score head of its own."""
    head = _TASKS[config["task_type"]] if config.get("task_type") else "logits"
    if head == "logits" and base.head == "score":
        raise BadInput("its base is a reward model, so it must be SEQ_CLS", path=path, field="task_type")
    return base if head == base.head else replace(base, head=head, tied=False)


def lora_of(config: dict[str, Any], path: Path, layers: int) -> Lora:
    """The settings of an adapter of a model with so many layers, out of adapter_config.json at `path`."""
    rank, alpha = whole(config, "r", path), positive(config, "lora_alpha", path)
    if not 1 <= rank <= LARGEST_RANK:
        raise BadInput(f"{rank} is not from 1 to {LARGEST_RANK:,}", path=path, field="r")
    ours = {their_target(target): target for target in TARGETS}
    named = config.get("target_modules")
    if not isinstance(named, list) or not named or not all(isinstance(n, str) and n in ours for n in named):
        raise _refusal(config, "target_modules", path, f"supported: a list of {', '.join(ours)}")
    targets = tuple(target for theirs, target in ours.items() if theirs in named)
    return Lora(rank=rank, alpha=alpha, layers=_layers(config, path, layers), targets=targets)


def _layers(config: dict[str, Any], path: Path, layers: int) -> int | Literal["all"]:
    chosen = config.get("layers_to_transform")
    if chosen is None or chosen == []:
        return "all"
    chosen = [chosen] if type(chosen) is int else chosen
    last = list(range(layers))[-len(chosen) :] if isinstance(chosen, list) else None
    if not isinstance(chosen, list) or any(type(i) is not int for i in chosen) or sorted(chosen) != last:
        raise _refusal(config, "layers_to_transform", path, f"supported: all, or the last of the {layers} layers")
    return len(chosen)


def adapter_file(directory: Path) -> Path:
    """Where its tensors are; BadInput where there are none."""
    for name in (WEIGHTS, _OLD_WEIGHTS):
        if (directory / name).is_file():
            return directory / name
    raise BadInput(f"no {WEIGHTS}", path=directory)


def read_adapter(directory: Path, base: Shape) -> tuple[Lora, dict[str, Tensor]]:
    """An adapter's settings and tensors, under our names and in at least fp32, for a base of this shape.

    Raises BadInput for a configuration that is not supported, or names the tensor that is missing, unexpected or
    mis-shaped, or the file that is torn.
    """
    shape, lora = _settings(directory, base)
    file = adapter_file(directory)
    weights = _our_adapter_weights(file, shape)
    tensors = collected(adapter_shapes(shape, lora), weights, path=file, source_name=their_adapter_name)
    return lora, {name: tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for name, tensor in tensors.items()}


def check_adapter_size(directory: Path, base: Shape) -> None:
    """As model.stored.check_size, of the adapter alone."""
    sizes = adapter_shapes(*_settings(directory, base)).values()
    check_size(sum(map(math.prod, sizes)), [adapter_file(directory)], directory)


def _settings(directory: Path, base: Shape) -> tuple[Shape, Lora]:
    path, config = directory / CONFIG, read_adapter_config(directory)
    return shape_of_adapted(base, config, path), lora_of(config, path, base.layers)


def _our_adapter_weights(file: Path, shape: Shape) -> Iterator[Weight]:
    for source, tensor in read_file(file):
        name = our_adapter_name(source)
        if name is None:
            raise BadInput(
                "no adapter of a Llama's attention and feed-forward has such a tensor", path=file, field=source
            )
        heads = _rotated(name, shape)
        fits = heads is not None and tensor.dim() == 2 and len(tensor) == heads * shape.head_dim
        yield Weight(source, name, halves_to_pairs(tensor, heads) if heads is not None and fits else tensor)


def _rotated(name: str, shape: Shape) -> int | None:
    """The heads in the rows of B where its weight rotates; None for any A."""
    linear, _, part = name.rpartition(".")
    return rotated_heads(f"{linear}.weight", shape) if part == "lora_B" else None


def _refusal(config: dict[str, Any], key: str, path: Path, fix: str | None = None) -> BadInput:
    return BadInput(f"{shown(config.get(key))} is not supported", path=path, field=key, fix=fix)
