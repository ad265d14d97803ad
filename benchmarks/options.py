"""What one comparison is run with, and the command line that says so."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from typing import Any

import torch

from ayni.model.precision import DTYPES, NAMES, compute_dtype


@dataclass(frozen=True)
class Options:
    """Of one side: the same on both, but for the number format where formats are compared."""

    shape: str = "A"
    dtype: str = "fp32"
    threads: int = 1
    pairs: int = 5
    steps: int = 2  # of a turn: optimiser steps, rollouts, saves, passes over a file
    device: str = "cpu"
    variant: str = ""  # of the work, where it has several

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def all_steps(self) -> int:
        """Of all turns: the pairs and one to warm up."""
        return (self.pairs + 1) * self.steps


@dataclass(frozen=True)
class Asked:
    """What the command line asked for: sides in these number formats, these peers only."""

    options: Options
    dtypes: tuple[str, ...]
    peers: tuple[str, ...] | None

    def each(self) -> list[Options]:
        return [replace(self.options, dtype=dtype) for dtype in self.dtypes]


def asked(description: str, *, steps: int, variants: tuple[str, ...], argv: list[str] | None = None) -> Asked:
    """From the command line; `auto` becomes what this machine's recipes would compute in."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--shape", choices=("A", "B", "tiny"), default="A")
    parser.add_argument("--dtype", nargs="+", choices=("fp32", "bf16", "auto"), default=["fp32"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--pairs", type=int, default=5, help="turns of each side that count")
    parser.add_argument("--steps", type=int, default=steps, help="of one turn")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peers", nargs="*", help="only these; none after it: ayni alone")
    if variants:
        parser.add_argument("--variant", choices=variants, default=variants[0])
    given: dict[str, Any] = vars(parser.parse_args(argv))
    dtypes = tuple(dict.fromkeys(NAMES[compute_dtype(d, given["device"])] for d in given.pop("dtype")))
    peers = given.pop("peers")
    return Asked(Options(**given, dtype=dtypes[0]), dtypes, None if peers is None else tuple(peers))
