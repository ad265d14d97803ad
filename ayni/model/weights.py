"""A Transformer from named tensors of any source: every weight present, none left over, every shape right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ayni.errors import BadInput
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer

FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}


class Weight(NamedTuple):
    """One tensor on its way in: what its file calls it, what `Transformer` calls it, and its value in our layout."""

    source: str
    name: str
    tensor: Tensor


def parameter_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Our name of every parameter → its sizes; nothing is allocated."""
    with torch.device("meta"):
        return {name: tuple(p.shape) for name, p in Transformer(shape).named_parameters()}


def assemble(
    shape: Shape,
    weights: Iterable[Weight],
    *,
    path: Path,
    dtype: torch.dtype | None = None,
    source_name: Callable[[str], str] = str,
) -> Transformer:
    """The model with exactly these weights, copied into memory of its own, in `dtype` (as stored: None).

    Raises BadInput that names the tensor which is missing (as `source_name` of ours), unexpected, given twice,
    mis-shaped, or holds anything but finite numbers.
    """
    with torch.device("meta"):
        model = Transformer(shape)
    wanted = {name: tuple(p.shape) for name, p in model.named_parameters()}
    state = collected(wanted, weights, path=path, dtype=dtype, source_name=source_name)
    model.load_state_dict(state, assign=True)
    return model


def collected(
    wanted: Mapping[str, tuple[int, ...]],
    weights: Iterable[Weight],
    *,
    path: Path,
    dtype: torch.dtype | None = None,
    source_name: Callable[[str], str] = str,
) -> dict[str, Tensor]:
    """The `wanted` tensors by our names, each of its sizes and in memory of its own; BadInput as in `assemble`."""
    state: dict[str, Tensor] = {}
    for source, name, tensor in weights:
        if name not in wanted:
            raise BadInput("the configuration has no such weight", path=path, field=source)
        if name in state:
            raise BadInput("the weight is there twice", path=path, field=source)
        # load_state_dict would say so too, but not which file and which of its names
        if tuple(tensor.shape) != wanted[name]:
            sizes, expected = ("×".join(map(str, size)) for size in (tensor.shape, wanted[name]))
            raise BadInput(f"the weight is {sizes}, the configuration says {expected}", path=path, field=source)
        if tensor.dtype not in FLOATS:
            raise BadInput(f"the weight holds {tensor.dtype}, not real numbers", path=path, field=source)
        # one pass beside the copy's: a model that says NaN is found out here, and not by its answers
        if not all(bound.isfinite() for bound in tensor.aminmax()):
            raise BadInput("the weight holds NaN or infinity", path=path, field=source)
        # a copy: what readers hand out may be a view into a mapped file
        state[name] = tensor.to(dtype or tensor.dtype, copy=True).contiguous()
    missing = [name for name in wanted if name not in state]
    if missing:
        more = f", and so are {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadInput(f"the weight is missing{more}", path=path, field=source_name(missing[0]))
    return state
