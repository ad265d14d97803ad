"""An OpenAI-compatible endpoint of the tests' own, which says what a test wants."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]]


class Endpoint(ThreadingHTTPServer):
    """Answers what `says(asked)` returns: the status, the body and more headers; remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.says: Callable[[str], Reply] = lambda task: (200, completion("A"))
        self.models = ["only"]


class _Answer(BaseHTTPRequestHandler):
    server: Endpoint

    def do_GET(self) -> None:
        self.give(200, {"data": [{"id": name} for name in self.server.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.keys.append(self.headers["Authorization"])
        assert self.path == "/v1/chat/completions"
        self.give(*self.server.says(body["messages"][0]["content"]))

    def give(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def completion(text: str | None) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def prefers(word: str) -> Callable[[str], Reply]:
    """Reads both answers and prefers the one with `word`, wherever it stands."""

    def says(task: str) -> Reply:
        first, second = (task.split(f"<answer {name} ")[1].split("</answer")[0] for name in "AB")
        return 200, completion("A" if word in first else "B" if word in second else "tie")

    return says
