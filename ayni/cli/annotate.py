"""`ayni annotate`: the page where people compare answers, served until it is told to stop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ayni.cli import say
from ayni.errors import BadInput
from ayni.feedback.entries import Annotator
from ayni.feedback.page import Quality, Talk, app, check_bind
from ayni.feedback.page.serving import host_names, listening, origin, serve
from ayni.feedback.page.views import address
from ayni.feedback.store import Store, open_store


def annotate(
    store: str,
    host: str,
    port: int,
    login: bool,
    names: Sequence[str],
    https: bool,
    annotator: str,
    invite: str | None,
    models: Sequence[Path],
    temperatures: Sequence[float],
    max_tokens: int,
    seed: int,
    quality: Quality | None = None,
) -> None:
    """Serves the page over the store at `store` (a path or a URL) until SIGTERM or SIGINT.

    `names`: the host names that people type, beside `host`. `annotator`: who judges where nobody signs in. `invite`:
    prints an admin's invitation for this name. `models`: one or two that answer the prompts people write. Raises
    BadInput for an address that must not or cannot be served.
    """
    check_bind(host, login)
    served = host_names(host, names)
    if len(models) > 2:
        raise BadInput(f"{len(models)} models, but two answers are compared", fix="give one --model or two")
    with listening(host, port) as bound:
        talk = loaded_talk(models, temperatures, max_tokens, seed) if models else None
        with open_store(store) as kept:
            local = None if login else local_annotator(kept, annotator)
            page = app(
                kept, host_names=served, talk=talk, quality=quality, require_login=login, local=local, secure=https
            )
            where = origin(served[0], bound.getsockname()[1], https)
            print(f"{where}/", flush=True)
            if invite is not None:
                print(where + address("/sign-in", invitation=kept.invite(invite, "admin")), flush=True)
            elif login:
                say("people sign in by invitation; --invite NAME makes the first one, for whoever runs this")
            serve(page, bound)


def loaded_talk(models: Sequence[Path], temperatures: Sequence[float], max_tokens: int, seed: int) -> Talk:
    """The models that answer live, loaded."""
    from ayni.cli.generate import language_engine
    from ayni.rollout.answers import two_answers

    return two_answers([language_engine(path) for path in models], temperatures, max_tokens, seed)


def local_annotator(store: Store, name: str) -> Annotator:
    """The person at this machine: made on the first visit, an admin, as whoever holds the file is anyway."""
    return store.enrol(name, "admin")
