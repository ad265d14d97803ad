"""`--processes N`, or a recipe's `processes`: this command in N processes on this machine that share its work.

They are started as torchrun would. Their parent does nothing but wait, so that the end of one is seen whatever the
others are busy with. The exit code, and all that is printed, is the first one's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ayni.interruption import Interrupted
from ayni.runs.recipe import processes_of

GRACE = 10.0  # seconds in which a process may end by itself
PR_SET_PDEATHSIG = 1


def wanted(recipe: Path, sets: Sequence[str]) -> int:
    """As many as the recipe says; with GPUs one: several processes of a small model would share it for nothing."""
    return processes_of(recipe, sets) if gpus() == 0 else 1


def gpus() -> int:
    """Counted without torch: this parent stays small."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def launch(count: int) -> int:
    """Run this very command in `count` processes, the cores divided among them; returns the first one's exit code."""
    environment = {
        **os.environ,
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, _cores() // count))),
    }
    called = ["-m", "ayni"] if sys.argv[0].endswith("__main__.py") else [sys.argv[0]]
    command = [sys.executable, *called, *sys.argv[1:]]
    children = [
        subprocess.Popen(
            command,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        for rank in range(count)
    ]
    try:
        while all(child.poll() is None for child in children):
            time.sleep(0.1)
    except Interrupted as error:
        if error.exit_code != 128 + signal.SIGINT:  # a terminal's Ctrl-C has reached the children already
            for child in children:
                child.terminate()
    finally:
        _end(children)
    first = children[0].returncode
    return first if first >= 0 else 128 - first


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    """Wait for the children; those that do not end by themselves are told to."""
    for tell in (subprocess.Popen.terminate, subprocess.Popen.kill):
        until = time.monotonic() + GRACE
        while any(child.poll() is None for child in children) and time.monotonic() < until:
            time.sleep(0.05)
        for child in children:
            tell(child)
    for child in children:
        child.wait()


def _end_with_parent() -> None:
    """Between fork and exec: the kernel ends this process when its parent is killed, so none works on unseen."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
