"""Work side by side on the cores of one process: order, threads, gradients, failures and interruptions."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from tiny import policy, prompts

from ayni.cores import cores, side_by_side
from ayni.rollout import local
from ayni.rollout.engine import requests_of
from ayni.rollout.sampling import Sampling


@pytest.fixture
def threads() -> Iterator[int]:
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(1)


def test_an_accelerator_counts_as_one(threads: int) -> None:
    assert cores("cpu") == threads
    assert cores("cuda") == 1


def test_parts_come_back_in_order_and_each_computes_on_one_core(threads: int) -> None:
    def work(part: int) -> tuple[int, int, str]:
        time.sleep(0.01 * (5 - part))
        return part, torch.get_num_threads(), threading.current_thread().name

    found = side_by_side(work, range(5))
    assert [part for part, _, _ in found] == list(range(5))
    assert {number for _, number, _ in found} == {1}
    assert len({name for _, _, name in found}) > 1
    assert torch.get_num_threads() == threads


def test_few_parts_share_the_cores_unless_each_wants_one(threads: int) -> None:
    assert side_by_side(lambda _: torch.get_num_threads(), [0]) == [threads]
    assert side_by_side(lambda _: torch.get_num_threads(), [0], alone=True) == [1]
    torch.set_num_threads(2 * threads)
    assert side_by_side(lambda _: torch.get_num_threads(), range(threads)) == [2] * threads
    assert side_by_side(lambda _: torch.get_num_threads(), range(threads), alone=True) == [1] * threads
    assert side_by_side(lambda _: 0, []) == []


def test_parts_know_whether_gradients_are_wanted(threads: int) -> None:
    with torch.no_grad():
        assert side_by_side(lambda _: torch.is_grad_enabled(), range(4)) == [False] * 4
    assert side_by_side(lambda _: torch.is_grad_enabled(), range(4)) == [True] * 4


def test_the_first_failure_is_raised_when_all_have_ended(threads: int) -> None:
    ended = []

    def work(part: int) -> None:
        if part == 1:
            raise ValueError("one")
        time.sleep(0.05)
        ended.append(part)

    with pytest.raises(ValueError, match="one"):
        side_by_side(work, range(3))
    assert sorted(ended) == [0, 2]


INTERRUPTED = """
import os, signal, threading, time, torch
from ayni.cores import side_by_side

torch.set_num_threads(3)
going, ended = threading.Semaphore(0), []

def work(part):
    try:
        going.release()
        while True:
            time.sleep(0.001)
    finally:
        ended.append(part)

def interrupt():
    for _ in range(3):
        going.acquire()
    os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=interrupt).start()
try:
    side_by_side(work, range(3))
except KeyboardInterrupt:
    while len(ended) < 3:
        time.sleep(0.01)
    print(sorted(ended), side_by_side(lambda part: part, range(4)))
"""


def test_a_signal_ends_the_parts_too_and_work_goes_on_afterwards() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=150, check=False)
    assert (done.returncode, done.stdout) == (0, "[0, 1, 2] [0, 1, 2, 3]\n"), done.stderr


@pytest.mark.parametrize("n", [1, 5])
def test_cores_draw_the_same_samples(monkeypatch: pytest.MonkeyPatch, threads: int, n: int) -> None:
    engine = policy()
    requests = requests_of(engine, prompts(5), n=n, sampling=Sampling(1.0, 1.0, 12), seed=3)
    torch.set_num_threads(1)
    alone = engine.generate(requests)
    torch.set_num_threads(threads)
    monkeypatch.setattr(local, "ROWS", 1)
    shared = engine.generate(requests)
    assert [[drawn.tokens for drawn in group] for group in shared] == [
        [drawn.tokens for drawn in group] for group in alone
    ]
    for ours, theirs in zip(shared, alone, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
