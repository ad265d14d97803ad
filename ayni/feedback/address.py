"""What names a preference store: a database's address, or an SQLite file that holds our tables."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import make_url

from ayni.feedback.schema import VERSION_TABLE

_SQLITE = b"SQLite format 3\x00"


def is_store(address: str) -> bool:
    """Whether `open_store` may take it, told by the scheme or the file's content; nothing is made or changed.

    A damaged file of ours counts as one, so that whoever opens it is told. Another program's database does not.
    """
    scheme, found, _ = address.partition("://")
    if found:
        return scheme.partition("+")[0] in ("postgresql", "sqlite")
    path = Path(address)
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        if file.read(len(_SQLITE)) != _SQLITE:
            return False
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
    try:
        ours = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
        return bool(connection.execute(ours, (VERSION_TABLE,)).fetchone()[0])
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return True
    finally:
        connection.close()


def without_password(address: str) -> str:
    """The address as it may be printed, written down and sent on."""
    if "://" not in address:
        return address
    return make_url(address).render_as_string(hide_password=True)
