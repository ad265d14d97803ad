"""What a database says when it fails, as one line that says what to do: the place where all of it is told."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from ayni.errors import AyniError, BadInput, NoRoom
from ayni.feedback.damage import Damaged
from ayni.feedback.migrate import not_a_store
from ayni.files import disk_full

# SQLite tells a full disk from a quota that is used up, but not that from a disk that fails.
_SQLITE_FULL = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_SHMSIZE,
)
_NOT_UTF8 = "Could not decode to UTF-8"  # the driver's words, without a code
_POSTGRESQL_DAMAGE = ("XX001", "XX002", "42P01", "42703")  # of data, of an index; a table or column that is not there


@contextmanager
def refused(where: str) -> Iterator[None]:
    """While opening: no server, no such database, no rights, no database at all."""
    try:
        yield
    except OSError as error:
        if disk_full(error):
            raise _no_room(where) from None
        raise BadInput(f"cannot be opened ({error.strerror})", path=where) from None
    except UnicodeDecodeError:
        raise _not_utf8(where) from None
    except SQLAlchemyError as error:
        told = _told(error, where)
        if isinstance(told, BadInput | Damaged | NoRoom):
            raise told from None
        raise BadInput(f"cannot be opened ({_words(error)})", path=where) from None


@contextmanager
def errors_told(where: str) -> Iterator[None]:
    """Full disks, locks, lost connections and damage as one line. Who sends the same submission again loses nothing."""
    try:
        yield
    except Damaged as error:
        raise Damaged(error.what, where) from None
    except UnicodeDecodeError:
        raise _not_utf8(where) from None
    except SQLAlchemyError as error:
        raise _told(error, where) from error


def _told(error: SQLAlchemyError, where: str) -> AyniError:
    """What failed, and so what to do: make room, take a copy back, ask for something else, or try again."""
    cause = getattr(error, "orig", None)
    ours, theirs = getattr(cause, "sqlite_errorcode", 0), getattr(cause, "sqlstate", None)
    words = _words(error)
    if ours in _SQLITE_FULL or theirs == "53100":
        return _no_room(where)
    if ours == sqlite3.SQLITE_NOTADB:
        return not_a_store(where, "it is no SQLite file")
    # (SQLITE_ERROR: a statement makes no sense; ours do where the schema is whole)
    broken = ours & 0xFF == sqlite3.SQLITE_CORRUPT or ours == sqlite3.SQLITE_ERROR or theirs in _POSTGRESQL_DAMAGE
    if broken or words.startswith(_NOT_UTF8):
        return Damaged(f"the store is damaged ({words})", where)
    if ours & 0xFF == sqlite3.SQLITE_READONLY or theirs == "25006":
        return BadInput("can only be read", path=where, fix="copy it to where you may write, and use the copy")
    if isinstance(error, DataError):
        return BadInput(f"the database takes no such value ({words})", path=where)
    if isinstance(error, IntegrityError):
        return AyniError(f"{where}: the database refused what contradicts it ({words})")
    return AyniError(f"{where}: the database failed ({words}); try again")


def _not_utf8(where: str) -> Damaged:
    """SQLite's own message quoted a name that is none any more."""
    return Damaged("the store is damaged (a name in it is not UTF-8)", where)


def _no_room(where: str) -> NoRoom:
    return NoRoom(f"{where}: no space left on the device, or a limit of it is reached; free some and try again")


def _words(error: SQLAlchemyError) -> str:
    """What the database said of it, on one line and without what people wrote."""
    said = str(getattr(error, "orig", None) or error)
    for about_the_row in (" with text ", "\nDETAIL:"):
        said = said.partition(about_the_row)[0]
    return " ".join(said.split())
