"""What must not succeed against the real `ayni annotate --login`, byte by byte: hostile answers, other sites, foreign
names, forged and replayed tokens, path tricks, and what is no HTTP at all."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from crowd import HOST, Browser, Server, given, server
from page_visitor import Page, item
from test_feedback_page_hostile import CROSS, HOSTILE, UNSEEN

from ayni.feedback.entries import PreferenceBatch
from ayni.feedback.page.guard import HEADERS
from ayni.feedback.page.serving import listening
from ayni.feedback.store import Store, open_store

BIG = "<b onclick=x>\u202e" * 71_000  # a megabyte and more


@dataclass
class Site:
    running: Server
    store: Store
    browsers: list[Browser] = field(default_factory=list)

    @property
    def own(self) -> str:
        return f"{HOST}:{self.running.port}"

    def browser(self, cookie: str = "") -> Browser:
        self.browsers.append(Browser(self.running.port, cookie))
        return self.browsers[-1]

    def person(self, name: str, role: str = "annotator") -> Browser:
        browser = self.browser()
        status, _, _ = browser.ask("/sign-in", {"invitation": self.store.invite(name, role)})  # type: ignore[arg-type]
        assert status == 303
        return browser

    def raw(self, request: str | bytes) -> tuple[int, str]:
        """(status, all until it hung up) of exactly these bytes; status 0 where it only hung up."""
        with socket.create_connection((HOST, self.running.port), timeout=60) as connection:
            connection.sendall(request.encode() if isinstance(request, str) else request)
            parts = []
            while part := connection.recv(1 << 16):
                parts.append(part)
        text = b"".join(parts).decode("utf-8", "replace")
        found = re.match(r"HTTP/1\.1 (\d{3}) ", text)
        return (int(found[1]) if found else 0), text

    def get(self, target: str, cookie: str = "", host: str | None = None, extra: str = "") -> tuple[int, str]:
        head = f"GET {target} HTTP/1.1\r\nHost: {host or self.own}\r\nCookie: {cookie}\r\n{extra}"
        return self.raw(head + "Connection: close\r\n\r\n")

    def post(self, target: str, body: str, cookie: str, extra: str) -> tuple[int, str]:
        kind = f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n"
        head = f"POST {target} HTTP/1.1\r\nHost: {self.own}\r\nCookie: {cookie}\r\n{kind}{extra}"
        return self.raw(f"{head}Connection: close\r\n\r\n{body}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("wire")
    with open_store(str(directory / "page.db")) as store:
        store.add_batch(PreferenceBatch("hostile", HOSTILE), [item("evil", HOSTILE, UNSEEN.replace("\0", ""), HOSTILE)])
        store.add_batch(PreferenceBatch("big"), [item("big", BIG, BIG[::-1], BIG[:1000])])
        store.add_batch(PreferenceBatch("week-1"), [item(f"i{number}", overlap=9) for number in range(9)])
        with server(str(directory / "page.db"), directory / "log") as running:
            made = Site(running, store)
            yield made
            for browser in made.browsers:
                browser.connection.close()
        assert store.check() == []
    log = (directory / "log").read_text()
    assert not [c for c in log if unicodedata.category(c) == "Cc" and c != "\n"], "nothing that a terminal would obey"


def test_hostile_answers_are_text(site: Site) -> None:
    rosa = site.person("Rosa")
    _, _, html = rosa.ask("/judge?batch=hostile")
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"img", "iframe", "style", "b", "svg", "object", "embed", "base"}
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 1
    assert page.text.count(HOSTILE[:40]) == 3
    for tag, at in page.tags:
        assert not [name for name in at if name.startswith("on") or name in ("style", "srcdoc")], tag
    assert not [c for c in html if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n\t\u200c\u200d"]
    status, reply = site.get("/judge?batch=hostile", rosa.cookie)
    assert status == 200
    for name, value in HEADERS.items():
        assert f"{name}: {value}".lower() in reply.lower()


def test_a_megabyte_is_judged(site: Site) -> None:
    rosa = site.person("Rosa")
    _, _, html = rosa.ask("/judge?batch=big")
    assert html.count("&lt;b onclick=x&gt;") > 140_000 // 2
    assert "<b " not in html
    status, _, _ = rosa.ask("/judge", given(html) | {"kind": "judged", "choice": "4"})
    assert status == 303
    assert len(site.store.current("big", texts=False)) == 1


@pytest.mark.parametrize("headers", CROSS, ids=str)
def test_posts_from_other_sites(site: Site, headers: dict[str, str]) -> None:
    """With the person's own cookie, as a browser without SameSite would send it."""
    boss = site.person("Boss", "admin")
    before = (len(site.store.log()), len(site.store.annotators()))
    extra = "".join(f"{name}: {value.replace('page.test', site.own)}\r\n" for name, value in headers.items())
    if headers.get("Origin", "").endswith(":8080"):
        extra = f"Origin: http://{HOST}:{site.running.port + 1}\r\n"
    _, _, html = boss.ask("/judge?batch=week-1")
    fields = given(html)
    body = f"submission={fields['submission']}&item={fields['item']}&kind=judged&choice=1&name=Eve&role=admin&batch=big"
    for path in (
        "/judge",
        "/undo",
        "/sign-out",
        "/admin/invite",
        "/admin/close",
        "/admin/retire",
        "/write",
        "/sign-in",
    ):
        status, reply = site.post(path, body, boss.cookie, extra)
        assert (status, "set-cookie" in reply.lower()) == (403, False)
    assert (len(site.store.log()), len(site.store.annotators())) == before
    assert site.store.batch("big").closed_at is None
    assert site.get("/admin", boss.cookie)[0] == 200, "still signed in"


def test_foreign_names(site: Site) -> None:
    boss = site.person("Boss", "admin")
    for host in ("evil.test", f"evil.test:{site.running.port}", f"{HOST}.evil.test", "0.0.0.0", f"{HOST}:80@evil.test"):
        assert site.get("/admin", boss.cookie, host)[0] == 400
    for head in (
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n",
        f"GET / HTTP/1.1\r\nHost: {site.own}\r\nHost: evil.test\r\n",
        f"GET / HTTP/1.1\r\nHost: {site.own}\r\n evil.test\r\n",
        f"GET http://{site.own}/ HTTP/1.1\r\nHost: evil.test\r\n",
    ):
        assert site.raw(f"{head}Connection: close\r\n\r\n")[0] == 400, head
    forwarded = "X-Forwarded-Host: evil.test\r\nX-Forwarded-Proto: https\r\nForwarded: host=evil.test\r\n"
    origin = f"Origin: http://{site.own}\r\n{forwarded}"
    status, reply = site.post("/admin/invite", "name=Inti&role=annotator", boss.cookie, origin)
    assert (status, "evil.test" in reply) == (200, False)
    assert f'value="http://{site.own}/sign-in?invitation=' in reply, "the link names this page"


def test_tokens_forged_and_replayed(site: Site) -> None:
    rosa, invitation = site.person("Rosa"), site.store.invite("Eve")
    eve = site.browser()
    assert eve.ask("/sign-in", {"invitation": invitation})[0] == 303
    for token in (invitation, invitation[:-1], "", "x", "' OR 1=1 --", eve.cookie.partition("=")[2]):
        stranger = site.browser()
        assert stranger.ask("/sign-in", {"invitation": token})[0] == 400
        assert stranger.cookie == ""
    _, _, html = rosa.ask("/judge?batch=week-1")
    fields = given(html) | {"kind": "judged", "choice": "3"}
    assert rosa.ask("/judge", fields)[0] == 303
    before = [row.id for row in site.store.log()]
    assert eve.ask("/judge", fields)[0] == 400, "a token of Rosa's, sent by Eve"
    assert rosa.ask("/judge", fields | {"choice": "6"})[0] == 400, (
        "a token of a form that was sent, with another choice"
    )
    assert rosa.ask("/undo", {"submission": fields["submission"]})[0] == 400, "a judgement's token, to undo"
    assert [row.id for row in site.store.log()] == before
    assert rosa.ask("/undo", {"submission": "0123456789abcdef" * 2})[0] == 303
    before = [row.id for row in site.store.log()]
    assert rosa.ask("/judge", fields)[0] == 400, "what was taken back does not come back with its old token"
    assert eve.ask("/undo", {"submission": "0123456789abcdef" * 2})[0] == 400
    cookie = rosa.cookie
    assert rosa.ask("/sign-out", {})[0] == 303
    for forged in (cookie, "ayni=", "ayni=x", cookie[:-1], cookie.swapcase(), f"ayni={invitation}", "ayni=\x7f"):
        stranger = site.browser(forged)
        assert stranger.ask("/judge?batch=week-1")[:2] == (303, "/sign-in"), forged
        assert stranger.ask("/judge", fields)[0] == 401, forged
    assert [row.id for row in site.store.log()] == before


@pytest.mark.parametrize(
    "target",
    [
        "/static/../views.py",
        "/static/..%2f..%2fstore.py",
        "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/static/....//....//etc/passwd",
        "/static/..\\..\\store.py",
        "/static//etc/passwd",
        "/static/page.css%00.png",
        "/static/page.css/..",
        "/../page.db",
        "//etc/passwd",
        "/judge/../admin",
        "/admin/",
        "/ADMIN",
        "/%61dmin%2finvite",
        "file:///etc/passwd",
        "*",
    ],
)
def test_path_tricks(site: Site, target: str) -> None:
    """Sent as they are: no client tidies them up."""
    status, reply = site.get(target, site.person("Rosa").cookie)
    assert status in (400, 403, 404, 405), reply[:300]
    assert not re.search(r"root:|import |SQLite format", reply)


def test_lines_cannot_be_put_into_an_answers_head(site: Site) -> None:
    rosa = site.person("Amaru")
    origin = f"Origin: http://{site.own}\r\n"
    body = f"submission={'a' * 32}&batch=x%0D%0ASet-Cookie:%20ayni=evil"
    status, reply = site.post("/undo", body, rosa.cookie, origin)
    assert (status, "\nset-cookie" in reply.lower()) == (303, False)
    assert "location: /judge?batch=x%0ASet-Cookie" in reply


def test_what_is_no_http_of_ours(site: Site) -> None:
    origin = f"Host: {site.own}\r\nOrigin: http://{site.own}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    for request, expected in (
        (b"\x1b[2J\x1b]0;owned\x07\r\n\r\n", {0, 400}),
        (b"\x16\x03\x01\x02\x00\x01\x00", {0, 400}),
        (b"GET /\x1b[31m HTTP/1.1\r\nHost: x\r\n\r\n", {0, 400}),
        (f"GET / HTTP/1.1\r\nHost: {site.own}\r\nX: {'x' * 1_000_000}\r\n\r\n".encode(), {0, 400, 431}),
        (f"POST /undo HTTP/1.1\r\n{origin}Content-Length: -1\r\n\r\n".encode(), {0, 400}),
        (f"POST /undo HTTP/1.1\r\n{origin}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef".encode(), {0, 400}),
        (f"POST /undo HTTP/1.1\r\n{origin}Transfer-Encoding: chunked\r\n\r\nzz\r\n".encode(), {0, 400}),
    ):
        try:
            status, _ = site.raw(request)
        except ConnectionResetError:
            status = 0
        assert status in expected, request[:60]
    upgrade = (
        "Upgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n"
    )
    assert site.raw(f"GET / HTTP/1.1\r\nHost: {site.own}\r\n{upgrade}\r\n")[0] == 303


def test_who_sends_without_end_or_never_is_no_one_elses_trouble(site: Site) -> None:
    origin = f"Host: {site.own}\r\nOrigin: http://{site.own}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    with ExitStack() as stack:
        for _ in range(60):
            slow = stack.enter_context(socket.create_connection((HOST, site.running.port)))
            slow.sendall(f"POST /sign-in HTTP/1.1\r\n{origin}Content-Length: 100000\r\n\r\ninvitation=".encode())
        endless = stack.enter_context(socket.create_connection((HOST, site.running.port), timeout=60))
        endless.sendall(f"POST /sign-in HTTP/1.1\r\n{origin}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        with pytest.raises(OSError, match=r"reset|pipe|closed"):  # noqa: PT012
            for _ in range(1000):
                endless.sendall(chunk)
        assert site.person("Rosa").ask("/judge?batch=week-1")[0] == 200


def test_a_name_on_the_command_line_reaches_no_terminal(site: Site) -> None:
    command = [sys.executable, "-m", "ayni", "annotate", site.running.store, "--port", "0", "--login"]
    done = subprocess.run([*command, "--invite", "\x1b]0;owned\x07\u202e"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is not a name" in done.stderr
    assert not [c for c in done.stdout + done.stderr if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]


def test_the_store_is_for_its_owner_only_as_files_go(site: Site) -> None:
    """No file of the store is served, whatever its name."""
    rosa = site.person("Rosa")
    for name in (Path(site.running.store).name, "page.db-wal", "page.db-shm", "log"):
        for place in ("/", "/static/"):
            assert rosa.ask(place + name)[0] == 404


def test_pages_are_sent_at_once() -> None:
    """A page goes out in two writes; asyncio lets the second not wait for the first only where a socket says TCP."""
    with listening(HOST, 0) as bound:
        assert bound.proto == socket.IPPROTO_TCP
