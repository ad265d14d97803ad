"""Many people judge over HTTP at once while their server is killed and comes back, its disk is full, its database
restarts, and thousands of others say half a request: for `make test-load`, and smaller.

The server is `ayni annotate --login`, a process of its own. A person is a browser without pictures: it keeps a cookie
and a connection, sends the forms it was given, and sends them again until it is told that they are saved.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from full_disk import full

from ayni.feedback.entries import GoldCheck, Item, PreferenceBatch, shown_swapped
from ayni.feedback.page.degrees import CHOICES, side_of
from ayni.feedback.store import Store, open_store
from ayni.records import Message, Prompt
from ayni.seeds import rng

HOST = "127.0.0.1"
PORTS = range(10_000, 32_000)  # below those that the system gives to clients: one could connect to itself
BATCH = "load"
OVERLAP = 4
FULL_FOR = 1.0  # seconds
AGAIN = 0.05  # seconds until a person tries again
PATIENCE = 120.0  # seconds until they give up, which fails the test
_FORM = re.compile(r'<form method="post" action="/judge".*?</form>', re.S)
_GIVEN = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')


class Server:
    """`ayni annotate --login` on one port, over and over."""

    def __init__(self, store: str, log: Path, files: int | None = None) -> None:
        self.store, self.log, self.port, self.files = store, log, free_port(), files
        self.process: subprocess.Popen[str]
        self.start()

    def start(self) -> None:
        """Returns when it listens: who knocks from now on is answered."""
        command = [sys.executable, "-m", "ayni", "annotate", self.store, "--login", "--port", str(self.port)]
        if self.files is not None:
            command = ["sh", "-c", f'ulimit -n {self.files}; exec "$@"', "sh", *command]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"http://{HOST}:{self.port}/\n", self.log.read_text()

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def server(store: str, log: Path, files: int | None = None) -> Iterator[Server]:
    """`files`: so many the process may open."""
    running = Server(store, log, files)
    try:
        yield running
        assert running.process.poll() is None, log.read_text()
    finally:
        running.kill()
    assert "Traceback" not in log.read_text(), log.read_text()


def free_port() -> int:
    for port in np.random.default_rng().permutation(PORTS):  # another run of these tests draws others
        try:
            with socket.create_server((HOST, int(port))):
                return int(port)
        except OSError:
            continue
    raise AssertionError("no port is free")


class Browser:
    """One connection to the server, opened again when it breaks."""

    def __init__(self, port: int, cookie: str = "") -> None:
        self.port, self.cookie, self.retries = port, cookie, 0
        self.connection = HTTPConnection(HOST, port, timeout=PATIENCE)

    def ask(self, path: str, fields: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        """(status, where to go on, the page); asks again as long as nobody answers, or they say: in a moment."""
        until = time.monotonic() + PATIENCE
        while True:
            fresh = self.connection.sock is None  # a server hangs up on who paused for seconds: ask anew at once
            try:
                status, onward, page = self._once(path, fields)
                if status < 500:
                    return status, onward, page
            except (OSError, HTTPException):
                self.connection.close()
                if not fresh:
                    continue
            assert time.monotonic() < until, f"nobody answered {path} for {PATIENCE} seconds"
            self.retries += 1
            time.sleep(AGAIN)

    def _once(self, path: str, fields: Mapping[str, str] | None) -> tuple[int, str, str]:
        headers = {"Origin": f"http://{HOST}:{self.port}", "Cookie": self.cookie}
        if fields is None:
            self.connection.request("GET", path, headers=headers)
        else:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            self.connection.request("POST", path, urlencode(fields), headers)
        answer = self.connection.getresponse()
        page = answer.read().decode()
        if cookie := answer.headers["Set-Cookie"]:
            self.cookie = cookie.partition(";")[0]
        return answer.status, answer.headers["Location"] or "", page


@dataclass(frozen=True)
class Plan:
    people: int
    each: int  # judgements
    kills: int = 0
    full_disks: int = 0  # times that the disk is full for a second
    restarts: int = 0  # of the database, where it is a server
    idle: int = 0  # sockets that say half a request, all the while
    doubles: float = 0.0  # the share of forms sent twice: half of them at the same moment, half one after the other
    pause: float = 0.0  # seconds that a person takes on average (exponentially distributed)
    seed: int = 0


@dataclass
class Person:
    name: str
    browser: Browser
    saved: dict[str, tuple[str, str]] = field(default_factory=dict)  # submission → (item, choice) that we were told of
    twice: int = 0
    judge_waits: list[float] = field(default_factory=list)  # seconds from sending a form to the answer
    page_waits: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    people: list[Person]
    seconds: float
    kills: int

    @property
    def saved(self) -> int:
        return sum(len(person.saved) for person in self.people)


def prepare(store: Store, plan: Plan) -> dict[str, str]:
    """A batch that is large enough, and the invitation of everybody by name."""
    store.add_batch(PreferenceBatch(BATCH, "Choose the answer that helps more."), items(plan))
    return {name: store.invite(name) for name in (f"person {number}" for number in range(plan.people))}


def items(plan: Plan) -> list[Item]:
    """About as long as the paper's (Table 6: a prompt of 31 tokens, answers of 234); some for safety, some checks."""
    count = plan.each + plan.people * plan.each // OVERLAP
    made = []
    for number in range(count):
        task = "safety" if number % 4 == 1 else "helpfulness"
        prompt = Prompt(f"p{number}", (Message("user", f"What should I know about place {number}? " * 3),), task)
        answers = [f"{side} tells of place {number}, at some length. " * 22 for side in ("One", "Another")]
        gold = GoldCheck("a") if number % 20 == 10 else None
        made.append(Item(f"i{number}", prompt, answers[0], answers[1], task, overlap=OVERLAP, gold=gold))
    return made


def work(
    running: Server, invitations: Mapping[str, str], plan: Plan, restart: Callable[[], None] | None = None
) -> Outcome:
    """Everybody judges `plan.each` items; meanwhile at random moments the server dies and what else the plan says."""
    people = [Person(name, Browser(running.port)) for name in invitations]
    for person in people:
        status, _, _ = person.browser.ask("/sign-in", {"invitation": invitations[person.name]})
        assert status == 303
    draw, killed = rng("kills", plan.seed), 0
    troubles = ["kill"] * plan.kills + ["full disk"] * plan.full_disks + ["restart"] * (plan.restarts if restart else 0)
    moments = draw.integers(0, plan.people * plan.each * 9 // 10, len(troubles)).tolist()
    with idle_sockets(running.port, plan.idle), ThreadPoolExecutor(plan.people) as pool:
        began = time.monotonic()
        working = [pool.submit(judge, person, plan) for person in people]
        for moment, trouble in sorted(zip(moments, troubles, strict=True)):
            while sum(len(person.saved) for person in people) <= moment and not any(each.done() for each in working):
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.1))
            if trouble == "full disk":
                with full(running.store, running.process.pid):
                    time.sleep(FULL_FOR)
            elif trouble == "restart" and restart is not None:
                restart()
            else:
                running.kill()
                killed += 1
                running.start()
        for each in working:
            each.result()
    seconds = time.monotonic() - began
    for person in people:
        person.browser.connection.close()
    return Outcome(people, seconds, killed)


@contextmanager
def idle_sockets(port: int, count: int) -> Iterator[None]:
    """In a process of their own, so that they cost no person a moment here."""
    command = [sys.executable, str(Path(__file__).with_name("idle_sockets.py")), str(port), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def judge(person: Person, plan: Plan) -> None:
    """Until so many judgements were acknowledged; whatever is not is sent again."""
    draw = rng("judge", plan.seed, person.name)
    onward = f"/judge?batch={BATCH}"
    for _ in range(plan.each):
        before = time.perf_counter()
        _, _, page = person.browser.ask(onward)
        person.page_waits.append(time.perf_counter() - before)
        fields = given(page) | {"kind": "judged", "choice": str(draw.integers(1, 9))}
        time.sleep(draw.exponential(plan.pause))
        onward = send(person, fields, draw.choice(["", "later", "at once"], p=shares(plan.doubles)))
        person.saved[fields["submission"]] = (fields["item"], fields["choice"])


def shares(doubles: float) -> list[float]:
    return [1 - doubles, doubles / 2, doubles / 2]


def given(page: str) -> dict[str, str]:
    """What the form to judge with holds, and for a safety task two labels."""
    form = _FORM.search(page)
    assert form is not None, page[-2000:]
    labels = {"safety_a": "safe", "safety_b": "safe"} if 'name="safety_a"' in form[0] else {}
    return dict(_GIVEN.findall(form[0])) | labels


def send(person: Person, fields: Mapping[str, str], again: str) -> str:
    """Where to go on once the judgement was acknowledged; sent twice, it must be acknowledged twice."""
    other = Browser(person.browser.port, person.browser.cookie)
    at_once = threading.Thread(target=acknowledged, args=(other, fields))
    if again == "at once":
        at_once.start()
    before = time.perf_counter()
    onward = acknowledged(person.browser, fields)
    person.judge_waits.append(time.perf_counter() - before)
    if again == "at once":
        at_once.join()
    elif again == "later":
        acknowledged(other, fields)
    person.twice += bool(again)
    other.connection.close()
    return onward


def acknowledged(browser: Browser, fields: Mapping[str, str]) -> str:
    status, onward, page = browser.ask("/judge", fields)
    assert (status, "notice=saved" in onward) == (303, True), (status, onward, page[-2000:])
    return onward


def losses(store: Store, outcome: Outcome) -> list[str]:
    """What is wrong with what the store holds, beside what people were told; and what it finds wrong itself."""
    found = store.check()
    log = store.log(BATCH)
    rows = {row.entry.submission: row for row in log}
    if len(rows) != len(log):
        found.append("a submission is there twice")
    if len({(row.item.id, row.annotator) for row in log}) != len(log):
        found.append("somebody judged an item twice")
    for person in outcome.people:
        for submission, (name, choice) in person.saved.items():
            row = rows.pop(submission, None)
            if row is None:
                found.append(f"lost: {person.name} of {name}")
                continue
            letter, rating = CHOICES[int(choice) - 1]
            preferred = side_of(letter, shown_swapped(name, row.entry.annotator_id))
            kept = (row.annotator, row.item.id, row.entry.preferred, row.entry.rating, row.entry.kind)
            if kept != (person.name, name, preferred, rating, "judged"):
                found.append(f"changed: {person.name} of {name}")
    return found + [f"nobody was told of {submission}" for submission in rows]


def load(address: str, plan: Plan, log: Path, restart: Callable[[], None] | None = None) -> tuple[Outcome, list[str]]:
    """The whole of it over an empty database: what people were told, and what is wrong with what is kept.

    `restart` does so to the database, where it is a server.
    """
    with open_store(address) as store:
        invitations = prepare(store, plan)
    with server(address, log) as running:
        outcome = work(running, invitations, plan, restart)
    with open_store(address) as store:
        return outcome, losses(store, outcome)
