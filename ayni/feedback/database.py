"""The two databases a store may live in, and their transactions: writers take turns, readers wait for nobody."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError

from ayni.errors import BadInput
from ayni.feedback.failures import errors_told, refused
from ayni.feedback.migrate import is_newest, not_a_store, to_newest
from ayni.files import failpoint

LOCK_WAIT = 30.0  # seconds: how long a writer waits for its turn
CONNECTIONS = 8  # and as many again under load; what they do takes milliseconds, so threads queue for them
_SQLITE = b"SQLite format 3\x00"  # what such files begin with
_ONE_WRITER = 0x61796E69  # "ayni": the advisory lock that PostgreSQL's writers take turns by
_ADDRESSES = "use a file's path, sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME"


@dataclass(frozen=True)
class Database:
    """An open store's connections; threads may share it. `where` names it in errors, without a password."""

    where: str
    lookers: Engine
    readers: Engine
    writers: Engine
    turn: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """For one statement, which is one moment by itself: PostgreSQL is spared opening and closing a transaction."""
        with errors_told(self.where), self.lookers.connect() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One moment of the store: what others commit meanwhile is not seen."""
        with errors_told(self.where), self.readers.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """The only writer, from the first statement on; what it wrote is on the disk when the block has ended well."""
        with errors_told(self.where):
            with self.alone() as connection:
                yield connection
                failpoint("store-written")
            failpoint("store-committed")

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        # The thread lock first: SQLite's writers poll for their turn, and of many the unlucky ones poll for seconds.
        with self.turn, self.writers.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_WRITER})
            yield connection

    def close(self) -> None:
        self.readers.dispose()


def open_database(address: str) -> Database:
    """Opened, and brought to the newest schema; BadInput where there is no store and none can be made."""
    url = _url(address)
    if url.get_backend_name() == "sqlite":
        return _open_sqlite(url)
    return _open_postgresql(url)


def _url(address: str) -> URL:
    if "://" not in address:
        return URL.create("sqlite", database=address)
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):  # (ValueError: a port that is no number)
        raise BadInput("the address cannot be read", field="store", fix=_ADDRESSES) from None
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise BadInput(f"no store lives in {url.drivername}", field="store", fix=_ADDRESSES)
    return url


def _open_sqlite(url: URL) -> Database:
    path = Path(url.database or ":memory:")
    if path.name == ":memory:":
        raise BadInput("a store lives in a file", field="store", fix=_ADDRESSES)
    where = str(path)
    with refused(where):
        if path.is_dir():
            raise BadInput("is a directory, not a file", path=path)
        if not path.parent.is_dir():
            raise BadInput("its directory does not exist", path=path)
        readable_only = _readable_only(path)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT, 0o600))  # its -wal and -shm files will have the same rights
        newest = _peek(path, readable_only)

    def connect() -> sqlite3.Connection:
        if readable_only:
            return _reading(path, alone=True)
        return sqlite3.connect(path, timeout=LOCK_WAIT, check_same_thread=False)

    engine = create_engine(
        "sqlite://",
        creator=connect,
        poolclass=QueuePool,
        pool_size=CONNECTIONS,
        max_overflow=CONNECTIONS,
        pool_timeout=LOCK_WAIT,
    )
    event.listen(engine, "connect", _prepare_reading if readable_only else _prepare_sqlite)
    event.listen(engine, "begin", _begin)
    database = Database(where, engine, engine, engine.execution_options(begin="BEGIN IMMEDIATE"))
    return database if newest else _migrated(database)


def _readable_only(path: Path) -> bool:
    """A backup, for one. SQLite puts files beside the store, so the directory counts too."""
    as_we_are = os.access in os.supports_effective_ids
    return path.exists() and not all(os.access(each, os.W_OK, effective_ids=as_we_are) for each in (path, path.parent))


def _reading(path: Path, alone: bool = False) -> sqlite3.Connection:
    """Without leave to write. `alone`: nobody else writes either, unless a -wal file tells of it."""
    wal = path.with_name(f"{path.name}-wal")
    still = "&immutable=1" if alone and not (wal.exists() and wal.stat().st_size) else ""
    uri = f"file:{quote(str(path.absolute()))}?mode=ro{still}"
    return sqlite3.connect(uri, uri=True, timeout=LOCK_WAIT, check_same_thread=False)


def _peek(path: Path, alone: bool) -> bool:
    """`is_newest` without leave to write: what turns out to be no store of ours stays byte for byte as it was."""
    with open(path, "rb") as file:
        if file.read(len(_SQLITE)) not in (b"", _SQLITE):  # SQLite itself would take a short text for an empty file
            raise not_a_store(str(path), "it is no SQLite file")
    engine = create_engine("sqlite://", creator=lambda: _reading(path, alone), poolclass=NullPool)
    with engine.connect() as connection:
        return is_newest(connection, str(path))


def _prepare_reading(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves: the driver would say it too late


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    _prepare_reading(connection, _)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _open_postgresql(url: URL) -> Database:
    where = url.set(query={}).render_as_string(hide_password=True)
    try:
        engine = create_engine(
            url, pool_size=CONNECTIONS, max_overflow=CONNECTIONS, pool_timeout=LOCK_WAIT, pool_pre_ping=True
        )
    except ModuleNotFoundError:
        raise BadInput("psycopg is not installed", path=where, fix="pip install 'ayni[postgres]'") from None
    event.listen(engine, "connect", _prepare_postgresql)
    looks, reads = (engine.execution_options(isolation_level=level) for level in ("AUTOCOMMIT", "REPEATABLE READ"))
    database = Database(where, looks, reads, engine)
    with _closed_on_error(database), refused(where), engine.connect() as connection:
        newest = is_newest(connection, where)
    return database if newest else _migrated(database)


def _prepare_postgresql(connection: Any, _: object) -> None:
    """What is acknowledged is on the disk, even on a server that is set to say yes sooner."""
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    connection.commit()


def _migrated(database: Database) -> Database:
    with _closed_on_error(database), refused(database.where), database.alone() as connection:
        if not is_newest(connection, database.where):  # another process may have been quicker
            to_newest(connection)
    return database


@contextmanager
def _closed_on_error(database: Database) -> Iterator[None]:
    try:
        yield
    except BaseException:
        database.close()
        raise
