"""What a stage computes, counted while it does: tokens forward and backward, the operations, and the time they took.

Two floating-point operations for each weight that a token meets on the way forward, four on the way back (6·N·D; Kaplan
et al. 2020, §2.1), as if every token met all of them, though the last block and the head are asked at some columns
alone. Embeddings are looked up, and count as far as they are the head too; attention's scores, norms and what is
computed twice to save memory do not count. Sampling reads a prompt once, and every token that it draws.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from ayni.model.shape import Shape


@dataclass(frozen=True, slots=True)
class Compute:
    """Tokens read forward and backward, and floating-point operations."""

    forward: int = 0
    backward: int = 0
    flops: int = 0

    def __add__(self, other: Compute) -> Compute:
        return Compute(self.forward + other.forward, self.backward + other.backward, self.flops + other.flops)

    def __sub__(self, other: Compute) -> Compute:
        return Compute(self.forward - other.forward, self.backward - other.backward, self.flops - other.flops)


def weights_met(shape: Shape) -> int:
    """How many weights a token is multiplied by."""
    embeddings = 0 if shape.tied and shape.head == "logits" else shape.vocab * shape.dim
    return shape.parameters - embeddings


def of_tokens(shape: Shape, tokens: int, *, backward: bool = False) -> Compute:
    """Of so many tokens forward, and backward after that."""
    times = 6 if backward else 2
    return Compute(tokens, tokens if backward else 0, times * weights_met(shape) * tokens)


class Meter:
    """What this process has computed since it was set, and how long that took; micro-batches side by side may add.

    What an interrupted stage did before, as far as it was kept, is added where it goes on, with its seconds.
    """

    def __init__(self) -> None:
        self._lock, self._read, self._since = threading.Lock(), Compute(), time.monotonic()

    def add(self, more: Compute, seconds: float = 0.0) -> None:
        with self._lock:
            self._read = self._read + more
            self._since -= seconds

    def set(self, to: Compute, seconds: float = 0.0) -> None:
        with self._lock:
            self._read, self._since = to, time.monotonic() - seconds

    @property
    def read(self) -> Compute:
        return self._read

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._since


METER = Meter()  # of the stage that runs: one a process, as there is one stage at a time
