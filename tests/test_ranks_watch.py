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
LEAVE = """
import sys, time
from pathlib import Path
from ayni.parallel import Ranks, leave
ranks = Ranks.current()
if ranks.leads:
    time.sleep(2)  # writes the report
    Path(sys.argv[1]).touch()
leave(0)
"""


def port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def started(script: str, *arguments: str) -> list[subprocess.Popen[str]]:
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port()}
    shared |= {"AYNI_SILENCE": SILENCE, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", script, *arguments]
    return [
        subprocess.Popen(command, env={**shared, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]


def test_none_leaves_before_the_first_has_written_its_report(tmp_path: Path) -> None:
    first, second = started(LEAVE, str(tmp_path / "report"))
    assert second.wait(timeout=120) == 0
    assert (tmp_path / "report").exists()
    for process in (first, second):
        _, told = process.communicate(timeout=120)
        assert (process.returncode, told) == (0, "")


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), signal.SIGSTOP)", "os.kill(os.getpid(), signal.SIGKILL)", "raise SystemExit(3)"]
)
def test_the_other_process_ends(lost: int, end: str) -> None:
    both = started(WORK.format(lost=lost, end=end))
    try:
        _, output = both[1 - lost].communicate(timeout=120)
        assert both[1 - lost].returncode != 0
        if "SIGSTOP" in end:
            line = f"process {lost} of this command has not answered for 3 s; the same command continues"
            assert output.strip().splitlines()[-1] == line
            assert both[1 - lost].returncode == 1
    finally:
        for process in both:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()
