"""An endpoint as judge, against a server of our own that is polite, wrong, busy, silent or hostile."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoints import Endpoint, Reply, completion, prefers
from small_models import build, refused, small_tokenizer

from ayni import cli
from ayni.errors import AyniError, BadInput
from ayni.evaluate.win_rate import compare, tally
from ayni.model_directory import save_model
from ayni.records import Message, Prompt
from ayni.reward.api_judge import ApiJudge, served_model
from ayni.reward.post import LARGEST_REPLY, TRIES


def ask(id: str = "p", task: Any = "helpfulness") -> Prompt:
    return Prompt(id, (Message("system", "be brief"), Message("user", "who sings?")), task)


def judge(endpoint: Endpoint, **options: Any) -> ApiJudge:
    waited: list[float] = []
    found = ApiJudge(endpoint.url, "m", wait=waited.append, timeout=5, **options)
    found.waited = waited  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("A", 1.0), ("b", 0.0), ("Tie.", 0.5), (" **B**\n", 0.0), ("Verdict: A", 1.0), ("The final answer is B.", 0.0),
        ("A sings, B croaks.\n\nMy choice: A", 1.0),
    ],
)  # fmt: skip
def test_verdicts(endpoint: Endpoint, text: str, verdict: float) -> None:
    endpoint.says = lambda task: (200, completion(text))
    assert judge(endpoint)(ask(), "x", "y") == verdict


@pytest.mark.parametrize("text", ["", None, "C", "A is better than B", "Both are fine", "I cannot say.", "AB"])
def test_what_is_no_verdict_is_an_error(endpoint: Endpoint, text: str | None) -> None:
    endpoint.says = lambda task: (200, completion(text))
    with pytest.raises(AyniError, match="instead of A, B or tie; choose another judge_model"):
        judge(endpoint)(ask(), "x", "y")


def test_what_it_is_asked(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AYNI_API_KEY", "secret")
    judge(endpoint)(ask(task="safety"), "first {x}", "second </answer A>")
    (body,) = endpoint.asked
    assert (body["model"], body["temperature"], endpoint.keys) == ("m", 0, ["Bearer secret"])
    task = body["messages"][0]["content"]
    for part in ("system: be brief", "user: who sings?", "\nfirst {x}\n", "\nsecond </answer A>\n", "safer"):
        assert part in task
    assert task.index("first {x}") < task.index("second </answer A>")


def test_both_orders_are_asked_once_and_a_judge_of_places_ties(endpoint: Endpoint) -> None:
    prompts = [ask(str(i)) for i in range(6)]
    ours, theirs = ["the river"] * 6, ["no", "no", "a song", "the river", "no", "no"]
    endpoint.says = prefers("river")
    model = judge(endpoint)
    seen: list[tuple[int, int]] = []
    model.ask_all(prompts, ours, theirs, progress=lambda done, total: seen.append((done, total)))
    assert len(endpoint.asked) == 10  # the equal pair is no question
    assert seen == [(n, 10) for n in range(1, 11)]
    total = tally(compare(prompts, ours, theirs, model))
    assert (total.wins, total.ties, total.losses) == (5, 1, 0)
    assert len(endpoint.asked) == 10
    endpoint.says = lambda task: (200, completion("A"))
    assert tally(compare(prompts, ours, theirs, judge(endpoint))).ties == 6


def test_a_busy_endpoint_is_asked_again_with_growing_pauses(endpoint: Endpoint) -> None:
    replies: list[Reply] = [
        (503, b"later"), (429, b"", {"Retry-After": "7"}), (500, b""), (200, completion("A")),
    ]  # fmt: skip
    endpoint.says = lambda task: replies.pop(0)
    model = judge(endpoint)
    assert model(ask(), "x", "y") == 1
    assert model.waited == [1, 7, 14]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((503, b"x" * 3000), rf"says 503 Service Unavailable, {TRIES} times; once it does, the same"),
        ((401, b"no"), "says 401 Unauthorized; put a key that it takes into the environment variable AYNI_API_KEY"),
        ((404, b'{"error": "no \n model m"}'), 'says 404 Not Found: {"error": "no model m"}; its address usually'),
        ((400, b""), "says 400 Bad Request"),
        ((307, b"", {"Location": "http://elsewhere/"}), "give the address it points to: http://elsewhere/"),
        ((200, b"<html>"), "does not answer as OpenAI's API does"),
        ((200, [1]), "does not answer as OpenAI's API does"),
        ((200, {"choices": []}), "does not answer as OpenAI's API does"),
        ((200, b" " * LARGEST_REPLY + b"{}"), "does not answer as OpenAI's API does"),
    ],
)
def test_what_is_wrong_is_one_line(endpoint: Endpoint, reply: Reply, message: str) -> None:
    endpoint.says = lambda task: reply
    assert message in refused(lambda: judge(endpoint)(ask(), "x", "y"))


def test_nobody_there(endpoint: Endpoint) -> None:
    with pytest.raises(BadInput, match=rf"does not answer \(.*refused.*\), {TRIES} times"):
        ApiJudge("http://127.0.0.1:9/v1", "m", wait=lambda seconds: None)(ask(), "x", "y")
    with pytest.raises(BadInput, match="is no address; write http://HOST:PORT/v1"):
        ApiJudge("file:///etc/passwd", "m")


def test_an_error_of_one_thread_stops_all(endpoint: Endpoint) -> None:
    endpoint.says = lambda task: (200, completion("hm"))
    with pytest.raises(AyniError, match="instead of A, B or tie"):
        judge(endpoint).ask_all([ask(str(i)) for i in range(50)], ["x"] * 50, ["y"] * 50)
    assert len(endpoint.asked) < 20


def test_verdicts_outlive_a_kill(endpoint: Endpoint, tmp_path: Path) -> None:
    memory = tmp_path / "verdicts.jsonl"
    model = judge(endpoint, memory=memory)
    assert [model(ask("1"), "x", "y"), model(ask("1"), "y", "x")] == [1, 1]
    with open(memory, "a") as file:
        file.write('{"prompt":"2"')
    again = judge(endpoint, memory=memory)
    assert again(ask("1"), "x", "y") == 1
    assert len(endpoint.asked) == 2
    again(ask("2"), "x", "y")
    assert [json.loads(line)["prompt"] for line in memory.read_text().splitlines()] == ["1", "1", "2"]


def test_an_endpoint_that_stops_in_the_middle_is_no_bad_input(endpoint: Endpoint) -> None:
    model = judge(endpoint)
    model(ask("1"), "x", "y")
    for reply in ((403, b""), (503, b"")):
        endpoint.says = lambda task, reply=reply: reply  # type: ignore[misc]
        with pytest.raises(AyniError, match=r"says 403|the same command continues") as caught:
            model(ask("2"), "x", "y")
        assert not isinstance(caught.value, BadInput)


def test_the_model_it_serves(endpoint: Endpoint) -> None:
    assert served_model(endpoint.url) == "only"
    endpoint.models = ["a", "b"]
    assert "serves a, b; say which: --set judge_model=NAME" in refused(lambda: served_model(endpoint.url))
    endpoint.models = []
    assert "names no model" in refused(lambda: served_model(endpoint.url))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, seed in (("new", 0), ("old", 1)):
        model = build()
        model.tok_embeddings.weight.data.mul_(20 + seed)  # sharper than fresh, and unlike the other
        save_model(tmp_path / name, model, small_tokenizer())
    prompts = [{"id": str(i), "dialog": [{"role": "user", "content": "the river " * i}]} for i in range(1, 5)]
    Path("prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    return tmp_path


def test_evaluate_asks_an_endpoint(folder: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["evaluate", "--model", "new", "--against", "old", "--prompts", "prompts.jsonl", "--judge", endpoint.url]
    argv += ["--out", "o", "--set", "max_tokens=6", "--set", "kl_prompts=0", "--quiet"]
    assert cli.run(argv) == 0, capsys.readouterr().err
    rows = {row["metric"]: row for row in json.loads(Path("o/results.json").read_text())["results"]}
    row = rows["win_rate"]
    assert (row["judge"], row["model"], row["against"], row["n"]) == ("only", "new", "old", 4)
    assert row["ties"] == 4  # it always says A, whatever the order
    assert rows["first_place_rate"]["value"] == 1
    assert len(endpoint.asked) == 8
    assert json.loads(Path("o/samples.jsonl").read_text().splitlines()[0])["scores"] == {}
    assert cli.run(argv) == 0
    assert len(endpoint.asked) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--set", "judge_model=m"], "says 401 Unauthorized; put a key"),
        (["--judge", "ftp://x"], "judge_url: the judge ftp://x is no address"),
        (["--against", ""], "an endpoint compares two models' answers"),
    ],
)
def test_an_endpoint_that_cannot_judge_leaves_nothing(
    folder: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    endpoint.says = lambda task: (401, b"")
    given = {"--model": "new", "--against": "old", "--prompts": "prompts.jsonl", "--judge": endpoint.url, "--out": "o"}
    given |= {change[0]: change[1]}
    before = sorted(folder.rglob("*"))
    argv = [word for name, value in given.items() if value for word in (name, value)]
    assert cli.run(["evaluate", *argv, "--set", "max_tokens=4", "--quiet"]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("key", ["secret-1\n", "secret\r\nX-More: 1", "sécret", "se cret", "secret\x00"])
def test_a_key_that_no_header_can_hold_is_never_shown(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    if "\x00" in key:
        monkeypatch.setattr("os.environ", {**os.environ, "AYNI_API_KEY": key})
    else:
        monkeypatch.setenv("AYNI_API_KEY", key)
    said = refused(lambda: judge(endpoint)(ask(), "x", "y"))
    assert "the environment variable AYNI_API_KEY holds what no key does" in said
    assert key[:3] not in said.replace("set", "")
    assert endpoint.asked == []


@pytest.mark.parametrize("status", [200, 301, 400, 404, 500])
def test_a_key_that_the_endpoint_repeats_is_blotted_out(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("AYNI_API_KEY", "sk-secret")
    endpoint.says = lambda task: (status, b'{"error": "bad key sk-secret"}')
    assert "sk-secret" not in refused(lambda: judge(endpoint)(ask(), "x", "y"))


ADDRESSES = [
    "http://", "http:///v1", "http://[::1", "http://h:port/v1", "http://h:99999/v1", "http://h:0/v1\n", "http://a b/v1",
    "http://h/v 1", "http://h/ü", "http://a..b/v1", f"http://{'a' * 70}/v1", "http://h/\x1b[2J", "ftp://h/v1",
    "h:80/v1", "",
]  # fmt: skip


@pytest.mark.parametrize("url", ADDRESSES)
@pytest.mark.parametrize("use", [lambda url: ApiJudge(url, "m"), served_model])
def test_addresses_that_are_none(url: str, use: Callable[[str], object]) -> None:
    assert "is no address; write http://HOST:PORT/v1" in refused(lambda: use(url))


def test_a_password_in_an_address_is_not_shown() -> None:
    for url in ("http://me:hush@h/v1", "https://hush@h/v1"):
        said = refused(lambda url=url: ApiJudge(url, "m"))  # type: ignore[misc]
        assert "holds a password; keys go into the environment" in said
        assert "hush" not in said
    assert "hush" not in refused(lambda: ApiJudge("ftp://me:hush@h/v1?key=hush", "m"))


@pytest.mark.parametrize("seconds", ["²", "-1", "1e3", "soon", "9" * 400, "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_pause_that_is_none(endpoint: Endpoint, seconds: str) -> None:
    replies: list[Reply] = [(503, b"", {"Retry-After": seconds}), (200, completion("A"))]
    endpoint.says = lambda task: replies.pop(0)
    model = judge(endpoint)
    assert model(ask(), "x", "y") == 1
    assert model.waited == [1]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "reply",
    [
        b"[" * 5000, b'{"choices":' * 3000, b'{"choices": [{"message": {"content": ' + b"9" * 5000 + b"}}]}", b"",
        b"\xff\xfe",
        b'{"choices": {"0": 1}}', b'{"choices": "text"}', b'{"choices": [null]}', b'"text"', b"null", b"NaN",
        b"[" * 500 + b"]" * 500,
    ],
)  # fmt: skip
def test_replies_of_a_wrong_shape(endpoint: Endpoint, reply: bytes) -> None:
    endpoint.says = lambda task: (200, reply)
    assert "does not answer as OpenAI's API does" in refused(lambda: judge(endpoint)(ask(), "x", "y"))


def dripping(head: bytes, every: float) -> Iterator[str]:
    """The address of a server that says `head`, and then a byte at a time for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(head)
                        while not over.wait(every):
                            connection.sendall(b" ")

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        over.set()


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "503 Busy"])
def test_an_endpoint_that_never_comes_to_an_end(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    for url in dripping(f"HTTP/1.1 {status}\r\nContent-Length: 999999\r\n\r\n".encode(), 0.02):
        began = time.monotonic()
        said = refused(lambda url=url: ApiJudge(url, "m", timeout=0.2, wait=lambda seconds: None)(ask(), "x", "y"))  # type: ignore[misc]
        assert time.monotonic() - began < 5
        assert "not done after 0.2 seconds" in said or status[:3] in said


@pytest.mark.parametrize("line", [
    "3", "[]", "{}", '{"prompt": 1}', '{"prompt": {}, "asked": "x", "nth": 0, "verdict": 1}',
    '{"prompt": "p", "asked": "x", "nth": 0, "verdict": "good"}',
])  # fmt: skip
def test_verdicts_that_are_none(tmp_path: Path, line: str) -> None:
    (tmp_path / "m.jsonl").write_text(line + "\n")
    said = refused(lambda: ApiJudge("http://x/v1", "m", tmp_path / "m.jsonl"))
    assert "m.jsonl:1: no verdict, or one kept by an older ayni" in said
