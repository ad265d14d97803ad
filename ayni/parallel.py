"""Ranks: the processes that share one command, and every collective of the project. Alone, each is the identity.

Under torchrun each process takes its share of every step's examples; gradients are summed once, after the last
micro-batch, so any number of processes gives the same step. A process that dies or stands still ends the command: each
one beats, and watches the others' beats (`_Watch`).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")
# gloo waits as long as people or an endpoint take; the watch notices who has died. nccl occupies the device meanwhile.
WAIT = {"gloo": timedelta(days=30), "nccl": timedelta(minutes=30)}
SILENCE = float(os.environ.get("AYNI_SILENCE", "60"))  # seconds without a beat after which a process counts as lost
_watch: _Watch | None = None
_objects: dist.ProcessGroup | None = None  # gloo beside nccl: objects and barriers may wait for people


@dataclass(frozen=True)
class Ranks:
    """`rank` of `size` processes, and the device this one computes on."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @classmethod
    def current(cls) -> Ranks:
        """This process: alone, or one of torchrun's (gloo on CPUs, nccl on GPUs)."""
        cuda = torch.cuda.is_available()
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls(device="cuda" if cuda else "cpu")
        rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
        if cuda:
            torch.cuda.set_device(local)
        if not dist.is_initialized():
            _join("nccl" if cuda else "gloo", rank, size)
        return cls(rank, size, f"cuda:{local}" if cuda else "cpu")

    @property
    def leads(self) -> bool:
        """Of several processes the first one writes, asks people and talks."""
        return self.rank == 0

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
        dist.all_gather_object(parts, part, group=_objects)
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
            dist.barrier(_objects)


def once(path: Path, make: Callable[[], None]) -> None:
    """The first process makes what is not at `path` yet, and all wait until it is there."""
    ranks = Ranks.current()
    if ranks.leads and not path.exists():
        make()
    ranks.barrier()


def _join(backend: str, rank: int, size: int) -> None:
    global _objects, _watch
    store, _, _ = next(dist.rendezvous("env://", rank, size, timeout=timedelta(minutes=5)))
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=WAIT[backend])
    if backend == "nccl":
        _objects = dist.new_group(backend="gloo", timeout=WAIT["gloo"])
    _watch = _Watch(dist.PrefixStore("watch", store), rank, size)
    _watch.start()


def leave(code: int) -> None:
    """End this process with this exit code, where it is one of several; none leaves in success before all are done.

    A launcher gives those who stay behind a few seconds only, and the first process may have a report to write.
    At once: where Python takes it apart, a thread of gloo's or the watch aborts it now and then (exit 134).
    """
    if not dist.is_initialized():
        return
    if code == 0:
        try:
            dist.barrier(_objects)
        except RuntimeError:
            _give_up("another process of this command has ended")
        if _watch is not None:
            _watch.say_goodbye()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class _Watch(threading.Thread):
    """Beats once a second, and ends this process with one line when another has not beaten for SILENCE seconds.

    A collective waits for ever for a process that was stopped or whose machine is gone; its connection stays open.
    """

    def __init__(self, store: dist.Store, rank: int, size: int) -> None:
        super().__init__(daemon=True, name="watch")
        self.store, self.rank = store, rank
        self.others = [other for other in range(size) if other != rank]
        self.looked = time.monotonic()
        self.left = False  # this process has done its work

    def run(self) -> None:
        threading.Thread(target=self._watch_the_store, daemon=True, name="watch-store").start()
        now = time.monotonic()
        # its beats, and when we last saw a new one
        seen: dict[int, tuple[int | None, float]] = dict.fromkeys(self.others, (None, now))
        while not self.left:
            try:
                self.store.add(f"beat-{self.rank}", 1)
                self.looked = time.monotonic()
                for other in list(seen):
                    if self.store.add(f"left-{other}", 0):
                        del seen[other]
                        continue
                    beats, now = self.store.add(f"beat-{other}", 0), time.monotonic()
                    if beats != seen[other][0]:
                        seen[other] = (beats, now)
                    elif now - seen[other][1] > SILENCE:
                        _give_up(f"process {other} of this command has not answered for {SILENCE:.0f} s")
            except RuntimeError:  # the store lives in the first process; its end ends the collectives, which tell
                self.looked = float("inf")
                return
            time.sleep(min(1.0, SILENCE / 4))

    def _watch_the_store(self) -> None:
        """The first process holds the store: where it stands still, so does every question to it."""
        while time.monotonic() - self.looked <= SILENCE + 1:
            time.sleep(min(1.0, SILENCE / 4))
        _give_up(f"process 0 of this command has not answered for {SILENCE:.0f} s")

    def say_goodbye(self) -> None:
        """This process has done its work: its silence means nothing from here on.

        The first one, where the store lives, goes last: who asks a store that is gone is told so at length.
        """
        self.left = True
        self.store.add(f"left-{self.rank}", 1)
        until = time.monotonic() + SILENCE
        while self.rank == 0 and time.monotonic() < until:
            if all(self.store.add(f"left-{other}", 0) for other in self.others):
                return
            time.sleep(0.01)


def _give_up(why: str) -> None:
    """The main thread waits inside a collective and cannot be woken: end the process from here, with exit code 1."""
    print(f"{why}; the same command continues", file=sys.stderr, flush=True)
    os._exit(1)
