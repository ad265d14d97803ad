"""Examples in as many parts as there are cores: for passes without a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

from ayni.cores import cores
from ayni.train.batch import tokens_in

E = TypeVar("E")


def shares(examples: Sequence[E], tokens_per_micro_batch: int, device: torch.device | str) -> list[list[E]]:
    """The examples in order, in parts for `side_by_side` of nearly as many tokens each: the cores share the tokens of a
    micro-batch, and none goes without. A part may have half an example too much."""
    whole = sum(map(tokens_in, examples))
    count = cores(device) * -(-whole // max(1, tokens_per_micro_batch))
    parts: list[list[E]] = [[] for _ in range(count)]
    done = 0
    for example in examples:
        # where its middle lies
        parts[(2 * done + tokens_in(example)) * count // (2 * whole)].append(example)
        done += tokens_in(example)
    return [part for part in parts if part]
