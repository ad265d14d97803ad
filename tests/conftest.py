"""What every test may ask for: the real data, databases, a village, and quiet, single-threaded torch."""

from __future__ import annotations

import gc
import itertools
import os
import platform
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import postgresql
import pytest
import torch
from endpoints import Endpoint

from ayni.model import native
from ayni.village import Gold, Village
from ayni.village.gold import gold_of
from ayni.village.village import village_of

torch.set_num_threads(1)  # the models here are tiny, and the suite runs in several processes


@pytest.fixture(autouse=True, scope="module")
def frozen() -> None:
    """What was there before a module stays there: the collection after every stage need not look through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real models, tokenizers, preferences and texts (`AYNI_DATA`)."""
    where = os.environ.get("AYNI_DATA")
    if where and Path(where).is_dir():
        return Path(where).resolve()
    return not_here("AYNI_DATA does not point at the real data (see docs/tour.md)")


@pytest.fixture(scope="session")
def new_postgresql() -> Iterator[Callable[[], str]]:
    """Makes an empty PostgreSQL schema and gives its address; the server is started for these tests."""
    binaries = postgresql.programs()
    if binaries is None:
        not_here(postgresql.MISSING)
    with postgresql.server(binaries) as new:
        yield new


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def new_address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Gives the address of a database that does not exist yet or is empty, on each back end of the preference store."""
    if request.param == "postgresql":
        return request.getfixturevalue("new_postgresql")
    directory = tmp_path_factory.mktemp("stores")
    names = (directory / f"{number}.db" for number in itertools.count())
    return lambda: f"sqlite:///{next(names)}"


@pytest.fixture(scope="session")
def village() -> Village:
    return village_of(7)


@pytest.fixture(scope="session")
def gold() -> Gold:
    return gold_of(7)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """An endpoint that judges, on a port of its own."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("AYNI_API_KEY", raising=False)
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


# This one, and one of shorter vectors without products of bf16.
MACHINES = {"native": native.MACHINE} | ({"avx2": ("-mavx2", "-mfma")} if "x86" in platform.machine() else {})


@pytest.fixture(params=MACHINES)
def each_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is written in C, compiled for each of MACHINES."""
    monkeypatch.setattr(native, "MACHINE", MACHINES[request.param])
    native.passes.cache_clear()
    if native.passes(torch.float32) is None:
        not_here("no C compiler, or nothing it makes")
    yield
    native.passes.cache_clear()


def not_here(reason: str) -> NoReturn:
    """A machine may lack what a test needs; the one that guards main may not."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
