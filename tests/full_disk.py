"""A disk that is full for a while, below the store: its file cannot grow, or its server says that it has no room."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import NullPool, create_engine, text

FULL = """
    CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN RAISE EXCEPTION USING ERRCODE = ''53100'', MESSAGE = ''could not extend file''; END'
"""
TABLES = ("judgements", "items", "dialogues", "batches", "annotators", "sessions")


@contextmanager
def no_file_grows(size: int = 0, process: int | None = None) -> Iterator[None]:
    """No file of the process, ours by default, beyond `size` bytes: the system says so as it does of a quota."""
    process = os.getpid() if process is None else process
    _, most = before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_FSIZE, before)


@contextmanager
def full(address: str, process: int | None = None) -> Iterator[None]:
    """The store at `address`, used by that process, has no room."""
    if "sqlite" in address:
        with no_file_grows(process=process):
            yield
        return
    # One table locked at a time: whoever reads several meanwhile would wait for us, and we for them.
    engine = create_engine(address, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(FULL))
        for name in TABLES:
            when = f"BEFORE INSERT OR UPDATE ON {name}"
            connection.execute(text(f"CREATE TRIGGER full_disk {when} EXECUTE FUNCTION full_disk()"))
    try:
        yield
    finally:
        with engine.connect() as connection:
            for name in TABLES:
                connection.execute(text(f"DROP TRIGGER full_disk ON {name}"))
            connection.execute(text("DROP FUNCTION full_disk"))
