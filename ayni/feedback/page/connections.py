"""Connections that cost little: whoever is slow, silent or many is hung up on, and the others are served.

A connection has so long to bring a whole request, and to take its answer. More of them than fit push out the one that
has waited longest for its visitor: of thousands that say half a request none is in the way of who says a whole one.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

PATIENCE = 30.0  # seconds for a request to arrive whole, and for an answer to be taken
MOST = 1000  # connections at one time, where the system lets us open twice as many files
LINES = 10  # a minute of each sort in the log


def most_connections() -> int:
    """Half of the files that the process may open: the store and the connections that are going need some too."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if allowed == resource.RLIM_INFINITY else min(MOST, allowed // 2)


def at_once() -> int:
    """How many are taken up before the ones that they push out are let go."""
    return max(1, most_connections() // 4)


class Visitors(ServerState):
    """A server's connections; `waiting` holds those whose visitor's turn it is, who have waited longest first."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[Patient, asyncio.TimerHandle] = {}


class Patient(H11Protocol):
    """uvicorn's HTTP/1.1 with an end to its patience. While we work on an answer the visitor waits for us."""

    server_state: Visitors

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > most_connections():
            next(iter(self.server_state.waiting)).hang_up()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def on_response_complete(self) -> None:
        self._stop_waiting()
        super().on_response_complete()
        self._wait()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def hang_up(self) -> None:
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.abort()

    def _wait(self) -> None:
        """For the visitor, if it is their turn; what they send meanwhile buys no more time."""
        whole = self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete
        if whole and not self.flow.write_paused:
            self._stop_waiting()
        elif self not in self.server_state.waiting:
            self.server_state.waiting[self] = self.loop.call_later(PATIENCE, self.hang_up)

    def _stop_waiting(self) -> None:
        if (end := self.server_state.waiting.pop(self, None)) is not None:
            end.cancel()


class Throttle(logging.Filter):
    """Lets `LINES` records of each sort through a minute; the first one of the next says how many there were more."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: Counter[tuple[str, int]] = Counter()
        self._minute = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        sort, now = (record.name, record.levelno), time.monotonic()
        if now >= self._minute + 60:
            more = sum(max(0, count - LINES) for count in self._seen.values())
            self._minute, self._seen = now, Counter()
            if more:
                record.msg = f"({more} lines like these were left out) {record.getMessage()}"
                record.args = ()
        self._seen[sort] += 1
        return self._seen[sort] <= LINES


# For uvicorn: to stderr, asyncio's complaints too, and never more than a little.
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"throttle": {"()": Throttle}},
    "formatters": {"timed": {"format": "%(asctime)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "filters": ["throttle"], "formatter": "timed"}},
    "loggers": {name: {"handlers": ["stderr"]} for name in ("uvicorn", "asyncio", "ayni.feedback.page")},
}
