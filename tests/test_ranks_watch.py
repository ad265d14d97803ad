"""A process of a command that dies, raises or stands still ends the others: soon, with one line, not with 0."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

WORK = """
import os, signal, sys, time
from ayni.parallel import Ranks
ranks = Ranks.current()
ranks.barrier()
if ranks.rank == {lost}:
    {end}
ranks.gather([ranks.rank])
"""
SILENCE = "3"


def port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), signal.SIGSTOP)", "os.kill(os.getpid(), signal.SIGKILL)", "raise SystemExit(3)"]
)
def test_the_other_process_ends(lost: int, end: str) -> None:
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port()}
    shared |= {"AYNI_SILENCE": SILENCE, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    script = WORK.format(lost=lost, end=end)
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script], env={**shared, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    try:
        _, said = both[1 - lost].communicate(timeout=120)
        assert both[1 - lost].returncode != 0
        if "SIGSTOP" in end:
            line = f"process {lost} of this command has not answered for 3 s; the same command continues"
            assert said.strip().splitlines()[-1] == line
            assert both[1 - lost].returncode == 1
    finally:
        for process in both:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()
