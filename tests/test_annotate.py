"""`ayni annotate`: which names it answers to, what it refuses to serve, how it starts and stops."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import tiny
from page_visitor import item

from ayni.cli.annotate import annotate, loaded_talk, local_annotator
from ayni.errors import BadInput
from ayni.feedback.entries import PreferenceBatch
from ayni.feedback.page.serving import host_names, listening, origin
from ayni.feedback.store import open_store
from ayni.model_directory import save_model
from ayni.records import Message

START = """
import signal
from ayni.cli.annotate import annotate
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests beside itself ignores it
annotate({store!r}, "127.0.0.1", 0, {login}, (), False, "Wayra", {invite!r}, (), (0.7,), 8, 0)
"""


def test_the_names_it_answers_to() -> None:
    assert host_names("127.0.0.1", ()) == ("127.0.0.1", "localhost", "[::1]")
    assert host_names("::1", ()) == ("[::1]", "127.0.0.1", "localhost")
    assert host_names("192.168.1.5", ("lab.example.org",)) == ("lab.example.org", "192.168.1.5")
    assert host_names("0.0.0.0", ("lab.example.org",)) == ("lab.example.org",)
    for everywhere in ("0.0.0.0", "::", ""):
        with pytest.raises(BadInput, match="--name"):
            host_names(everywhere, ())


def test_the_address_that_is_printed() -> None:
    assert origin("127.0.0.1", 8765, https=False) == "http://127.0.0.1:8765"
    assert origin("lab.example.org", 8765, https=True) == "https://lab.example.org"


def test_a_port_that_is_taken_or_none_is_one_line() -> None:
    with listening("127.0.0.1", 0) as bound, pytest.raises(BadInput, match="choose another"):
        listening("127.0.0.1", bound.getsockname()[1]).__enter__()
    for host, port in (("127.0.0.1", 70_000), ("no.such.name.invalid", 0)):
        with pytest.raises(BadInput), listening(host, port):
            pass


def test_strangers_need_login_and_three_models_are_too_many(tmp_path: Path) -> None:
    store = str(tmp_path / "page.db")
    rest = (False, "Wayra", None, (), (0.7,), 8, 0)
    with pytest.raises(BadInput, match="--login"):
        annotate(store, "0.0.0.0", 0, False, ("here",), *rest)
    with pytest.raises(BadInput, match="3 models"):
        annotate(store, "127.0.0.1", 0, False, (), False, "Wayra", None, (tmp_path,) * 3, (0.7,), 8, 0)
    assert not Path(store).exists()


def test_who_sits_at_the_machine_is_the_same_person_each_time(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "page.db")) as store:
        first = local_annotator(store, "Wayra")
        assert (local_annotator(store, "Wayra"), first.role) == (first, "admin")


def test_one_model_or_two_answer_with_varied_temperature(tmp_path: Path) -> None:
    for seed in (0, 1):
        policy = tiny.policy(seed)
        save_model(tmp_path / str(seed), policy.role.model, policy.tokenizer)
    dialog = (Message("user", "why rain falls"),)
    talk = loaded_talk([tmp_path / "0", tmp_path / "1"], [0.7, 1.0], 8, 0)
    a, b, model_a, model_b, sampling_a, sampling_b = talk(dialog, "helpfulness")
    assert (model_a, model_b) == ("0", "1")
    assert (sampling_a["temperature"], sampling_b["temperature"]) == (0.7, 1.0)
    assert sampling_a["finished"] in ("stop", "length")
    assert talk(dialog, "safety")[4]["temperature"] == 1.0
    assert loaded_talk([tmp_path / "0", tmp_path / "1"], [0.7, 1.0], 8, 0)(dialog, "helpfulness")[:2] == (a, b)
    alone = loaded_talk([tmp_path / "0"], [1.0], 8, 0)(dialog, "helpfulness")
    assert alone[2] == alone[3]
    assert alone[4]["seed"] != alone[5]["seed"]
    with pytest.raises(BadInput):
        talk((Message("user", "why " * 500),), "helpfulness")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_address_serves_and_stops_when_told(tmp_path: Path, number: signal.Signals) -> None:
    path = str(tmp_path / "page.db")
    with open_store(path) as store:
        store.add_batch(PreferenceBatch("week-1"), [item("quinoa")])
    login = number == signal.SIGTERM
    code = START.format(store=path, login=login, invite="Boss" if login else None)
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:")
            if login:
                assert server.stdout.readline().startswith(f"{address}sign-in?invitation=")
            with urllib.request.urlopen(f"{address}{'' if login else 'judge?batch=week-1'}", timeout=60) as answer:
                body = answer.read().decode()
            assert ("Welcome" if login else "What is quinoa?") in body
            server.send_signal(number)
            assert server.wait(60) == -number
        finally:
            server.kill()
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", int(address[17:-1]))):
        pass
