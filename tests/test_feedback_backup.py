"""Backups: one is made while people judge, it can be read where nobody may write, and what is restored goes on."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import postgresql
import pytest
from feedback_cases import filled, item, judgement
from sqlalchemy import make_url
from sqlalchemy.engine import URL

from ayni import cli
from ayni.errors import BadInput
from ayni.feedback.store import Store, open_store

ITEMS = 60
NOBODY = 65534


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """As on a mount that cannot be written to: for root too, who is somebody else meanwhile."""
    rights = {each: each.stat().st_mode for each in (*directory.iterdir(), directory, *directory.parents)}
    root = os.geteuid() == 0
    for each, mode in rights.items():
        if each == directory or each.parent == directory:
            each.chmod(0o555)
        elif root:
            each.chmod(mode | stat.S_IXGRP | stat.S_IXOTH)
    try:
        if root:
            os.seteuid(NOBODY)
        yield
    finally:
        if root:
            os.seteuid(0)
        for each, mode in rights.items():
            if each.stat().st_mode != mode:
                each.chmod(mode)


def judged(store: Store, people: int = 2) -> list[str]:
    """What everybody said of everything, in order."""
    said = []
    filled(store, *(item(f"i{n}", overlap=people) for n in range(ITEMS)))
    for annotator_id in (store.enrol(f"n{n}").id for n in range(people)):
        while (following := store.next_item(annotator_id)) is not None:
            said.append(f"{annotator_id}-{following.id}")
            store.record(judgement(said[-1], following.id, annotator_id, rating="better", reason="ünï\n"))
    return said


def restored_goes_on(address: str, said: list[str]) -> None:
    with open_store(address) as store:
        assert store.check() == []
        assert [row.entry.submission for row in store.log()][: len(said)] == said
        late = store.enrol("Late").id
        store.record(judgement("late", "i0", late))
        store.undo(late, "later")
        assert store.check() == []


class TestFiles:
    def test_only_the_owner_may_read_a_new_store(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            with open_store(str(tmp_path / "s.db")) as store:
                filled(store, item("x"))
                rights = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
        finally:
            os.umask(before)
        assert rights == {"s.db": 0o600, "s.db-wal": 0o600, "s.db-shm": 0o600}

    def test_a_backup_where_nobody_may_write(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        directory = tmp_path / "backup"
        directory.mkdir()
        path = str(directory / "s.db")
        with open_store(path) as store:
            said = judged(store)
        assert cli.run(["inspect", path]) == 0  # what it takes is imported
        assert cli.run(["export", path, str(tmp_path / "first.jsonl"), "--format", "ayni"]) == 0
        capsys.readouterr()
        with read_only(directory):
            with open_store(path) as store:
                assert [row.entry.submission for row in store.log()] == said
                assert store.check() == []
                with pytest.raises(BadInput, match=r"s\.db: can only be read; copy it to where you may write"):
                    store.enrol("Eve")
            assert cli.run(["inspect", "--json", path]) == 0
            assert [file.name for file in directory.iterdir()] == ["s.db"]
        capsys.readouterr()

    def test_a_backup_that_was_not_whole_is_not_taken_for_one(self, tmp_path: Path) -> None:
        """Copied with its -wal file while it was written, and then put where nobody may write."""
        live, directory = tmp_path / "live", tmp_path / "backup"
        live.mkdir()
        directory.mkdir()
        with open_store(str(live / "s.db")) as store:
            said = judged(store)
            for name in ("s.db", "s.db-wal"):
                shutil.copy(live / name, directory / name)
        path = str(directory / "s.db")
        with read_only(directory), pytest.raises(BadInput, match=r"s\.db: cannot be opened"):
            open_store(path)
        restored_goes_on(path, said)  # where it may be written, all is there


class TestRestoring:
    def test_sqlite_while_people_judge(self, tmp_path: Path) -> None:
        path, copy = str(tmp_path / "s.db"), tmp_path / "copy.db"
        with open_store(path) as store:
            said = judged(store)
            ann, stop = store.enrol("Ann").id, threading.Event()

            def goes_on() -> None:
                for number in range(10_000):
                    if stop.is_set():
                        break
                    store.record(judgement(f"more-{number}", f"i{number % ITEMS}", ann, "ab"[number % 2]))

            others = threading.Thread(target=goes_on)
            others.start()
            with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)  # what sqlite3's .backup does
            stop.set()
            others.join()
            assert len(store.log()) > len(said)
        restored_goes_on(str(copy), said)

    def test_postgresql(self, new_postgresql: Callable[[], str], tmp_path: Path) -> None:
        address = new_postgresql()
        with open_store(address) as store:
            said = judged(store)
        binaries = postgresql.programs()
        assert binaries is not None
        url = make_url(address)
        schema, where = schema_of(url), [f"--host={url.query['host']}", "--username=ayni", "--dbname=postgres"]
        with open(tmp_path / "backup.sql", "w") as file:
            subprocess.run([binaries / "pg_dump", *where, f"--schema={schema}"], stdout=file, check=True)
        psql = [binaries / "psql", *where, "--quiet", "--set=ON_ERROR_STOP=1"]
        subprocess.run([*psql, "--command", f"DROP SCHEMA {schema} CASCADE"], check=True, capture_output=True)
        subprocess.run([*psql, "--file", tmp_path / "backup.sql"], check=True, capture_output=True)
        restored_goes_on(address, said)


def schema_of(url: URL) -> str:
    return str(url.query["options"]).rpartition("=")[2]
