"""How much is taken from somebody else's file, and what is opened at all: sizes are known before anything is held.

A line or a row is parsed whole, so it has a limit; a file has one, smaller where it is read in one piece. A gzip file
is first unpacked to nowhere: one that grows out of all proportion was made for that. Pipes and devices are not opened,
for they may have no end.
"""

from __future__ import annotations

import contextlib
import difflib
import gzip
import os
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from ayni.errors import BadInput

LINE, FILE = "AYNI_LINE_LIMIT", "AYNI_FILE_LIMIT"  # environment variables: 500000, 64M, 2G
LONGEST_LINE = 16 << 20  # characters
LARGEST_FILE = 16 << 30  # bytes, of a file that is read row by row
LARGEST_PIECE = 64 << 20  # of one that is read whole
UNPACKED, RATIO = 64 << 20, 32  # to so many bytes any gzip file may unpack, a large one to so many times its size
_DEFLATE = 1032  # no gzip file unpacks to more times its size
_BLOCK = 1 << 20
_LISTED = 10_000  # names beside a missing one that are looked at
_SIZE = re.compile(r"([1-9][0-9]{0,15})([KMGT]?)", re.I)


def line_limit() -> int:
    """Characters of one line or row."""
    return _given(LINE) or LONGEST_LINE


def _given(name: str) -> int | None:
    text = os.environ.get(name)
    if not text:
        return None
    if (size := _SIZE.fullmatch(text)) is None:
        raise BadInput(f"the environment variable {name} is not a size", fix=f"write for example {name}=256M")
    return int(size[1]) << 10 * " KMGT".index(size[2].upper() or " ")


def _in_words(size: int) -> str:
    """67108864 is "64M", as it may be written into a limit."""
    power = max(power for power in range(5) if power == 0 or size >= 1 << 10 * power)
    return f"{size / (1 << 10 * power):.4g}{' KMGT'[power].strip()}"


def too_long(path: object, line: int) -> BadInput:
    what = f"longer than the {_in_words(line_limit())} characters of one row"
    return BadInput(what, path=str(path), line=line, fix=f"split it, or raise {LINE}")


def _too_large(path: Path, what: str) -> BadInput:
    return BadInput(what, path=path, fix=f"split it, or raise {FILE} if it is meant to be so large")


def absent(path: Path, what: str = "file or directory") -> BadInput:
    """That nothing is there, and what there is of nearly that name."""
    try:
        names = sorted(os.listdir(path.parent))[:_LISTED]
    except (OSError, ValueError):  # there is no such directory either, or it is not ours to read
        names = []
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.8)
    return BadInput(f"no such {what}", path=path, fix=f"did you mean {path.with_name(near[0])}?" if near else None)


def size_of(path: Path, *, whole: bool = False) -> int:
    """The size in bytes of a file that may be opened, to be read row by row or `whole`.

    BadInput when it is not there, no file (a directory, a pipe, a device), or too large.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise absent(path, "file") from None
    except (OSError, ValueError) as error:  # a ValueError: of a name with a NUL in it
        raise BadInput(f"cannot be read ({error})", path=path) from None
    if stat.S_ISDIR(found.st_mode):
        raise BadInput("is a directory, not a file", path=path)
    if not stat.S_ISREG(found.st_mode):
        raise BadInput("is a pipe or a device, not a file", path=path, fix="save what it gives as a file first")
    most = _given(FILE) or (LARGEST_PIECE if whole else LARGEST_FILE)
    if found.st_size > most:
        raise _too_large(path, f"{_in_words(found.st_size)} bytes are more than the {_in_words(most)} of one file")
    return found.st_size


@contextlib.contextmanager
def opened(path: Path, *, whole: bool = False) -> Iterator[BinaryIO]:
    """The bytes of a file, un-gzipped when it ends in `.gz`; BadInput as of `size_of`, and when it is not whole."""
    size = size_of(path, whole=whole)
    try:
        if path.suffix == ".gz" and size * _DEFLATE > UNPACKED:
            _check_unpacked(path, _given(FILE) or (LARGEST_PIECE if whole else max(UNPACKED, RATIO * size)))
        with unpacked(path) as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"cannot be read ({error})", path=path) from None


def unpacked(path: Path) -> BinaryIO:
    """The same without any limit, for the head of a file."""
    return cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else open(path, "rb"))


def _check_unpacked(path: Path, most: int) -> None:
    with unpacked(path) as file:
        for before, _ in enumerate(iter(lambda: file.read(_BLOCK), b"")):
            if before * _BLOCK >= most:
                raise _too_large(path, f"unpacks to more than {_in_words(most)} bytes")
