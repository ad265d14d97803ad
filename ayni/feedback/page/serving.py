"""The annotation page on a socket: until it is told to stop, or beside something else that goes on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn

from ayni.errors import BadInput
from ayni.feedback.page.connections import LOGGING, Patient, Visitors, at_once
from ayni.feedback.page.guard import is_loopback

DOOR = 2048  # connections that may wait to be taken up: who is turned away there comes back after a second
GRACE = 10  # seconds that requests under way get to end after SIGTERM or Ctrl-C
LOCAL = ("127.0.0.1", "localhost", "[::1]")


def host_names(host: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names the page answers to, the one to print first; BadInput where an address for all names has none."""
    shown = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::", ""):
        if not names:
            raise BadInput(
                f"{host or 'the empty address'} is every address of this machine, and the page answers to names",
                field="name",
                fix="add --name with the name or address that people will type",
            )
        return tuple(names)
    own = (shown, *(name for name in LOCAL if name != shown)) if is_loopback(host) else (shown,)
    return (*names, *own)


def origin(name: str, port: int, https: bool) -> str:
    """Behind an https proxy the port is the proxy's."""
    return f"https://{name}" if https else f"http://{name}:{port}"


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that visitors may knock at from now on; port 0 takes any that is free. BadInput when none can be had."""
    if not 0 <= port < 65_536:  # the system would take it modulo 65536
        raise BadInput(f"{port} is no port", field="port", fix="use 0 to 65535")
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        kind, _, _, _, where = found[0]
        # TCP by name: asyncio turns off the wait for company (Nagle's) on sockets that say so, else a page waits 40 ms
        bound = socket.socket(kind, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise BadInput(f"{host}: {error.strerror}", field="host") from None
    with bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(where)
            bound.listen()
        except OSError as error:
            what = f"{host} port {port}: {error.strerror}"
            raise BadInput(what, field="port", fix="choose another, or 0 for any that is free") from None
        yield bound


def serve(page: Any, bound: socket.socket) -> None:
    """Until a signal; requests under way are answered first."""
    _server(page).run(sockets=[bound])


@contextmanager
def served(page: Any, bound: socket.socket) -> Iterator[None]:
    """The page answers as long as the body runs."""
    server = _server(page)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="page", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state = Visitors()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for bound in sockets or []:
            bound.listen(DOOR)  # asyncio takes up as many at once as it lets wait: by itself few would


def _server(page: Any) -> uvicorn.Server:
    """No access log: invitations stand in addresses."""
    config = uvicorn.Config(
        page,
        http=Patient,
        backlog=at_once(),
        log_config=LOGGING,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=GRACE,
    )
    return _Server(config)
