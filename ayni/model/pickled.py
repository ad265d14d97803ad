"""PyTorch's `.pth` and `.bin` files, read without unpickling anything but tensors."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

from ayni.errors import BadInput


def load_tensors(path: Path) -> dict[str, Tensor]:
    """A file's tensors by name, mapped into memory rather than read; BadInput for anything else in it."""
    try:
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise BadInput(f"not a whole file of tensors ({str(error).splitlines()[0][:120]})", path=path) from None
    if not isinstance(value, dict):
        raise BadInput("expected tensors by name", path=path)
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise BadInput("expected tensors by name", path=path, field=str(name))
    return value
