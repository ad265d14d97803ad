"""Brings a database to the newest schema, or refuses it: what is not a store, or is a newer one, is left as it was."""

from __future__ import annotations

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from ayni.errors import BadInput
from ayni.feedback.schema import VERSION_TABLE

MIGRATIONS = Path(__file__).parent / "migrations"
_ALEMBIC = threading.Lock()  # alembic keeps the migration it runs in a module: one at a time in a process


def is_newest(connection: Connection, where: str) -> bool:
    """False for an empty database or an older store; BadInput for a newer store or another program's database."""
    tables = inspect(connection).get_table_names()
    if VERSION_TABLE not in tables:
        if tables:
            raise not_a_store(where, f"it holds other tables, such as {min(tables)}")
        return False
    revision = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
    history = ScriptDirectory(str(MIGRATIONS))
    if revision == history.get_current_head():
        return True
    if revision is not None and revision not in {script.revision for script in history.walk_revisions()}:
        raise BadInput(f"a newer ayni made this store (schema {revision})", path=where, fix="use that version")
    return False


def to_newest(connection: Connection) -> None:
    """Runs what is missing inside the connection's transaction: whole or not at all."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    with _ALEMBIC:
        command.upgrade(config, "head")


def not_a_store(where: str, why: str) -> BadInput:
    return BadInput(f"not a preference store: {why}", path=where, fix="name another file or database")
