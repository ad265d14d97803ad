"""What a person sent: one small urlencoded form, read strictly."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from ayni.errors import BadInput

Form = Mapping[str, str]
BODY_BYTES = 128 * 1024
FIELDS = 24
_TOKEN = re.compile(r"[0-9a-f]{32}")
_DAY = 86_400.0  # seconds


async def read_form(request: Request) -> Form:
    """The fields of a form, new lines as \\n. HTTPException 413, 415 or 400 for what no form of ours would send."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES:
                hang_up = {"Connection": "close"}  # else the server goes on reading what may never end
                raise HTTPException(413, "That is too much text for one form. Please shorten it.", hang_up)
    except ClientDisconnect:  # half a form, and nobody there to be told
        raise HTTPException(400, "The form did not arrive whole. Please go back and send it again.") from None
    if not body:  # a form that is only a button
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "This is not one of the page's forms.")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=FIELDS
        )
    except ValueError:
        raise HTTPException(400, "The form did not arrive whole. Please go back and send it again.") from None
    fields = {name: value.replace("\r\n", "\n").replace("\r", "\n") for name, value in pairs}
    if len(fields) != len(pairs) or any("\0" in value for value in fields.values()):
        raise HTTPException(400, "The form did not arrive whole. Please go back and send it again.")
    return fields


def text(form: Form, field: str, *, limit: int, about: str) -> str:
    """A field of free text without the space around it; BadInput over `limit` characters."""
    value = form.get(field, "").strip()
    if len(value) > limit:
        raise BadInput(f"{about} is {len(value):,} characters long; at most {limit:,} fit", field=field)
    return value


def submission(form: Form) -> str:
    """The token that the page put into the form: 32 hexadecimal digits."""
    token = form.get("submission", "")
    if not _TOKEN.fullmatch(token):
        raise HTTPException(400, "The form did not arrive whole. Please load the page again.")
    return token


def seconds_since(form: Form, field: str = "shown") -> float | None:
    """Seconds since the form was made; None when that cannot be told or is over a day."""
    try:
        passed = time.time() - float(form.get(field, ""))
    except ValueError:
        return None
    return round(passed, 1) if math.isfinite(passed) and 0 <= passed <= _DAY else None
