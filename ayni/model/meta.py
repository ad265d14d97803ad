"""Meta's own layout: params.json and 1 to 8 `consolidated.NN.pth`, each a slice of every matrix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ayni.errors import BadInput
from ayni.files import read_object, write_json
from ayni.model.fields import positive, whole
from ayni.model.pickled import load_tensors
from ayni.model.shape import Shape, ffn_hidden
from ayni.model.stored import check_size
from ayni.model.transformer import Transformer
from ayni.model.weights import Weight, assemble

SHARDS = range(1, 9)
# Rows are split of what reads the stream, columns of what writes to it (Megatron's model parallelism).
_JOIN = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "wo": 1, "w2": 1, "tok_embeddings": 1}
_KNOWN = {
    *("dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier", "norm_eps"),
    *("rope_theta", "use_scaled_rope"),
}


def _join_dim(name: str) -> int | None:
    """The dimension along which the shards of this weight lie; None for a norm, which every shard holds whole."""
    return _JOIN.get(name.removesuffix(".weight").rpartition(".")[2])


def read_meta(directory: Path, *, context: int = 4096, dtype: torch.dtype | None = None) -> Transformer:
    """The model in a Meta directory, in `dtype` (as stored: None).

    The format does not know the model's `context`. Raises BadInput for anything missing, unexpected or torn.
    """
    files = sorted(directory.glob("consolidated.*.pth"))
    if [file.name for file in files] != [f"consolidated.{i:02d}.pth" for i in range(len(files))] or not files:
        names = ", ".join(file.name for file in files[:9]) or "none"
        raise BadInput(f"expected consolidated.00.pth, consolidated.01.pth, … in a row, found {names}", path=directory)
    shards = [load_tensors(file) for file in files]
    for file, shard in zip(files, shards, strict=True):
        odd = min(shard.keys() ^ shards[0].keys(), default=None)
        if odd is not None:
            raise BadInput("only some shards have this weight", path=file, field=odd)
    shape = _shape_of(directory / "params.json", shards, context)
    check_size(shape.parameters, files, directory, None if dtype is None else dtype.itemsize)
    return assemble(shape, _joined(shards, directory), path=directory, dtype=dtype)


def _joined(shards: list[dict[str, Tensor]], path: Path) -> Iterator[Weight]:
    for name in shards[0]:
        if name == "rope.freqs":  # a buffer that can be computed
            continue
        parts = [shard[name] for shard in shards]
        dim = _join_dim(name)
        if dim is None:
            yield Weight(name, name, parts[0])
            continue
        if any(part.dim() != 2 or part.shape != parts[0].shape for part in parts):
            raise BadInput("its shards differ in size", path=path, field=name)
        yield Weight(name, name, torch.cat(parts, dim))


def _shape_of(path: Path, shards: list[dict[str, Tensor]], context: int) -> Shape:
    params = read_object(path)
    for key in sorted(params.keys() - _KNOWN):
        raise BadInput("unknown parameter: it could change what the model computes", path=path, field=key)
    if params.get("use_scaled_rope"):
        raise BadInput("scaled rotary positions are not supported", path=path, field="use_scaled_rope")
    dim, heads = whole(params, "dim", path), whole(params, "n_heads", path)
    vocab = whole(params, "vocab_size", path, -1)
    if vocab == -1:  # Meta's files leave it to the tokenizer
        output = shards[0].get("output.weight")
        if output is None:
            raise BadInput("the weight is missing", path=path.parent, field="output.weight")
        vocab = len(output) * len(shards)
    multiplier = params.get("ffn_dim_multiplier")
    if multiplier is not None:
        multiplier = positive(params, "ffn_dim_multiplier", path)
    multiple_of = whole(params, "multiple_of", path, 256)
    if dim < 1 or multiple_of < 1:
        raise BadInput("dim and multiple_of must be positive", path=path)
    try:
        return Shape(
            dim=dim,
            layers=whole(params, "n_layers", path),
            heads=heads,
            kv_heads=whole(params, "n_kv_heads", path, heads),
            hidden=ffn_hidden(dim, multiple_of, multiplier),
            vocab=vocab,
            context=context,
            norm_eps=positive(params, "norm_eps", path, 1e-5),
            theta=positive(params, "rope_theta", path, 10000.0),
        )
    except ValueError as error:
        raise BadInput(str(error), path=path) from None


def write_meta(directory: Path, model: Transformer, *, shards: int = 1) -> None:
    """params.json and `shards` files in this (existing) directory, in the model's own dtype.

    Meta has no tied models: a tied head is written out. Raises BadInput where a size does not divide by `shards`, or
    for a reward model, which has no Meta format.
    """
    shape = model.shape
    if shape.head == "score":
        raise BadInput("a reward model has no Meta format", field="format", fix="export it as hf")
    if shards not in SHARDS:
        raise BadInput(f"{shards} is not from 1 to 8", field="shards")
    for name in ("dim", "heads", "kv_heads", "hidden", "vocab"):
        if getattr(shape, name) % shards:
            raise BadInput(f"the model's {name} ({getattr(shape, name)}) does not divide by {shards}", field="shards")
    write_json(directory / "params.json", params_of(shape))
    tensors = {name: parameter.detach().cpu() for name, parameter in model.named_parameters()}
    tensors.setdefault("output.weight", tensors["tok_embeddings.weight"])
    for i in range(shards):
        part = {name: _slice(name, tensor, i, shards) for name, tensor in tensors.items()}
        with open(directory / f"consolidated.{i:02d}.pth", "wb") as file:  # torch's own file hides why it failed
            torch.save(part, file)


def _slice(name: str, tensor: Tensor, i: int, shards: int) -> Tensor:
    dim = _join_dim(name)
    return (tensor if dim is None else tensor.chunk(shards, dim)[i]).clone()


def params_of(shape: Shape) -> dict[str, Any]:
    """params.json: `multiple_of` and `ffn_dim_multiplier` are found so that the hidden size comes out right."""
    multiple_of, multiplier = ffn_settings(shape.dim, shape.hidden)
    params: dict[str, Any] = {
        "dim": shape.dim,
        "multiple_of": multiple_of,
        "n_heads": shape.heads,
        "n_kv_heads": shape.kv_heads,
        "n_layers": shape.layers,
        "norm_eps": shape.norm_eps,
        "vocab_size": shape.vocab,
    }
    if multiplier is not None:
        params["ffn_dim_multiplier"] = multiplier
    if shape.theta != 10000.0:
        params["rope_theta"] = shape.theta
    return params


def ffn_settings(dim: int, hidden: int) -> tuple[int, float | None]:
    """(multiple_of, multiplier) with ffn_hidden(dim, …) == hidden: the paper's own where they fit."""
    for settings in [(256, None), (4096, 1.3), *((1 << n, None) for n in range(12, -1, -1))]:
        if ffn_hidden(dim, *settings) == hidden:
            return settings
    return 1, (hidden + 0.5) / int(2 * 4 * dim / 3)  # + ½: rounding down always lands on `hidden`
