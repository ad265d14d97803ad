"""What stands before every route: whose Host this is and where a change comes from; and the headers of every answer.

The page shows what models wrote, so it treats that as hostile: nothing but our own two files may style or move it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ayni.errors import BadInput

POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
# `same-origin` and not `no-referrer`: under the latter browsers send `Origin: null` with our own forms.
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
        "Cache-Control": "no-store",
    }
)


def is_loopback(host: str) -> bool:
    """`localhost`, 127.0.0.0/8 or ::1, with or without brackets; any other name may lead anywhere."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_bind(host: str, require_login: bool) -> None:
    """BadInput when the page would answer strangers: only loopback goes without login."""
    if not require_login and not is_loopback(host):
        raise BadInput(
            f"{host} can be reached from other machines, so people must sign in",
            field="host",
            fix="add --login, or stay on 127.0.0.1",
        )


class Guard:
    """ASGI middleware: refuses foreign hosts (400), cross-site changes (403) and web sockets; sets the headers."""

    def __init__(self, app: ASGIApp, host_names: Iterable[str], secure: bool) -> None:
        self.app = app
        self.names = frozenset(name.lower() for name in host_names)
        self.scheme = "https" if secure else "http"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self.refusal(str(scope["method"]), Headers(scope=scope))
        await (self.app if refused is None else refused)(scope, receive, with_headers)

    def refusal(self, method: str, headers: Headers) -> PlainTextResponse | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or _name_of(hosts[0]) not in self.names:
            return PlainTextResponse("This page is not served under that name.\n", 400)
        if method not in ("GET", "HEAD") and not self.from_here(headers, hosts[0]):
            return PlainTextResponse("This came from another site, so nothing was changed.\n", 403)
        return None

    def from_here(self, headers: Headers, host: str) -> bool:
        """Browsers say in one header or in both where a form was sent from; each that is there must name us."""
        site, origin = headers.getlist("sec-fetch-site"), headers.getlist("origin")
        if not site and not origin:
            return False
        ours = f"{self.scheme}://{host}".lower()
        return all(value == "same-origin" for value in site) and all(value.lower() == ours for value in origin)


def _name_of(host: str) -> str:
    """The name in a Host header without its port, in lower case; "" when it is malformed."""
    name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not colon:
        name = host
    elif not (port.isascii() and port.isdigit()):
        return ""
    return name.lower()
