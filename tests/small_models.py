"""Models of a few thousand numbers, and what the tests of weights do to them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ayni.errors import BadInput
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise
from ayni.text.tokenizer import Tokenizer, train_tokenizer

VOCAB = 284


def small_tokenizer() -> Tokenizer:
    return train_tokenizer(["the village by the river and the baker of the village"] * 3, VOCAB)


def build(vocab: int = VOCAB, **change: Any) -> Transformer:
    shape = Shape(dim=16, layers=2, heads=4, kv_heads=4, hidden=24, vocab=vocab, context=64)
    return initialise(Transformer(replace(shape, **change)), 0)


def same(a: Transformer, b: Transformer) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return a.shape == b.shape and left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def refused(call: Callable[[], object]) -> str:
    """The one line that the call fails with."""
    with pytest.raises(BadInput) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 600
    return line


def edit_json(path: Path, **change: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def truncate(name: str, keep: float) -> Callable[[Path], None]:
    def cut(directory: Path) -> None:
        os.truncate(directory / name, int((directory / name).stat().st_size * keep))

    return cut
