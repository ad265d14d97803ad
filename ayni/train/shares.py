"""Examples in as many parts as there are cores: for passes without a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

from ayni.cores import cores
from ayni.train.batch import cut, tokens_in

E = TypeVar("E")


def shares(examples: Sequence[E], tokens_per_micro_batch: int, device: torch.device | str) -> list[list[E]]:
    """As `cut`, for `side_by_side`: the cores share the tokens of a micro-batch, and no core goes without."""
    among = cores(device)
    whole = sum(map(tokens_in, examples))
    return list(cut(examples, max(1, min(tokens_per_micro_batch // among, -(-whole // among)))))
