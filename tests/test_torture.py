"""Real `kill -9` at random moments: every stage, killed twice (`make torture`: 20 times), ends at the same bytes.

Each run is a process of its own, forked from a server that has everything imported, so that a run takes as long as
the stage and a kill lands anywhere in it.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import torch
from small_stages import STAGES, Small, contents, prepare

from ayni.runs.sealing import read_seal
from ayni.seeds import rng

KILLS = int(os.environ.get("AYNI_KILLS", "2"))


def attempt(stage: Small, directory: Path) -> None:
    torch.set_num_threads(1)
    stage.execute(directory)


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    # (torch imports _dynamo with the first optimiser: a second of every run in which no kill would mean anything)
    context.set_forkserver_preload([f"ayni.stages.{name}" for name in STAGES] + ["torch._dynamo"])
    first = context.Process(target=time.sleep, args=(0,))
    first.start()
    first.join()
    return context


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Small]:
    return prepare(tmp_path_factory.mktemp("inputs"))


def run(server: ForkServerContext, stage: Small, directory: Path, *, seconds: float | None = None) -> bool:
    """Runs the stage to its end, or kills it after so many seconds; whether it was killed."""
    process = server.Process(target=attempt, args=(stage, directory))
    process.start()
    process.join(seconds)
    if killed := process.is_alive():
        process.kill()  # SIGKILL: no handler, no `finally`, no flush
        process.join()
    if not killed:
        assert process.exitcode == 0
    process.close()
    return killed


@pytest.mark.parametrize("name", STAGES)
def test_killed_anywhere_ends_the_same(
    name: str, server: ForkServerContext, stages: dict[str, Small], tmp_path: Path
) -> None:
    stage = stages[name]
    began = time.monotonic()
    run(server, stage, tmp_path / "whole")
    length = time.monotonic() - began
    expected = contents(tmp_path / "whole")

    draw, kills, tries = rng("torture", name, KILLS), 0, 0
    directory = tmp_path / "killed-0"
    while kills < KILLS and tries < 20 * KILLS:
        tries += 1
        if run(server, stage, directory, seconds=float(draw.uniform(0, length))):
            kills += 1
        else:  # it came to its end before the kill: right, and the next one starts over
            assert contents(directory) == expected
            directory = tmp_path / f"killed-{tries}"
    assert kills == KILLS
    run(server, stage, directory)
    assert contents(directory) == expected
    assert read_seal(directory) is not None
    left = {path.name for path in directory.iterdir()} - {path.name for path in (tmp_path / "whole").iterdir()}
    assert left == set()
