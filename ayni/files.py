"""Writes that are whole or absent, and reads that name the line they fail on.

Every write is: temporary name → fsync → rename. `failpoint` marks the places where the torture tests kill us.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO, TypeGuard

from ayni.errors import BadInput, NoRoom
from ayni.limits import LONGEST_LINE, line_limit, opened, size_of, too_long, unpacked

MOST_VALUES = 1 << 23  # of one JSON text: each takes up to 80 bytes of memory


class Killed(BaseException):
    """An armed failpoint was reached (tests only)."""


def failpoint(name: str) -> None:
    """Die here if `AYNI_FAILPOINT` names this place: `name` raises Killed, `kill:name` is a real SIGKILL."""
    armed = os.environ.get("AYNI_FAILPOINT")
    if armed == name:
        raise Killed(name)
    if armed == f"kill:{name}":
        os.kill(os.getpid(), signal.SIGKILL)


def fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """The directory and what is missing above it, each synced into the one above."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in missing:
        fsync(each.parent)


# the disk, the user's quota, the largest file that is allowed
_FULL = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this system allows",
}


def disk_full(error: BaseException) -> str | None:
    """What is full, if that is what the error is about, whichever library met it; else None."""
    if isinstance(error, OSError):
        return _FULL.get(error.errno or 0)
    # safetensors and tokenizers are Rust's, and say it in words
    told = next((what for number, what in _FULL.items() if f"(os error {number})" in str(error)), None)
    # torch's archives come to another error on top of it
    return disk_full(error.__context__) if told is None and error.__context__ is not None else told


@contextlib.contextmanager
def room(path: Path) -> Iterator[None]:
    """NoRoom where the disk is full for what is written to `path`."""
    try:
        yield
    except Exception as error:
        if (what := disk_full(error)) is None:
            raise
        raise NoRoom(f"{path}: {what}; free some and run the same command again") from None


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary name to write; on success it becomes `path` in one step, on failure it is removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with room(path):
            make_directory(path.parent)
            yield temporary
            fsync(temporary)
            failpoint("file-written")
            os.replace(temporary, path)
            fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """The same for a directory; an older one at `path` is replaced."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with room(path):
            make_directory(path.parent)
            temporary.mkdir()
            yield temporary
            for file in sorted(temporary.rglob("*")):
                fsync(file)
            fsync(temporary)
            failpoint("directory-written")
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)  # a killed process with our number may have left one
                os.replace(path, old)
                failpoint("directory-moved")
            os.replace(temporary, path)
            fsync(path.parent)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def json_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def write_jsonl(path: Path, values: Iterable[Any]) -> int:
    """One JSON value a line, all or nothing; returns how many."""
    count = 0
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for value in values:
            file.write(json_line(value))
            count += 1
    return count


def read_bytes(path: Path) -> bytes:
    """The file's bytes, un-gzipped when it ends in `.gz`; BadInput as of ayni.limits.opened."""
    with opened(path, whole=True) as file:
        return file.read()


def read_text(path: Path) -> str:
    """The file as UTF-8; BadInput with the line of the first bad byte."""
    with text_file(path, whole=True) as file:
        return file.read()


@contextlib.contextmanager
def text_file(path: Path, newline: str = "\n", *, whole: bool = False) -> Iterator[TextIO]:
    """The file as a stream of UTF-8, un-gzipped when it ends in `.gz`; lines end where `newline` says (as of `open`).

    BadInput as of ayni.limits.opened, and with the line of the first bad byte, as far as it is read.
    """
    with opened(path, whole=whole) as binary, io.TextIOWrapper(binary, "utf-8-sig", newline=newline) as file:
        try:
            yield file
        except UnicodeDecodeError:
            raise _not_utf8(path) from None


def _not_utf8(path: Path) -> BadInput:
    # found again from the start: a stream does not say where in the file it stood
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    with unpacked(path) as file:
        try:
            for block in iter(lambda: file.read(1 << 20), b""):
                decoder.decode(block)
                line += block.count(b"\n")
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            what = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
            line += error.object.count(b"\n", 0, error.start)
            return BadInput(what, path=path, line=line, fix="save the file as UTF-8")
    return BadInput("is not UTF-8", path=path, fix="save the file as UTF-8")


def lines_of(file: TextIO, path: Path) -> Iterator[tuple[int, str]]:
    """(number, text with its end) of every line, one at a time; BadInput for one that is longer than the limit."""
    most = line_limit()
    for number, text in enumerate(iter(lambda: file.readline(most + 1), ""), 1):
        if len(text) > most:
            raise too_long(path, number)
        yield number, text


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=no_duplicates, parse_constant=no_constant)
TOO_DEEP = "nested too deep"


def parse_json(text: str, *, path: object = None, line: int | None = None, decoder: json.JSONDecoder = _STRICT) -> Any:
    """Strict JSON: no duplicate keys, no NaN; BadInput with the line."""
    where = None if path is None else str(path)
    try:
        if len(text) > LONGEST_LINE and sum(map(text.count, "[{,")) > MOST_VALUES:
            raise ValueError(f"holds more than {MOST_VALUES} values")
        return decoder.decode(text)
    except json.JSONDecodeError as error:
        at = (line or 1) + error.lineno - 1
        raise BadInput(f"not JSON: {error.msg} at column {error.colno}", path=where, line=at) from None
    except ValueError as error:
        raise BadInput(str(error), path=where, line=line or 1) from None
    except RecursionError:
        raise BadInput(TOO_DEEP, path=where, line=line or 1) from None


def read_json(path: Path) -> Any:
    return parse_json(read_text(path), path=path)


def read_object(path: Path, most: int = 2**23) -> dict[str, Any]:
    """A JSON object of at most `most` bytes: a file of settings, which is never large. BadInput for anything else."""
    if (size := size_of(path, whole=True)) > most:
        raise BadInput(f"is {size:,} bytes long, settings have at most {most:,}", path=path)
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadInput("expected an object", path=path, line=1)
    return value


def read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) of every non-empty line, one at a time."""
    with text_file(path) as file:
        for number, text in lines_of(file, path):
            if text.strip():
                yield number, parse_json(text.rstrip("\n"), path=path, line=number)


def is_path(value: object) -> TypeGuard[str]:
    """Whether the system takes a value from somebody's file for a path: NUL, half a surrogate or a name too long is
    an error from the first call that looks."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    try:
        parts = value.encode().split(b"/")
    except UnicodeEncodeError:
        return False
    return len(value) < 4096 and all(len(part) < 256 for part in parts)


def files_below(directory: Path) -> list[Path]:
    """Every file in the directory and its folders, by name. A folder that vanishes meanwhile held nothing; BadInput for
    one that cannot be read."""

    def unread(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise BadInput(f"cannot be read: {error.strerror}", path=error.filename)

    names = (Path(folder) / name for folder, _, inside in os.walk(directory, onerror=unread) for name in inside)
    return sorted(file for file in names if file.is_file())


def sha256_of(path: Path, keep: Callable[[Path], bool] = lambda file: True) -> str:
    """The content hash of a file, or of a directory's files by relative name."""
    digest = hashlib.sha256()
    for file in files_below(path) if path.is_dir() else [path]:
        if path.is_dir():
            if not keep(file.relative_to(path)):
                continue
            digest.update(f"{file.relative_to(path).as_posix()}\0".encode())
        digest.update(digest_of(file))
    return digest.hexdigest()


def digest_of(file: Path) -> bytes:
    """sha256 of the file's bytes, read once in a process as long as it is the same file of the same size and time."""
    found = file.stat()
    # what was written this moment may be written again within the clock's grain, and nothing would show it
    settled = abs(time.time_ns() - found.st_mtime_ns) > 2 * 10**9
    stamp = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return (_digest if settled else _digest.__wrapped__)(file.resolve(), stamp)


@lru_cache(maxsize=2**16)
def _digest(file: Path, stamp: tuple[int, ...]) -> bytes:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
