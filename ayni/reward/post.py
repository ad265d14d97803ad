"""JSON to an endpoint and what it replies: patient where it is busy or away, one clear line where it cannot work."""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ayni.errors import BadInput

TRIES = 5
WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds before the second try; twice as long before each later one
LARGEST_REPLY = 1 << 20  # bytes
_PRINTABLE = re.compile("[!-~]+")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would send the key somewhere else; it becomes an error that names the new address."""

    def redirect_request(self, *_: Any) -> None:
        return None


def check_address(url: str, whose: str, field: str, ends: str = "PATH") -> None:
    """BadInput where it is no address, and where it holds a password, which errors would show."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname or "", parts.port  # a ValueError of a port that is none
        sound = parts.scheme in ("http", "https") and host.encode("idna") != b""
    except ValueError:
        sound = False
    if not sound or _PRINTABLE.fullmatch(url) is None:
        raise BadInput(f"{whose} {shown(url)} is no address", field=field, fix=f"write http://HOST:PORT/{ends}")
    if "@" in parts.netloc:
        raise BadInput(f"the address of {whose} holds a password", field=field, fix="keys go into the environment")


def shown(url: str) -> str:
    """The address without what may be a secret."""
    return re.sub("//[^/]*@", "//…@", url.partition("?")[0])


def parsed(reply: bytes) -> Any:
    """The reply as JSON; ValueError where it is none."""
    try:
        return json.loads(reply)
    except RecursionError:
        raise ValueError("nested too deep") from None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Who is asked: `name` stands in errors, `key` is the environment variable that may hold its key.

    The key goes into a header and nowhere else: what the endpoint says of it is blotted out.
    """

    name: str
    key: str
    timeout: float = 60.0
    wait: Callable[[float], None] = time.sleep
    if_missing: str | None = None  # what to try after a 404

    def send(self, url: str, body: Any = None) -> bytes:
        """The reply to a POST of `body`, to a GET without one, after as many tries as it takes and no more than TRIES.

        Raises BadInput where asking again cannot help, and where it has not.
        """
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key):
            if _PRINTABLE.fullmatch(key) is None:
                what = f"the environment variable {self.key} holds what no key does: a space, a line break, a letter"
                raise BadInput(f"{what} with an accent", fix="set it again")
            headers["Authorization"] = f"Bearer {key}"
        pause = WAIT
        for tried in range(1, TRIES + 1):
            try:
                request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers)
                with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout) as reply:
                    return self._taken(reply, LARGEST_REPLY)
            except urllib.error.HTTPError as error:
                why = self._refusal(error)
                pause = max(pause, _seconds(error.headers.get("Retry-After")))
            except (ValueError, http.client.InvalidURL):
                raise BadInput(f"{self.name}: no request can be sent to this address") from None
            except (OSError, http.client.HTTPException) as error:
                why = f"does not answer ({getattr(error, 'reason', None) or error or type(error).__name__})"
            if tried < TRIES:
                self.wait(min(pause, LONGEST_WAIT))
                pause *= 2
        raise BadInput(f"{self.name} {why}, {TRIES} times; once it does, the same command continues")

    def _taken(self, reply: Any, most: int) -> bytes:
        """So many bytes of the reply at most, and what takes no longer than the timeout."""
        until, taken = time.monotonic() + self.timeout, b""
        while len(taken) < most and (block := reply.read1(most - len(taken))):
            taken += block
            if time.monotonic() > until:
                raise TimeoutError(f"not done after {self.timeout:g} seconds")
        key = os.environ.get(self.key, "").encode()
        return taken.replace(key, b"***") if key else taken

    def _refusal(self, error: urllib.error.HTTPError) -> str:
        """What is wrong, if asking again may help; BadInput if it cannot."""
        try:
            body = " ".join(self._taken(error.fp, 2000).decode("utf-8", "replace").split())[:200]
        except (OSError, http.client.HTTPException):
            body = ""
        error.close()
        # timeout, too early, too many requests: theirs to get over
        if error.code in (408, 425, 429) or error.code >= 500:
            return f"says {error.code} {error.reason}"
        what = f"{self.name} says {error.code} {error.reason}"
        if error.code in (401, 403):
            raise BadInput(what, fix=f"put a key that it takes into the environment variable {self.key}")
        if error.code < 400:
            raise BadInput(what, fix=f"give the address it points to: {shown(str(error.headers.get('Location')))}")
        raise BadInput(f"{what}: {body}" if body else what, fix=self.if_missing if error.code == 404 else None)


def _seconds(text: str | None) -> float:
    """Of a Retry-After header; a date there counts as none."""
    return float(text) if text is not None and re.fullmatch("[0-9]{1,9}", text) else 0.0
