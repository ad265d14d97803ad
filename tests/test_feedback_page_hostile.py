"""What must not succeed on the annotation page: hostile answers, other sites, foreign names, forged tokens, tricks."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_visitor import HOST, ORIGIN, Visitor, echo, item, new_store, person, site

from ayni.errors import AyniError
from ayni.feedback.page.forms import BODY_BYTES
from ayni.feedback.page.guard import HEADERS
from ayni.feedback.page.shown import shown
from ayni.feedback.store import Store

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)><svg/onload=alert(3)>"
    "</div></textarea></title><form action=https://evil.test><a href='javascript:alert(4)'>x</a>"
    "<style>*{display:none}</style><iframe srcdoc='x'></iframe>{{ 7 * 7 }}{% raw %}&lt;&#x3c;"
)
UNSEEN = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\u2066\u200b\ufeff\x00\x9b31m\r\u2028\U000e0041"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with new_store(tmp_path) as made:
        yield made


@pytest.fixture
def rosa(store: Store) -> Visitor:
    return Visitor(site(store, talk=echo)).sign_in(store.invite("Rosa"))


def judge_fields(visitor: Visitor) -> dict[str, str]:
    visitor.go("/judge?batch=week-1")
    return visitor.page.form("/judge").fields | {"kind": "judged", "choice": "2"}


def test_hostile_answers_are_shown_as_the_text_they_are(tmp_path: Path) -> None:
    hostile = item("x", HOSTILE, "=HYPERLINK(1)", HOSTILE)
    with new_store(tmp_path, hostile, guidelines=HOSTILE) as store:
        rosa = Visitor(site(store)).sign_in(store.invite("Rosa <b>&"))
        rosa.go("/judge?batch=week-1")
        assert not {tag for tag, _ in rosa.page.tags} & {"img", "iframe", "style", "b"}
        (script,) = [at for tag, at in rosa.page.tags if tag == "script"]
        assert str(script["src"]).startswith("/static/page.js?")
        assert rosa.page.text.count(HOSTILE[:40]) == 3  # in the prompt, an answer and the guidelines
        assert "{{ 7 * 7 }}" in rosa.page.text
        for tag, at in rosa.page.tags:
            assert not [name for name in at if name.startswith("on") or name == "style"], tag
            assert not re.match(r"\s*(javascript|data|https?):", at.get("href") or at.get("action") or ""), tag


def test_unseen_characters_are_spelt_out_and_nothing_else_changes() -> None:
    html = shown(UNSEEN + "ok ñ 日本 👩‍👧 می‌خواهم\tend\n")
    for code in ("U+001B", "U+0007", "U+202E", "U+2066", "U+200B", "U+FEFF", "U+0000", "U+009B", "U+000D", "U+E0041"):
        assert f"‹{code}›" in html
    rest = re.sub("<[^>]*>", "", str(html))
    assert rest.endswith("ok ñ 日本 👩‍👧 می‌خواهم\tend\n")
    left = {unicodedata.category(c) for c in rest.replace("\u200d", "").replace("\u200c", "")}
    assert not left & {"Cs", "Zl", "Zp"}
    assert not [c for c in rest if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n\t\u200c\u200d"]
    assert shown("a\r\nb") == "a\nb"
    assert re.sub("<[^>]*>", "", str(shown("\0" * 5000))) == "‹U+0000 ×5,000›"
    assert str(shown("\ud800")).encode("utf-8")


@pytest.mark.parametrize("text", ["word " * 200_000, "x" * 1_000_000, "\u202e\u202d" * 500_000, "<&" * 500_000])
def test_an_answer_of_a_megabyte_is_served_whole_and_judged(tmp_path: Path, text: str) -> None:
    with new_store(tmp_path, item("big", text, text[:-1])) as store:
        rosa = Visitor(site(store)).sign_in(store.invite("Rosa"))
        fields = judge_fields(rosa)
        assert len(rosa.at.content) < 25e6
        rosa.post("/judge", fields)
        assert len(store.current()) == 1


@pytest.mark.parametrize("path", ["/sign-in", "/nothing", "/static/page.css", "/static/nothing", "/judge"])
def test_every_answer_carries_the_headers(store: Store, path: str) -> None:
    answer = Visitor(site(store)).go(path)
    for name, value in HEADERS.items():
        if name != "Cache-Control":
            assert answer.headers[name] == value
    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert ("no-store" in answer.headers["Cache-Control"]) == (path != "/static/page.css")


CROSS: list[dict[str, str]] = [
    {"Origin": "https://evil.test"},
    {"Origin": "null"},
    {"Origin": f"https://{HOST}"},
    {"Origin": f"{ORIGIN}:8080"},
    {"Origin": f"{ORIGIN}.evil.test"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.test"},
    {"Sec-Fetch-Site": "cross-site", "Origin": ORIGIN},
    {},
]


@pytest.mark.parametrize("headers", CROSS)
@pytest.mark.parametrize(
    "path", ["/judge", "/undo", "/sign-in", "/sign-out", "/admin/invite", "/admin/retire", "/write", "/dialogue"]
)
def test_a_change_from_another_site_is_refused(store: Store, path: str, headers: dict[str, str]) -> None:
    visitor = Visitor(site(store, talk=echo)).sign_in(store.invite("Boss", "admin"))
    fields = judge_fields(visitor) | {"invitation": store.invite("Boss", "admin"), "name": "Eve", "role": "admin"}
    before = len(store.annotators())
    del visitor.client.headers["Origin"]
    assert visitor.post(path, fields, **headers).status_code == 403
    assert "set-cookie" not in visitor.at.headers
    assert (store.log(), len(store.annotators())) == ([], before)
    assert visitor.go("/").url.path == "/"  # still signed in


def test_either_header_alone_is_enough(rosa: Visitor, store: Store) -> None:
    fields = judge_fields(rosa)
    rosa.post("/judge", fields)
    fields = judge_fields(rosa)
    del rosa.client.headers["Origin"]
    assert rosa.post("/judge", fields, **{"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert len(store.log()) == 2


@pytest.mark.parametrize(
    "host",
    ["evil.test", f"{HOST}.evil.test", f"evil.{HOST}", "", f"{HOST}:x", f"{HOST}:", f"{HOST}@evil.test", "127.0.0.1"],
)
def test_a_foreign_host_is_refused(rosa: Visitor, store: Store, host: str) -> None:
    fields = judge_fields(rosa)
    assert rosa.go("/", Host=host).status_code == 400
    assert rosa.post("/judge", fields, Host=host, Origin=f"http://{host}").status_code == 400
    assert store.log() == []


def test_our_host_with_a_port_and_in_capitals_is_ours(rosa: Visitor) -> None:
    assert rosa.go("/sign-in", Host=f"{HOST}:8765").status_code == 200
    assert rosa.go("/sign-in", Host=HOST.upper()).status_code == 200


def test_invitations_work_once_and_forged_ones_never(store: Store) -> None:
    token = store.invite("Rosa")
    Visitor(site(store)).sign_in(token)
    for forged in (token, "", "x", token[:-1], token.swapcase(), "' OR 1=1 --", "\u202e", "A" * 10_000):
        visitor = Visitor(site(store))
        visitor.go("/sign-in")
        assert visitor.post("/sign-in", {"invitation": forged}).status_code == 400
        assert "set-cookie" not in visitor.at.headers
        assert visitor.go("/").url.path == "/sign-in"


def test_sessions_end_and_forged_ones_never_begin(rosa: Visitor, store: Store) -> None:
    (cookie,) = rosa.client.cookies.jar
    assert cookie.name == "ayni"
    assert cookie.value
    fields = judge_fields(rosa)
    rosa.go("/")
    rosa.send("/sign-out")
    for forged in (cookie.value, "", "x", cookie.value[:-1], "None"):
        eve = Visitor(site(store))
        eve.client.cookies.set("ayni", forged, domain=HOST)
        assert eve.go("/judge?batch=week-1").url.path == "/sign-in"
        assert eve.post("/judge", fields).status_code == 401
    assert store.log() == []


def test_cookies_are_out_of_reach(store: Store) -> None:
    for secure in (False, True):
        visitor = Visitor(site(store, secure=secure), follow_redirects=False)
        origin = f"{'https' if secure else 'http'}://{HOST}"
        answer = visitor.post("/sign-in", {"invitation": store.invite("Rosa")}, Origin=origin)
        cookie = answer.headers["set-cookie"].lower()
        for part in ("httponly", "samesite=strict", "path=/"):
            assert part in cookie
        assert ("secure" in cookie, cookie.startswith("__host-ayni=")) == (secure, secure)
        assert "domain" not in cookie


def test_a_retired_annotator_is_out_at_once(rosa: Visitor, store: Store) -> None:
    store.retire(person(store).id)
    assert rosa.go("/").url.path == "/sign-in"


def test_annotators_see_no_admin_page_and_no_one_elses_dialogue(rosa: Visitor, store: Store) -> None:
    me = person(store).id
    for path in ("/admin/invite", "/admin/close", "/admin/retire"):
        assert rosa.post(path, {"name": "Eve", "role": "admin", "batch": "week-1", "annotator": me}).status_code == 403
    assert rosa.go("/admin").status_code == 403
    rosa.go("/write?batch=week-1")
    rosa.send("/write", prompt="Mine?", task="helpfulness")
    mine = rosa.page.form("/judge").fields
    dialogue = store.dialogues(person(store).id)[0].id
    eve = Visitor(site(store, talk=echo)).sign_in(store.invite("Eve"))
    assert eve.go(f"/dialogue?id={dialogue}").status_code == 404
    assert eve.post("/judge", mine | {"kind": "judged", "choice": "1"}).status_code == 404
    assert eve.post("/dialogue", {"dialogue": dialogue, "turn": "2", "prompt": "Eve"}).status_code == 404
    assert eve.post("/dialogue/end", {"dialogue": dialogue}).status_code == 404
    assert store.log() == []


@pytest.mark.parametrize(
    "path",
    [
        "/static/../views.py",
        "/static/%2e%2e/views.py",
        "/static/..%2fdesk.py",
        "/static/%2e%2e%2f%2e%2e%2fstore.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/page.css%00.py",
        "/static/page.css/",
        "/static/",
        "/static",
        "//evil.test",
        "/templates/judge.html.jinja",
        "/judge/../admin",
        "/.env",
    ],
)
def test_path_tricks_find_nothing(rosa: Visitor, path: str) -> None:
    answer = rosa.client.get(ORIGIN + path, follow_redirects=False)
    assert answer.status_code in (403, 404), answer.headers.get("location")
    assert "import" not in answer.text
    assert "root:" not in answer.text


@pytest.mark.parametrize("query", ["batch=nothing", "batch=", "batch=../x", "", "batch=%00"])
def test_what_is_not_there_is_not_found(rosa: Visitor, query: str) -> None:
    assert rosa.go(f"/judge?{query}").status_code == 404
    assert rosa.go(f"/judge?{query}&notice=<script>").status_code == 404


def test_the_address_cannot_put_words_on_the_page(rosa: Visitor) -> None:
    assert rosa.go("/?notice=You%20won%20a%20prize").status_code == 200
    assert "prize" not in rosa.at.text


def test_a_body_over_the_limit_is_refused(rosa: Visitor, store: Store) -> None:
    fields = judge_fields(rosa)
    assert rosa.post("/judge", fields | {"comment": "x" * BODY_BYTES}).status_code == 413
    assert rosa.post("/judge", fields | {"comment": "x" * 4001}).status_code == 400
    assert "at most 4,000" in rosa.page.text
    assert store.log() == []


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (415, "application/json", b'{"kind": "judged"}'),
        (415, "text/plain", b"kind=judged"),
        (415, "multipart/form-data; boundary=x", b"--x--"),
        (400, FORM, b"\xff\xfe"),
        (400, FORM, b"comment=%ff"),
        (400, FORM, b"comment=%00"),
        (400, FORM, b"choice=1&choice=2"),
        (400, FORM, b"&".join(b"f%d=1" % n for n in range(99))),
        (400, FORM, b"submission=short"),
        (400, FORM, b""),
    ],
)
def test_what_is_no_form_of_ours_is_refused(rosa: Visitor, store: Store, status: int, kind: str, body: bytes) -> None:
    judge_fields(rosa)
    answer = rosa.client.post("/judge", content=body, headers={"Content-Type": kind})
    assert (answer.status_code, store.log()) == (status, [])


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (400, {"choice": "0"}),
        (400, {"choice": "9"}),
        (400, {"choice": "٣"}),
        (400, {"choice": "-1"}),
        (400, {"kind": "withdrawn"}),
        (400, {"submission": "'; DROP TABLE judgements; --"}),
        (404, {"item": "nothing"}),
        (404, {"item": "../ayllu"}),
    ],
)
def test_forged_fields_are_refused(rosa: Visitor, store: Store, status: int, fields: dict[str, str]) -> None:
    assert rosa.post("/judge", judge_fields(rosa) | fields).status_code == status
    assert store.log() == []


@pytest.mark.parametrize("shown_at", ["nan", "inf", "-inf", "1e400", "0", "99999999999", "", "x", "-1"])
def test_a_forged_time_is_no_time(rosa: Visitor, store: Store, shown_at: str) -> None:
    rosa.post("/judge", judge_fields(rosa) | {"shown": shown_at})
    assert store.current()[0].entry.seconds is None


def test_other_methods_do_nothing(rosa: Visitor) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert rosa.client.request(method, "/judge").status_code == 405
    assert rosa.client.get("/sign-out").status_code == 405


def test_a_broken_model_shows_no_traceback(store: Store) -> None:
    def broken(dialog: Any, task: str) -> Any:
        raise RuntimeError("secret path /srv/models")

    rosa = Visitor(site(store, talk=broken), raise_server_exceptions=False).sign_in(store.invite("Rosa"))
    rosa.go("/write?batch=week-1")
    answer = rosa.send("/write", prompt="Hello?", task="safety")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]


def test_a_model_may_spell_nul(store: Store) -> None:
    def talk(dialog: Any, task: str) -> Any:
        return "a\0b", "\0", "new", "old", {}, {}

    rosa = Visitor(site(store, talk=talk)).sign_in(store.invite("Rosa"))
    rosa.go("/write?batch=week-1")
    rosa.send("/write", prompt="Hello?", task="helpfulness")
    (turn,) = store.dialogues(person(store).id)[0].turns
    assert (turn.answer_a, turn.answer_b) == ("a\N{REPLACEMENT CHARACTER}b", "\N{REPLACEMENT CHARACTER}")


def test_a_store_that_fails_is_said_and_logged(
    rosa: Visitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Store, entry: object) -> int:
        raise AyniError("page.db: database is locked")

    fields = judge_fields(rosa)
    monkeypatch.setattr(Store, "record", fail)
    with caplog.at_level(logging.ERROR):
        answer = rosa.post("/judge", fields)
    assert answer.status_code == 503
    assert "locked" not in answer.text
    assert "database is locked" in caplog.text
