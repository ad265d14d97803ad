"""SIGINT and SIGTERM: a verb ends at once, a loop that can go on later where it has saved how far it is."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

_waits = False  # a loop looks at `asked` after every step
_arrived: int | None = None


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived: the exit code is 128 + the signal."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """Inside, both signals raise Interrupted in the main thread: at once, or where a `deferred` block lets them."""
    global _arrived
    before = {number: signal.signal(number, _handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Exception:  # whatever it is, it goes on: as the signal's, where an import, say, made another error of that
        if _arrived is not None:
            raise Interrupted(_arrived) from None
        raise
    finally:
        _arrived = None
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle(number: int, frame: FrameType | None) -> None:
    global _arrived
    first, _arrived = _arrived is None, number
    if not (first and _waits):
        raise Interrupted(number)
    if os.environ.get("RANK", "0") == "0":
        fresh = "\r\x1b[K" if sys.stderr.isatty() else ""
        # not print: a handler may come in the middle of one
        os.write(2, f"{fresh}stopping as soon as this step is done and saved; once more stops at once\n".encode())


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside, the first signal only makes `asked` true: who enters looks at it after every step, and calls `stop`."""
    global _waits
    _waits = True
    try:
        yield
    finally:
        _waits = False


def asked() -> bool:
    """Whether a signal has arrived that a `deferred` block has put off."""
    return _arrived is not None


def stop() -> None:
    """Raises Interrupted for the signal that was put off; of another process's, SIGINT."""
    raise Interrupted(signal.SIGINT if _arrived is None else _arrived)
