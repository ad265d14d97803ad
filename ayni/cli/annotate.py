"""`ayni annotate`: the page where people compare answers, served until it is told to stop."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ayni.cli import say
from ayni.errors import BadInput
from ayni.feedback.entries import Annotator
from ayni.feedback.page import Quality, Talk, app, check_bind, is_loopback
from ayni.feedback.page.desk import address
from ayni.feedback.store import Store, open_store
from ayni.records import Dialog, Prompt

GRACE = 10  # seconds that requests under way get to end after SIGTERM or Ctrl-C
LOCAL = ("127.0.0.1", "localhost", "[::1]")


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
        talk = two_voices(models, temperatures, max_tokens, seed) if models else None
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
        kind, where = found[0][0], found[0][-1]
        bound = socket.socket(kind, socket.SOCK_STREAM)
    except OSError as error:
        raise BadInput(f"{host}: {error.strerror}", field="host") from None
    with bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(where)
            bound.listen()
        except OSError as error:
            what = f"{host} port {port}: {error.strerror}"
            raise BadInput(what, field="port", fix="choose another with --port") from None
        yield bound


def serve(page: Any, bound: socket.socket) -> None:
    """Until a signal; requests under way are answered first. No access log: invitations stand in addresses."""
    import uvicorn

    config = uvicorn.Config(
        page,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=GRACE,
    )
    uvicorn.Server(config).run(sockets=[bound])


def two_voices(models: Sequence[Path], temperatures: Sequence[float], max_tokens: int, seed: int) -> Talk:
    """One model twice, or two models, that answer a dialogue; turn after turn the temperatures vary (paper §3.2.1)."""
    from ayni.cli.generate import load_policy
    from ayni.rollout.engine import rollout
    from ayni.rollout.sampling import Sampling

    policies = [load_policy(path) for path in models]
    voices = list(zip((str(path) for path in models), policies, strict=True))
    first, second = voices[0], voices[-1]
    count = itertools.count()

    def answer(voice: tuple[str, Any], dialog: Dialog, task: str, turn: int, k: int) -> tuple[str, str, dict[str, Any]]:
        sampling = Sampling(temperatures[(turn + k) % len(temperatures)], 1.0, max_tokens)
        prompt = Prompt(f"live-{turn}-{k}", dialog, "safety" if task == "safety" else "helpfulness")
        ((sample,),) = rollout(voice[1], [prompt], n=1, sampling=sampling, seed=seed)
        return sample.text, voice[0], asdict(sampling) | {"seed": sample.seed}

    def talk(dialog: Dialog, task: str) -> tuple[str, str, str, str, Mapping[str, Any], Mapping[str, Any]]:
        turn = next(count)
        a, model_a, sampling_a = answer(first, dialog, task, turn, 0)
        b, model_b, sampling_b = answer(second, dialog, task, turn, 1)
        return a, b, model_a, model_b, sampling_a, sampling_b

    return talk


def local_annotator(store: Store, name: str) -> Annotator:
    """The person at this machine: made on the first visit, an admin, as whoever holds the file is anyway."""
    return store.enrol(name, "admin")
