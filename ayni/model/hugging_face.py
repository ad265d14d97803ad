"""Hugging Face's Llama: its names, its rotation of halves, its config.json and its weight files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ayni.errors import BadInput
from ayni.model.fields import positive, shown, whole
from ayni.model.pickled import load_tensors
from ayni.model.shape import Shape
from ayni.model.stored import weight_files
from ayni.model.transformer import Transformer
from ayni.model.weights import Weight

CAUSAL, CLASSIFIER = "LlamaForCausalLM", "LlamaForSequenceClassification"
_TOP = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "score.weight": "score.weight",
}
_BLOCK = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_TOP_BACK = {theirs: ours for ours, theirs in _TOP.items()}
_BLOCK_BACK = {theirs: ours for ours, theirs in _BLOCK.items()}
_OLD_BUFFER = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")  # written by transformers < 4.31


def their_name(name: str) -> str:
    """`layers.0.attention.wq.weight` → `model.layers.0.self_attn.q_proj.weight`."""
    if name in _TOP:
        return _TOP[name]
    _, layer, part = name.removesuffix(".weight").split(".", 2)
    return f"model.layers.{layer}.{_BLOCK[part]}.weight"


def our_name(name: str) -> str | None:
    """The inverse; None for a name that no Llama has."""
    if name in _TOP_BACK:
        return _TOP_BACK[name]
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.weight", name)
    if not found or found[2] not in _BLOCK_BACK:
        return None
    return f"layers.{found[1]}.{_BLOCK_BACK[found[2]]}.weight"


def pairs_to_halves(weight: Tensor, heads: int) -> Tensor:
    """Rows of wq or wk (heads·d_h, D) for a rotation of pairs (2i, 2i+1) → for one of halves (i, i + d_h/2)."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def halves_to_pairs(weight: Tensor, heads: int) -> Tensor:
    """The inverse of `pairs_to_halves`."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def rotated_heads(name: str, shape: Shape) -> int | None:
    """How many heads the rows of this weight hold, where they rotate: wq's and wk's."""
    return {"wq": shape.heads, "wk": shape.kv_heads}.get(name.removesuffix(".weight").rpartition(".")[2])


def their_tensors(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """Every weight under its Hugging Face name, rotated as Hugging Face does; a tied head is left out."""
    for name, parameter in model.named_parameters():
        heads = rotated_heads(name, model.shape)
        tensor = parameter.detach()
        yield their_name(name), tensor if heads is None else pairs_to_halves(tensor, heads)


def our_weights(directory: Path, shape: Shape) -> Iterator[Weight]:
    """The directory's weights under our names; BadInput for a file that is missing or torn."""
    embedding: Tensor | None = None
    tied_copy: Tensor | None = None
    for source, tensor in read_tensors(directory):
        name = our_name(source)
        if name is None:
            if _OLD_BUFFER.fullmatch(source):
                continue
            raise BadInput("Llama has no such weight", path=directory, field=source)
        if name == "output.weight" and shape.tied:
            tied_copy = tensor  # some writers keep the shared matrix under both names
            continue
        if name == "tok_embeddings.weight":
            embedding = tensor
        heads = rotated_heads(name, shape)
        fits = heads is not None and tensor.dim() == 2 and len(tensor) == heads * shape.head_dim
        yield Weight(source, name, halves_to_pairs(tensor, heads) if heads is not None and fits else tensor)
    if tied_copy is not None and (embedding is None or not torch.equal(tied_copy, embedding)):
        raise BadInput("differs from the embedding it is tied to", path=directory, field="lm_head.weight")


def read_tensors(directory: Path) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of all the directory's weight files."""
    files = weight_files(directory)
    return (item for file in files for item in read_file(file))


def read_file(path: Path) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of one .safetensors or .bin file; BadInput when it is torn."""
    if path.suffix == ".bin":
        yield from load_tensors(path).items()
        return
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"not a whole safetensors file ({str(error)[:120]})", path=path) from None


def config_of(shape: Shape, *, dtype: torch.dtype, bos: int, eos: int, pad: int) -> dict[str, Any]:
    """config.json; every transformers since 4.31 reads it. `pad` must not be EOS."""
    score = shape.head == "score"
    return {
        "architectures": [CLASSIFIER if score else CAUSAL],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.dim,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.theta,
        "rope_scaling": None,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": shape.tied and not score,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "use_cache": True,
        **({"id2label": {"0": "score"}, "label2id": {"score": 0}, "problem_type": "regression"} if score else {}),
    }


def shape_of(config: dict[str, Any], path: Path) -> Shape:
    """The shape a config.json describes; BadInput for any Llama variant whose numbers would differ from ours."""
    head = _head(config, path)
    refused = {
        "attention_bias": (False, None),
        "mlp_bias": (False, None),
        "hidden_act": ("silu", None),
        "quantization_config": (None,),
        "sliding_window": (None,),
    }
    for key, allowed in refused.items():
        if config.get(key) not in allowed:
            raise BadInput(f"{shown(config[key])} is not supported", path=path, field=key)
    heads = whole(config, "num_attention_heads", path)
    norm_eps, theta = positive(config, "rms_norm_eps", path, 1e-6), _theta(config, path)
    sizes = (
        whole(config, "hidden_size", path),
        whole(config, "num_hidden_layers", path),
        heads,
        whole(config, "num_key_value_heads", path, heads),
        whole(config, "intermediate_size", path),
        whole(config, "vocab_size", path),
        whole(config, "max_position_embeddings", path, 2048),
    )
    tied = head == "logits" and config.get("tie_word_embeddings") is True
    try:
        shape = Shape(*sizes, norm_eps=norm_eps, theta=theta, tied=tied, head=head)
    except ValueError as error:
        raise BadInput(str(error), path=path) from None
    if config.get("head_dim") not in (None, shape.head_dim):
        raise BadInput(
            f"{shown(config['head_dim'])} is not hidden_size / num_attention_heads", path=path, field="head_dim"
        )
    return shape


def _head(config: dict[str, Any], path: Path) -> Literal["logits", "score"]:
    kinds = config.get("architectures")
    if config.get("model_type", "llama") != "llama" or kinds not in ([CAUSAL], [CLASSIFIER]):
        what = f"{shown(kinds or config.get('model_type'))} is not supported"
        raise BadInput(what, path=path, field="architectures", fix=f"supported: {CAUSAL} and {CLASSIFIER}")
    if kinds == [CAUSAL]:
        return "logits"
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)
    if count != 1:
        raise BadInput(f"a reward model has one label, this one {shown(count)}", path=path, field="id2label")
    return "score"


def _theta(config: dict[str, Any], path: Path) -> float:
    """Plain rotary positions only: from `rope_theta`, or as transformers 5 writes them."""
    theta = positive(config, "rope_theta", path, 10000.0)
    for key in ("rope_scaling", "rope_parameters"):
        settings = config.get(key)
        if settings is None:
            continue
        plain = isinstance(settings, dict) and settings.get("rope_type", settings.get("type")) in (None, "default")
        if not plain or not set(settings) <= {"rope_type", "type", "rope_theta"}:
            raise BadInput(f"{shown(settings)} is not supported", path=path, field=key)
        theta = positive(settings, "rope_theta", path, theta)
    return theta
