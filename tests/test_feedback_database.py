"""What a store is opened from, what it is refused from, and that its schema is what schema.py says."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from feedback_cases import filled, item, judgement
from sqlalchemy import Connection, Engine, NullPool, create_engine, make_url, text

import ayni.feedback.database as database
from ayni.errors import AyniError, BadInput
from ayni.feedback.schema import VERSION_TABLE, metadata
from ayni.feedback.store import open_store


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def everything(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def engine_of(address: str) -> Engine:
    return create_engine(address, poolclass=NullPool)


class TestOpening:
    def test_again_and_by_path(self, tmp_path: Path) -> None:
        path = tmp_path / "with space & 100%?.db"
        with open_store(str(path)) as store:
            filled(store, item("x"))
        assert stat.S_ISREG(path.stat().st_mode)
        with open_store(str(path)) as store:
            assert store.item("x").answer_a == "x: the long answer"
        assert [file.name for file in tmp_path.iterdir()] == [path.name], "closed, it is one file"

    def test_an_empty_file_becomes_one(self, tmp_path: Path) -> None:
        path = tmp_path / "empty.db"
        path.touch()
        with open_store(f"sqlite:///{path}") as store:
            assert store.check() == []

    def test_it_is_durable(self, tmp_path: Path, new_postgresql: Callable[[], str]) -> None:
        with open_store(str(tmp_path / "s.db")) as store, store._database.read() as connection:
            settings = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in PRAGMAS]
        assert dict(zip(PRAGMAS, settings, strict=True)) == PRAGMAS
        hasty = make_url(new_postgresql())
        options = hasty.query["options"] + " -c synchronous_commit=off"
        address = hasty.update_query_dict({"options": options}).render_as_string(hide_password=False)
        with open_store(address) as store, store._database.write() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
            assert connection.exec_driver_sql("SHOW fsync").scalar() == "on"

    @pytest.mark.parametrize("content", [b"prompt,chosen,rejected\n", b"SQLite format 4\x00" + b"\x07" * 5000, b"\x00"])
    def test_no_database(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "notes.txt"
        path.write_bytes(content)
        with pytest.raises(BadInput) as error:
            open_store(str(path))
        assert str(error.value) == (
            f"{path}: not a preference store: it is no SQLite file; name another file or database"
        )
        assert everything(tmp_path) == {"notes.txt": content}

    @pytest.mark.parametrize("journal", ["DELETE", "WAL"])
    def test_another_programs_database(self, tmp_path: Path, journal: str) -> None:
        path = tmp_path / "songs.db"
        with closing(sqlite3.connect(path)) as other:
            other.execute(f"PRAGMA journal_mode={journal}")
            other.execute("CREATE TABLE songs (id)")
            other.execute("CREATE TABLE alembic_version (version_num)")
            other.commit()
        before = everything(tmp_path)
        with pytest.raises(BadInput) as error:
            open_store(str(path))
        assert str(error.value) == (
            f"{path}: not a preference store: it holds other tables, such as alembic_version; name another file or "
            "database"
        )
        assert everything(tmp_path)["songs.db"] == before["songs.db"]
        assert tables(path) == {"songs", "alembic_version"}

    def test_another_programs_postgresql(self, new_postgresql: Callable[[], str]) -> None:
        address = new_postgresql()
        with engine_of(address).begin() as connection:
            connection.execute(text("CREATE TABLE songs (id int)"))
        with pytest.raises(BadInput, match=r"not a preference store: it holds other tables, such as songs;"):
            open_store(address)

    def test_a_newer_store(self, new_address: Callable[[], str]) -> None:
        address = new_address()
        open_store(address).close()
        engine = engine_of(address)
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
        with pytest.raises(BadInput, match=r": a newer ayni made this store \(schema 9999\); use that version$"):
            open_store(address)
        with engine.begin() as connection:
            assert connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() == "9999"

    @pytest.mark.parametrize(
        ("address", "what"),
        [
            ("", "a store lives in a file"),
            (":memory:", "a store lives in a file"),
            ("sqlite://", "a store lives in a file"),
            ("mysql://me:secret@host/db", "no store lives in mysql"),
            ("postgresql+psycopg2://me:secret@host/db", "no store lives in postgresql+psycopg2"),
            ("postgresql://me:secret@host:port/db", "the address cannot be read"),
            ("{tmp}", "is a directory, not a file"),
            ("{tmp}/no/store.db", "its directory does not exist"),
            ("postgresql://me:secret@/db?host={tmp}&password=secret", "cannot be opened (connection"),
        ],
    )
    def test_addresses(self, tmp_path: Path, address: str, what: str) -> None:
        with pytest.raises(BadInput) as error:
            open_store(address.format(tmp=tmp_path))
        assert what in str(error.value)
        assert "secret" not in str(error.value)
        assert "\n" not in str(error.value)
        assert everything(tmp_path) == {}

    def test_without_psycopg(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
        with pytest.raises(BadInput, match=r"psycopg is not installed; pip install 'ayni\[postgres\]'"):
            open_store("postgresql://me@host/db")


PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


class TestSchema:
    def test_the_migrations_make_what_the_metadata_says(self, new_address: Callable[[], str]) -> None:
        migrated, made = new_address(), new_address()
        open_store(migrated).close()
        with engine_of(made).begin() as connection:
            metadata.create_all(connection)
            said_so = described(connection)
        with engine_of(migrated).begin() as connection:
            assert described(connection) == said_so
            context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
            assert compare_metadata(context, metadata) == []
        assert len(said_so) > 30

    def test_a_migration_is_whole_or_nothing(self, new_address: Callable[[], str], monkeypatch: Any) -> None:
        address = new_address()
        real = database.to_newest

        def cut_short(connection: Connection) -> None:
            real(connection)
            raise KeyboardInterrupt

        monkeypatch.setattr(database, "to_newest", cut_short)
        with pytest.raises(KeyboardInterrupt):
            open_store(address)
        with engine_of(address).begin() as connection:
            assert described(connection) == set()
        monkeypatch.undo()
        with open_store(address) as store:
            assert store.check() == []

    @pytest.mark.parametrize("table", ["items", "judgements"])
    def test_the_database_itself_refuses_changes(self, new_address: Callable[[], str], table: str) -> None:
        with open_store(new_address()) as store:
            filled(store, item("x"))
            store.record(judgement("1", "x", store.enrol("Ann").id))
            for statement in (f"UPDATE {table} SET created_at = ''", f"DELETE FROM {table}"):
                with pytest.raises(AyniError, match=f"{table} are never changed"), store._database.write() as writer:
                    writer.execute(text(statement))
            assert [judged.entry.submission for judged in store.current()] == ["1"]

    def test_rows_that_contradict_themselves_cannot_be_written(self, new_address: Callable[[], str]) -> None:
        """The rules of `rules` hold in the database too, for whoever writes there without us."""
        row = {"submission": "'s'", "item_id": "'x'", "kind": "'judged'", "preferred": "'a'", "rating": "NULL"}
        row |= {"safety_a": "NULL", "safety_b": "NULL", "swapped": "true", "source": "'person'", "replaces": "NULL"}
        row |= {"created_at": "''"}
        with open_store(new_address()) as store:
            filled(store, item("x"))
            row["annotator_id"] = f"'{store.enrol('Ann').id}'"
            for change in (
                {"kind": "'liked'"},
                {"preferred": "NULL"},
                {"kind": "'skipped'"},
                {"kind": "'skipped'", "preferred": "NULL", "rating": "'better'"},
                {"safety_a": "false", "safety_b": "true"},
                {"safety_a": "true", "safety_b": "false", "preferred": "'b'"},
                {"item_id": "'y'"},
                {"replaces": "999"},
            ):
                values = row | change
                statement = f"INSERT INTO judgements ({', '.join(values)}) VALUES ({', '.join(values.values())})"
                with (
                    pytest.raises(AyniError, match="the database refused what contradicts it"),
                    store._database.write() as writer,
                ):
                    writer.execute(text(statement))
            assert store.log() == []


def described(connection: Connection) -> set[str]:
    """Every table, column, constraint and index, each as the database's own words."""
    parts = set[str]()
    if connection.dialect.name == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND type != 'trigger'"
        for name, sql in connection.execute(text(query)):
            parts |= {f"{name} {' '.join(line.strip(' ,').split())}" for line in sql.splitlines()}
    else:
        for query in (
            "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
            " WHERE table_schema = current_schema()",
            "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE connamespace = current_schema()::regnamespace",
            "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = current_schema()",
        ):
            parts |= {" ".join(map(str, row)) for row in connection.execute(text(query))}
        schema = connection.execute(text("SELECT current_schema()")).scalar()
        parts = {part.replace(f"{schema}.", "") for part in parts}
    return {part for part in parts if VERSION_TABLE not in part}
