"""A control at equal compute: how long to train for as many operations as other stages took."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ayni.errors import BadInput
from ayni.files import read_json
from ayni.model.compute import Compute, of_tokens
from ayni.model.shape import Shape
from ayni.records import TokenSequence, from_dict


def epochs_for(spent: Sequence[Path], shape: Shape, sequences: Sequence[TokenSequence]) -> float:
    """Epochs over these sequences that take as many operations as the stages did whose compute.json are `spent`."""
    total = sum((from_dict(Compute, read_json(path), path=path) for path in map(Path, spent)), Compute())
    if not total.flops:
        raise BadInput("nothing was computed there", path=spent[0], field="spent", fix="give stages that train or draw")
    return total.flops / of_tokens(shape, sum(len(s.tokens) for s in sequences), backward=True).flops
