"""Who is slow, silent or many takes nothing from the others: connections end, few fit, and the log stays short."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from crowd import HOST, Browser, server
from page_visitor import echo, item, new_store

from ayni.feedback.page import app
from ayni.feedback.page.connections import LINES, Throttle
from ayni.feedback.page.serving import listening, served
from ayni.feedback.store import open_store

HALF = "GET / HTTP/1.1\r\nHost: x\r\nX: "
SHORT = 0.4  # seconds of patience


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A page that loses patience soon, with a comparison of megabytes, and models that take longer."""

    def slow(dialog: Any, task: str) -> Any:
        time.sleep(2 * SHORT)
        return echo(dialog, task)

    monkeypatch.setattr("ayni.feedback.page.connections.PATIENCE", SHORT)
    with new_store(tmp_path, item("long", "word " * 2_000_000)) as store, listening(HOST, 0) as bound:
        page = app(store, host_names=[HOST], talk=slow, require_login=False, local=store.enrol("Wayra", "admin"))
        with served(page, bound):
            yield bound.getsockname()[1]


def gone(visitor: socket.socket, patience: float = 20 * SHORT) -> bool:
    """Whether they hang up on who says nothing more."""
    visitor.settimeout(patience)
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        try:
            while visitor.recv(1 << 16):
                pass
        except TimeoutError:
            return False
    return True


FORM = f"POST /undo HTTP/1.1\r\nHost: {HOST}\r\nOrigin: http://{HOST}\r\nContent-Length: 9\r\n"
URLENCODED = "Content-Type: application/x-www-form-urlencoded\r\n"


@pytest.mark.parametrize(
    "said", ["", "G", HALF, FORM, f"{FORM}{URLENCODED}\r\nbatch", f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"]
)
def test_who_says_half_a_request_or_no_more_is_hung_up_on(port: int, said: str) -> None:
    with socket.create_connection((HOST, port)) as visitor:
        visitor.sendall(said.encode())
        assert gone(visitor)


def test_a_byte_now_and_then_buys_no_time(port: int) -> None:
    began = time.monotonic()
    with socket.create_connection((HOST, port)) as visitor, pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012
        visitor.sendall(HALF.encode())
        while time.monotonic() < began + 20 * SHORT:
            visitor.sendall(b"x")
            time.sleep(SHORT / 8)


def test_who_takes_no_answer_is_hung_up_on(port: int) -> None:
    with socket.socket() as visitor:
        visitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        visitor.connect((HOST, port))
        visitor.sendall(f"GET /judge?batch=week-1 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        time.sleep(4 * SHORT)
        visitor.settimeout(20 * SHORT)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while part := visitor.recv(1 << 20):
                received += len(part)
        assert received < 10_000_000, "the rest was thrown away"


def test_who_waits_for_us_is_not(port: int) -> None:
    browser = Browser(port)
    _, _, page = browser.ask("/write?batch=week-1")
    token = page.partition('name="submission" value="')[2][:32]
    began = time.monotonic()
    fields = {"submission": token, "batch": "week-1", "task": "helpfulness", "prompt": "Well?"}
    status, onward, _ = browser.ask("/write", fields)
    assert (status, onward) == (303, f"/dialogue?id={token}")
    assert time.monotonic() - began > SHORT
    assert browser.retries == 0
    browser.connection.close()


def test_more_than_fit_push_out_who_waited_longest(tmp_path: Path) -> None:
    """And with few files to open, none is left without: it says no word of it."""
    path, log = str(tmp_path / "page.db"), tmp_path / "log"
    with open_store(path) as store:
        invitation = store.invite("Rosa")
    with ExitStack() as stack, server(path, log, files=128) as running:
        idle = [stack.enter_context(socket.create_connection((HOST, running.port))) for _ in range(300)]
        for each in idle:
            with contextlib.suppress(OSError):
                each.sendall(HALF.encode())
        browser = Browser(running.port)
        stack.callback(browser.connection.close)
        assert browser.ask("/sign-in", {"invitation": invitation})[0] == 303
        assert browser.ask("/")[0] == 200
        assert browser.retries == 0
        assert gone(idle[0])
        assert not gone(idle[-1], 0.1), "there is room for some"
    assert len(log.read_text().splitlines()) == 1, "no more than it says at the start"


def test_what_is_no_http_fills_no_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    open_store(str(tmp_path / "page.db")).close()
    with server(str(tmp_path / "page.db"), log) as running:
        for _ in range(60):
            with socket.create_connection((HOST, running.port)) as visitor:
                visitor.sendall(b"\x16\x03\x01\r\n\r\n")
                assert gone(visitor)
    assert log.read_text().count("Invalid HTTP") == LINES


def test_what_was_left_out_of_the_log_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("ayni.feedback.page.connections.time.monotonic", lambda: now)
    throttle = Throttle()

    def said(level: int) -> str | None:
        record = logging.LogRecord("uvicorn.error", level, "", 0, "line %d", (1,), None)
        return record.getMessage() if throttle.filter(record) else None

    assert [said(logging.WARNING) for _ in range(LINES + 5)] == ["line 1"] * LINES + [None] * 5
    assert said(logging.ERROR) == "line 1", "another sort is not drowned"
    now += 60
    assert [said(logging.WARNING) for _ in range(2)] == ["(5 lines like these were left out) line 1", "line 1"]
