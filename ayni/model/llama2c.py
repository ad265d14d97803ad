"""llama2.c's version-0 `.bin`: seven int32, then every matrix in fp32, layer by layer within its kind.

Order: token embedding, attention norms, wq, wk, wv, wo, FFN norms, w1, w2, w3, final norm, the rotary tables (cosines,
then sines), and the output matrix unless it is tied (a negative vocabulary size says that it is not). Pairs rotate.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ayni.errors import BadInput
from ayni.files import atomic_file
from ayni.memory import need_memory
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer
from ayni.model.weights import Weight, assemble, parameter_shapes

_HEADER = struct.Struct("<7i")
_MAGIC = 0x616B3432  # "ak42": versions 1 and later
_KINDS = (
    "attention_norm",
    "attention.wq",
    "attention.wk",
    "attention.wv",
    "attention.wo",
    "ffn_norm",
    "feed_forward.w1",
    "feed_forward.w2",
    "feed_forward.w3",
)
# llama2.c has these built in.
_EPS, _THETA = 1e-5, 10000.0


def read_shape(path: Path) -> Shape:
    """The sizes in the header; BadInput when they make no sense or the file is not exactly as long as they say."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEADER.size)
        size = path.stat().st_size
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", path=path) from None
    if len(head) < _HEADER.size:
        raise BadInput("not a llama2.c model: shorter than its header", path=path)
    dim, hidden, layers, heads, kv_heads, vocab, context = _HEADER.unpack(head)
    if dim == _MAGIC:
        raise BadInput(f"llama2.c version {hidden} is not supported", path=path, fix="export it as version 0")
    try:
        shape = Shape(dim, layers, heads, kv_heads, hidden, abs(vocab), context, _EPS, _THETA, tied=vocab > 0)
    except ValueError as error:
        raise BadInput(f"not a llama2.c model ({error})", path=path) from None
    expected = _HEADER.size + 4 * (shape.parameters + context * shape.head_dim)
    if size != expected:
        raise BadInput(f"{size:,} bytes long, but its header says {expected:,}", path=path)
    return shape


def read_llama2c(path: Path, *, dtype: torch.dtype | None = None) -> Transformer:
    """The model in a version-0 file, in `dtype` (fp32: None). Raises BadInput for any other file."""
    shape = read_shape(path)
    need_memory(2 * path.stat().st_size, f"{path}: a model of {shape.parameters:,} parameters")
    floats = torch.from_numpy(np.fromfile(path, dtype="<f4", offset=_HEADER.size))
    tables = floats[shape.parameters - _head_size(shape) :][: shape.context * shape.head_dim]
    if (tables - rotary_tables(shape)).abs().max() > 1e-3:
        raise BadInput("its rotary tables are not those of llama2.c (θ = 10,000)", path=path)
    return assemble(shape, _cut(floats, shape), path=path, dtype=dtype)


def _head_size(shape: Shape) -> int:
    return 0 if shape.tied else shape.vocab * shape.dim


def _names(shape: Shape) -> list[str]:
    blocks = [f"layers.{i}.{kind}.weight" for kind in _KINDS for i in range(shape.layers)]
    return ["tok_embeddings.weight", *blocks, "norm.weight"]


def _cut(floats: Tensor, shape: Shape) -> Iterator[Weight]:
    sizes = parameter_shapes(shape)
    start = 0
    for name in _names(shape):
        count = int(np.prod(sizes[name]))
        yield Weight(name, name, floats[start : start + count].view(sizes[name]))
        start += count
    if not shape.tied:
        name = "output.weight"
        yield Weight(name, name, floats[-_head_size(shape) :].view(sizes[name]))


def rotary_tables(shape: Shape) -> Tensor:
    """Cosines (context, d/2), then sines, flat: angles pos·θ^(−2i/d) in fp32."""
    half = torch.arange(0, shape.head_dim, 2).float()
    angles = torch.outer(torch.arange(shape.context).float(), 1.0 / _THETA ** (half / shape.head_dim))
    return torch.cat([angles.cos().flatten(), angles.sin().flatten()])


def write_llama2c(path: Path, model: Transformer) -> None:
    """The model as a version-0 file, in fp32. Raises BadInput for what llama2.c cannot compute."""
    shape = model.shape
    if shape.head == "score":
        raise BadInput("a reward model has no llama2.c format", field="format", fix="export it as hf")
    if (shape.norm_eps, shape.theta) != (_EPS, _THETA):
        what = f"llama2.c has norm_eps {_EPS} and θ {_THETA:g} built in; this model has {shape.norm_eps}"
        raise BadInput(f"{what} and {shape.theta:g}", field="format")
    weights = dict(model.named_parameters())
    vocab = shape.vocab if shape.tied else -shape.vocab
    header = (shape.dim, shape.hidden, shape.layers, shape.heads, shape.kv_heads, vocab, shape.context)
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        file.write(_HEADER.pack(*header))
        for name in _names(shape):
            file.write(_bytes(weights[name].detach()))
        file.write(_bytes(rotary_tables(shape)))
        if not shape.tied:
            file.write(_bytes(weights["output.weight"].detach()))


def _bytes(tensor: Tensor) -> bytes:
    return tensor.cpu().float().contiguous().numpy().astype("<f4", copy=False).tobytes()
