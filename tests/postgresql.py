"""A PostgreSQL server of the tests' own: a fresh directory, a Unix socket and no port, and fsync on."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

PROGRAMS = Path("/usr/lib/postgresql")  # where Debian puts them, a directory per version
MISSING = "PostgreSQL's server is not installed (on Debian: apt-get install postgresql-15)"


def programs() -> Path | None:
    """The newest version's directory."""
    found = sorted(PROGRAMS.glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def server(binaries: Path) -> Iterator[Server]:
    """The server refuses root: then it is `nobody`'s."""
    home = Path(tempfile.mkdtemp(prefix="ayni-postgresql-"))  # short: a socket's path has at most 107 characters
    user: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(home, "nobody", "nogroup")
    data = home / "data"
    with open(home / "log", "w+") as log:
        try:
            make = [binaries / "initdb", "-D", data, "-U", "ayni", "-A", "trust", "-E", "UTF8", "--no-locale"]
            subprocess.run(make, check=True, stdout=log, stderr=log, cwd=home, **user)
            run = [binaries / "postgres", "-D", data, "-k", home, "-c", "listen_addresses="]
            made = Server(home, lambda: subprocess.Popen(run, stdout=log, stderr=log, cwd=home, **user))
            try:
                made.start()
                yield made
            finally:
                made.stop(signal.SIGQUIT)  # at once: what it holds is thrown away
        except BaseException as error:
            error.add_note((home / "log").read_text()[-2000:])
            raise
        finally:
            shutil.rmtree(home)


class Server:
    """Called, it makes a new, empty schema and gives its address."""

    def __init__(self, home: Path, run: Callable[[], subprocess.Popen[bytes]]) -> None:
        # A schema is a database of its own to us, and made in milliseconds where a database takes a second.
        self._names = (f"store{number}" for number in itertools.count())
        self._home, self._run = home, run
        self._address = f"host={home} user=ayni dbname=postgres"
        self._process: subprocess.Popen[bytes]

    def start(self) -> None:
        self._process = self._run()
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self._address).close()
                break
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def stop(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        self._process.wait()

    def restart(self) -> None:
        """As `pg_ctl restart` does: who is connected is cut off."""
        self.stop(signal.SIGINT)
        self.start()

    def __call__(self) -> str:
        name = next(self._names)
        with psycopg.connect(self._address, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"postgresql+psycopg://ayni@/postgres?host={self._home}&options=-csearch_path%3D{name}"
