"""The two databases a store may live in, and their transactions: writers take turns, readers wait for nobody."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from ayni.errors import AyniError, BadInput, NoRoom
from ayni.feedback.migrate import is_newest, not_a_store, to_newest
from ayni.files import failpoint

LOCK_WAIT = 30.0  # seconds: how long a writer waits for its turn
CONNECTIONS = 8  # and as many again under load; what they do takes milliseconds, so threads queue for them
_SQLITE = b"SQLite format 3\x00"  # what such files begin with
_ONE_WRITER = 0x61796E69  # "ayni": the advisory lock that PostgreSQL's writers take turns by
_DISK_FULL, _NO_RIGHTS = "53100", "42501"  # PostgreSQL's error codes
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
        with _errors_told(self.where), self.lookers.connect() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One moment of the store: what others commit meanwhile is not seen."""
        with _errors_told(self.where), self.readers.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """The only writer, from the first statement on; what it wrote is on the disk when the block has ended well."""
        with _errors_told(self.where):
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
    if path.is_dir():
        raise BadInput("is a directory, not a file", path=path)
    if not path.parent.is_dir():
        raise BadInput("its directory does not exist", path=path)
    where = str(path)
    with _refused(where):
        newest = path.exists() and _peek(path)
    engine = create_engine(
        url,
        connect_args={"timeout": LOCK_WAIT},
        pool_size=CONNECTIONS,
        max_overflow=CONNECTIONS,
        pool_timeout=LOCK_WAIT,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin)
    database = Database(where, engine, engine, engine.execution_options(begin="BEGIN IMMEDIATE"))
    return database if newest else _migrated(database)


def _peek(path: Path) -> bool:
    """`is_newest` without leave to write: what turns out to be no store of ours stays byte for byte as it was."""
    with open(path, "rb") as file:
        if file.read(len(_SQLITE)) not in (b"", _SQLITE):  # SQLite itself would take a short text for an empty file
            raise not_a_store(str(path), "it is no SQLite file")

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=LOCK_WAIT)

    with create_engine("sqlite://", creator=connect, poolclass=NullPool).connect() as connection:
        return is_newest(connection, str(path))


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves: the driver would say it too late
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
    with _closed_on_error(database), _refused(where), engine.connect() as connection:
        newest = is_newest(connection, where)
    return database if newest else _migrated(database)


def _prepare_postgresql(connection: Any, _: object) -> None:
    """What is acknowledged is on the disk, even on a server that is set to say yes sooner."""
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    connection.commit()


def _migrated(database: Database) -> Database:
    with _closed_on_error(database), _refused(database.where), database.alone() as connection:
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


@contextmanager
def _refused(where: str) -> Iterator[None]:
    """While opening: no server, no such database, no rights, no database at all."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"cannot be opened ({error.strerror})", path=where) from None
    except DatabaseError as error:
        if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise not_a_store(where, "it is no SQLite file") from None
        _tell_damage(error, where)
        if isinstance(error, OperationalError) or getattr(error.orig, "sqlstate", None) == _NO_RIGHTS:
            raise BadInput(f"cannot be opened ({error.orig})", path=where) from None
        raise


@contextmanager
def _errors_told(where: str) -> Iterator[None]:
    """Full disks, locks and lost connections as one line. Who sends the same submission again loses nothing."""
    try:
        yield
    except OperationalError as error:
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_FULL or getattr(error.orig, "sqlstate", None) == _DISK_FULL:
            raise NoRoom(f"{where}: no space left on the device; free some and try again") from None
        raise AyniError(" ".join(f"{where}: the database failed ({error.orig}); try again".split())) from None
    except DatabaseError as error:
        _tell_damage(error, where)
        raise


def _tell_damage(error: DatabaseError, where: str) -> None:
    """BadInput where SQLite finds pages that it cannot have written."""
    if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT:
        raise BadInput(f"the file is damaged ({error.orig})", path=where, fix="take a copy of it back") from None
