"""Every collective of the project. Alone, each is the identity.

Under torchrun each process takes its share of every step's examples; gradients are summed once, after the last
micro-batch, so any world size gives the same step.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")
WAIT = timedelta(days=30)  # for another process, which may be asking people or an endpoint; one that died is noticed


@dataclass(frozen=True)
class World:
    """`rank` of `size` processes, and the device this one computes on."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    def sum(self, x: Tensor) -> Tensor:
        if self.size > 1:
            x = x.clone()
            dist.all_reduce(x)
        return x

    def max(self, n: int) -> int:
        if self.size == 1:
            return n
        most = torch.tensor(n, device=self.device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return int(most)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """One all-reduce over all gradients laid end to end."""
        if self.size == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of the items; the parts differ in size by at most one."""
        return list(items[self.rank :: self.size])

    def gather(self, part: list[T]) -> list[T]:
        """What every process holds, put back in the order `share` took it from."""
        if self.size == 1:
            return part
        parts: list[list[T]] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, part)
        whole = sum(len(p) for p in parts)
        return [parts[i % self.size][i // self.size] for i in range(whole)]

    def gather_rows(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        """The rows of every process in one tensor: x holds this one's items, of these sizes, end to end."""
        if self.size == 1:
            return x
        # copies: a view would be sent with the whole tensor behind it
        return torch.cat(self.gather([part.clone() for part in x.split(list(sizes))]))

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def world() -> World:
    """This process's place: alone, or one of torchrun's (gloo on CPUs, nccl on GPUs)."""
    cuda = torch.cuda.is_available()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(device="cuda" if cuda else "cpu")
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if cuda:
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=WAIT)
    return World(rank, size, f"cuda:{local}" if cuda else "cpu")


def leave() -> None:
    """End this process with success, where it is one of several.

    At once: where Python takes it apart, a thread of gloo's aborts it now and then, after all its work (exit 134).
    """
    if dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
