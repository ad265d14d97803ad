"""A user's own function or endpoint as reward: what it is given, what it may answer, and every way it can fail."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_stages import Small, prepare
from tiny import policy_model, prompts, reward_model, tokenizer

from ayni import cli
from ayni.config import parse_config
from ayni.errors import AyniError, BadInput
from ayni.formats.reading import read_prompts
from ayni.model.role import Role
from ayni.model_directory import save_model
from ayni.records import Message, Sample
from ayni.reward.combine import CombinedReward
from ayni.reward.function import PER_REQUEST, FunctionReward, is_function, load_choice, load_function, source_of
from ayni.reward.model import RewardModel
from ayni.reward.post import TRIES
from ayni.rollout.store import read_groups
from ayni.runs.execution import job_of
from ayni.runs.faces import load_stage
from ayni.runs.pipeline import run_recipe

LONGEST = "def reward(prompts, answers):\n    return [len(answer) for answer in answers]\n"
ANSWERS = ["a", "bbb", "cc"]


class Server(ThreadingHTTPServer):
    """Replies what `says(items)` returns: (status, body)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Reply)
        self.url = f"http://127.0.0.1:{self.server_port}/score"
        self.asked: list[list[dict[str, Any]]] = []
        self.keys: list[str | None] = []
        self.says: Callable[[list[Any]], tuple[int, Any]] = lambda items: (
            200,
            {"scores": [len(item["response"]) for item in items]},
        )


class _Reply(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        items = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["items"]
        self.server.asked.append(items)
        self.server.keys.append(self.headers["Authorization"])
        status, body = self.server.says(items)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("AYNI_REWARD_KEY", raising=False)
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def written(folder: Path, text: str, name: str = "score.py") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def asked(reward: FunctionReward, answers: list[str] = ANSWERS) -> list[float]:
    return reward.score_answers(prompts(len(answers)), answers).tolist()


# A function


def test_it_is_given_messages_and_answers(tmp_path: Path) -> None:
    seen: list[Any] = []
    reward = FunctionReward("mine", lambda p, a: seen.append((p, a)) or [1, 2.5])
    dialog = (Message("system", "s"), Message("user", "hi"), Message("assistant", "ho"))
    scores = reward.scores([dialog, dialog[1:]])
    assert seen == [
        (
            [
                [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}],
                [{"role": "user", "content": "hi"}],
            ],
            ["ho", "ho"],
        )
    ]
    assert scores.dtype == torch.float32
    assert scores.tolist() == [1, 2.5]
    assert reward.scores([]).shape == (0,)


@pytest.mark.parametrize("name", ["", ":reward", ":other"])
def test_a_file(tmp_path: Path, name: str) -> None:
    text = (
        LONGEST + "\n\ndef other(prompts, answers):\n    return [-len(prompt[-1]['content']) for prompt in prompts]\n"
    )
    path = written(tmp_path, text)
    scores = asked(load_function(f"{path}{name}"))
    asked_lengths = [-float(len(p.dialog[-1].content)) for p in prompts(3)]
    assert scores == (asked_lengths if name == ":other" else [1, 3, 2])


def test_a_module_where_you_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rewards_of_mine").mkdir()
    written(tmp_path / "rewards_of_mine", "", "__init__.py")
    path = written(tmp_path / "rewards_of_mine", LONGEST, "longest.py")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert asked(load_function("python:rewards_of_mine.longest:reward")) == [1, 3, 2]
    assert source_of("python:rewards_of_mine.longest:reward") == path
    assert sys.path == before


def test_arrays_tensors_and_tuples_are_lists_too() -> None:
    for value in (np.array([1, 2, 3]), torch.tensor([1.0, 2, 3]), (1, 2, 3), [np.float32(1), torch.tensor(2), 3]):
        assert asked(FunctionReward("mine", lambda p, a, value=value: value)) == [1, 2, 3]


WRONG: dict[str, tuple[Any, str]] = {
    "too few": ([1, 2], "mine gave 2 scores for 3 answers"),
    "too many": ([1, 2, 3, 4], "mine gave 4 scores for 3 answers"),
    "nothing": (None, "mine gave NoneType instead of a list of scores"),
    "one number": (3.0, "mine gave float instead of a list"),
    "a word": ([1, "2", 3], "mine: score 1 is '2', not a number"),
    "none inside": ([1, None, 3], "mine: score 1 is None, not a number"),
    "a truth value": ([True, 1, 2], "mine: score 0 is True, not a number"),
    "a table": (np.ones((3, 1)), "mine: score 0 is [1.0], not a number"),
    "NaN": ([1, 2, float("nan")], "mine: score 2 is nan, not a finite number"),
    "infinity": ([1, -float("inf"), 1], "mine: score 1 is -inf, not a finite number"),
    "beyond fp32": ([1, 1e300, 1], "mine: score 1 is 1e+300, not a finite number"),
    "beyond everything": ([1, 10**5000, 1], "mine: score 1 is too large, not a finite number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_answers_are_errors_not_scores(case: str) -> None:
    value, says = WRONG[case]
    with pytest.raises(BadInput) as caught:
        asked(FunctionReward("mine", lambda p, a: value))
    assert str(caught.value) == says or str(caught.value).startswith(says)


BROKEN: dict[str, tuple[str, str]] = {
    "raises": (
        "def reward(prompts, answers):\n    x = 1\n    return 1 / 0\n",
        "score.py:3: reward: ZeroDivisionError: ",
    ),
    "raises deep inside": (
        "def _deep(a):\n    return {}[a]\n\n\ndef reward(prompts, answers):\n    return [_deep(a) for a in answers]\n",
        "score.py:2: _deep: KeyError: 'a'",
    ),
    "raises in a library": (
        "import json\n\n\ndef reward(p, a):\n    return json.loads('x')\n",
        "score.py:5: reward: JSOND",
    ),
    "another signature": ("def reward(answers):\n    return answers\n", "score.py raised TypeError: reward() takes 1"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_function_that_raises_names_its_line(tmp_path: Path, case: str) -> None:
    text, says = BROKEN[case]
    reward = load_function(str(written(tmp_path, text)))
    with pytest.raises(BadInput) as caught:
        asked(reward)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


NOT_LOADED: dict[str, tuple[str, str, str]] = {
    "not Python": ("def reward(:\n", "score.py", "score.py:1: not Python: "),
    "fails at import": (
        "x = 1\nimport nothing_of_that_name\n",
        "score.py",
        "score.py:2: <module>: ModuleNotFoundError",
    ),
    "no such function": (LONGEST, "score.py:best", "score.py:best: there is no function best; it has reward"),
    "no function": ("reward = 3\n", "score.py", "there is no function reward; it has none"),
    "no such file": (LONGEST, "other.py", "other.py: no such file"),
    "no such module": (LONGEST, "python:nothing.here:reward", "python:nothing.here raised ModuleNotFoundError"),
    "no function named": (LONGEST, "python:json", "'python:json' names no reward function; write FILE.py:FUNCTION, "),
    "neither": (LONGEST, "score", "'score' names no reward function"),
}


@pytest.mark.parametrize("case", NOT_LOADED)
def test_what_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    text, name, says = NOT_LOADED[case]
    written(tmp_path, text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as caught:
        load_function(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_at_first_is_bad_input_later_it_is_not() -> None:
    """What was drawn before may not be thrown away with the bad input."""
    answers = iter([[1.0], [float("nan")]])
    reward = FunctionReward("mine", lambda p, a: next(answers))
    reward.try_out(prompts(1)[0])
    with pytest.raises(AyniError) as caught:
        asked(reward, ["a"])
    assert not isinstance(caught.value, BadInput)


# An endpoint


def test_an_endpoint_is_asked_some_answers_at_a_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AYNI_REWARD_KEY", "secret")
    answers = ["x" * n for n in range(2 * PER_REQUEST + 5)]
    assert asked(load_function(server.url), answers) == [float(n) for n in range(len(answers))]
    assert [len(items) for items in server.asked] == [PER_REQUEST, PER_REQUEST, 5]
    assert server.asked[0][1] == {
        "messages": [{"role": "user", "content": prompts(len(answers))[1].dialog[0].content}],
        "response": "x",
    }
    assert set(server.keys) == {"Bearer secret"}


REPLIES: dict[str, tuple[tuple[int, Any], str]] = {
    "not JSON": ((200, b"<html>"), """replied '<html>'; it must reply {"scores": [one number an answer]}"""),
    "a list": ((200, [1, 2, 3]), "replied '[1, 2, 3]'"),
    "no scores": ((200, {"score": [1, 2, 3]}), "it must reply"),
    "too few": ((200, {"scores": [1]}), "gave 1 scores for 3 answers"),
    "NaN": ((200, b'{"scores": [1, NaN, 2]}'), "score 1 is nan, not a finite number"),
    "null": ((200, {"scores": [1, None, 2]}), "score 1 is None, not a number"),
    "words": ((200, {"scores": ["1", "2", "3"]}), "score 0 is '1', not a number"),
    "text": ((200, {"scores": "123"}), "gave str instead of a list of scores"),
    "endless digits": ((200, b'{"scores": [1, 2, ' + b"9" * 5000 + b"]}"), "replied '{"),
    "refused": ((403, b"no"), "says 403 Forbidden; put a key that it takes into the environment variable AYNI_REWARD"),
    "bad request": ((422, b"what?"), "says 422 Unprocessable"),
    "elsewhere": ((302, b""), "give the address it points to"),
    "busy": ((503, b""), f"says 503 Service Unavailable, {TRIES} times"),
}


@pytest.mark.parametrize("case", REPLIES)
def test_wrong_replies_are_one_line_each(server: Server, case: str) -> None:
    reply, says = REPLIES[case]
    server.says = lambda items: reply
    waited: list[float] = []
    with pytest.raises(BadInput) as caught:
        asked(load_function(server.url, wait=waited.append))
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"the reward at {server.url}")
    assert "\n" not in str(caught.value)
    assert waited == ([1, 2, 4, 8] if case == "busy" else [])
    assert len(server.asked) == (TRIES if case == "busy" else 1)


def test_a_busy_endpoint_is_asked_again(server: Server) -> None:
    good, waited = server.says, list[float]()
    server.says = lambda items: (500, b"") if len(server.asked) < 3 else good(items)
    assert asked(load_function(server.url, wait=waited.append)) == [1, 3, 2]
    assert waited == [1, 2]


def test_nobody_there() -> None:
    waited: list[float] = []
    with pytest.raises(BadInput, match=rf"^the reward at \S+ does not answer \(.*\), {TRIES} times; once it does"):
        asked(load_function("http://127.0.0.1:9/score", wait=waited.append))
    assert waited == [1, 2, 4, 8]


# Where a reward model may choose


def samples(*texts: str) -> list[Sample]:
    return [Sample("p", "helpfulness", (1,), (3,), (-1.0,), text, "stop") for text in texts]


def test_it_judges_beside_a_model_for_safety() -> None:
    safe = RewardModel(Role(reward_model(2)), tokenizer())
    asked_for = [*prompts(1), *prompts(1, task="safety")]
    groups = [samples("owl", "owl rain"), samples("hill", "hill rain")]
    longest = FunctionReward("mine", lambda p, a: [len(x) for x in a])
    scores = CombinedReward(longest, safe, tokenizer(), 0.0)(asked_for, groups)
    assert scores.helpfulness.tolist() == [3, 8, 4, 9]
    assert scores.safety is not None
    assert scores.combined.tolist() == [3, 8, *scores.safety.tolist()[2:]]


def test_the_choice_between_a_model_a_file_and_a_name(tmp_path: Path) -> None:
    path = written(tmp_path, LONGEST + "\n\nbest = reward\n")
    save_model(tmp_path / "rm", reward_model(), tokenizer())
    assert isinstance(load_choice(tmp_path / "rm", None), RewardModel)
    assert isinstance(load_choice(path, None), FunctionReward)
    assert isinstance(load_choice(path, "best"), FunctionReward)
    assert isinstance(load_choice(None, f"{path}:best"), FunctionReward)
    assert isinstance(load_choice(None, "https://example.org/score"), FunctionReward)
    with pytest.raises(BadInput, match="reward: give a reward model, or a reward_function"):
        load_choice(None, None)
    with pytest.raises(BadInput, match="give either a reward model or a reward_function"):
        load_choice(tmp_path / "rm", "best")


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("score.py", True), ("a/score.py:best", True), ("python:a.b:c", True), ("http://x/y", True),
        ("https://x", True),
        ("runs/a/reward", False), ("score.pyc", False), ("score.py:9", False),
    ],
)  # fmt: skip
def test_what_names_a_function(text: str, yes: bool) -> None:
    assert is_function(text) is yes


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return prepare(tmp_path_factory.mktemp("inputs"))["reject"]


def with_reward(small: Small, reward: Path | None, **settings: Any) -> Small:
    inputs = {name: path for name, path in small.inputs.items() if not name.startswith("reward")}
    return Small("reject", {**small.settings, **settings}, inputs if reward is None else {**inputs, "reward": reward})


def kept_are_longest(small: Small, directory: Path) -> None:
    lines = (directory / "records.jsonl").read_text().splitlines()
    kept = {json.loads(line)["source"].partition(":")[2]: json.loads(line)["dialog"][-1]["content"] for line in lines}
    groups = read_groups(directory / "samples.jsonl")
    assert len(groups) == len(read_prompts(small.inputs["prompts"][0])) == 12  # type: ignore[index]
    for group in groups:
        ended = [s.text for s in group if s.finished == "stop" and s.text.strip()]
        chosen = kept.get(group[0].prompt_id)
        assert (chosen is None) == (not ended)
        assert chosen is None or len(chosen) == max(map(len, ended))


def test_rejection_sampling_by_a_file(small: Small, tmp_path: Path) -> None:
    path = written(tmp_path, LONGEST)
    ours = with_reward(small, path)
    assert ours.execute(tmp_path / "rs", n=4) == "ran"
    kept_are_longest(small, tmp_path / "rs")
    assert ours.execute(tmp_path / "rs", n=4) == "reused"
    path.write_text(LONGEST + "# changed\n", encoding="utf-8")
    with pytest.raises(BadInput, match="holds the same stage with other settings, inputs or seed"):
        ours.execute(tmp_path / "rs", n=4)


def test_rejection_sampling_by_an_endpoint(small: Small, tmp_path: Path, server: Server) -> None:
    ours = with_reward(small, None, reward_function=server.url, reward_version=1)
    assert ours.execute(tmp_path / "rs", n=4) == "ran"
    kept_are_longest(small, tmp_path / "rs")
    assert [item["response"] for item in server.asked[0]] == ["Hello."]  # tried out before hours are spent


def test_an_endpoint_that_stops_costs_nothing_that_was_drawn(small: Small, tmp_path: Path, server: Server) -> None:
    good = server.says
    server.says = lambda items: good(items) if len(server.asked) < 2 else (400, b"full")
    ours = with_reward(small, None, reward_function=server.url)
    with pytest.raises(AyniError, match="says 400 Bad Request: full") as caught:
        ours.execute(tmp_path / "rs")
    assert caught.value.exit_code == 1
    drawn = (tmp_path / "rs" / "samples.jsonl").read_bytes()
    server.says = good
    assert ours.execute(tmp_path / "rs") == "ran"
    assert (tmp_path / "rs" / "samples.jsonl").read_bytes() == drawn


def test_a_reward_that_does_not_work_leaves_nothing(small: Small, tmp_path: Path) -> None:
    ours = with_reward(small, written(tmp_path, "def reward(p, a):\n    return []\n"))
    with pytest.raises(BadInput, match="gave 0 scores for 1 answers"):
        ours.execute(tmp_path / "rs")
    assert not (tmp_path / "rs").exists()


def test_what_the_identity_depends_on(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stage = load_stage("reject")

    def identity(reward: Path | None = None, **settings: Any) -> str:
        ours = with_reward(small, reward, **settings)
        return job_of(stage, parse_config(stage.config, dict(ours.settings)), ours.inputs, 1).identity

    one, two = written(tmp_path, LONGEST, "one.py"), written(tmp_path, LONGEST, "two.py")
    assert identity(one) == identity(two)  # the content counts, not the name
    module = identity(reward_function="python:one:reward")
    assert module == identity(reward_function="python:one:reward")
    written(tmp_path, LONGEST + "# changed\n", "one.py")
    assert identity(one) != identity(two)
    assert identity(reward_function="python:one:reward") != module
    assert identity(one) != identity(one, reward_version="2")
    urls = [identity(reward_function=f"http://x/{n}", reward_version=v) for n in (1, 2) for v in ("1", "2")]
    assert len(set(urls)) == 4
    with pytest.raises(BadInput, match="there is no Python module nowhere"):
        identity(reward_function="python:nowhere:reward")


def call(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.run([str(word) for word in argv])
    return code, *capsys.readouterr()


def test_from_the_command_line(
    small: Small, tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, LONGEST + "\n\nbest = reward\n", "my_score.py")
    prompts_file = small.inputs["prompts"][0]  # type: ignore[index]
    argv = ["reject", "--model", small.inputs["model"], "--prompts", prompts_file, "--set", "n=2", "--quiet"]
    argv += ["--set", "max_tokens=16", "--set", "dtype=fp32"]
    hashes = set()
    for number, name in enumerate(["my_score.py", "my_score.py:best", "python:my_score:best", server.url]):
        code, out, err = call(capsys, *argv, "--reward", name, "--out", f"rs{number}", "--json")
        assert code == 0, err
        hashes.add(json.loads(out)["hash"])
        kept_are_longest(small, tmp_path / f"rs{number}")
    assert len(hashes) == 4
    code, _, err = call(capsys, *argv, "--out", "none")
    assert (code, err) == (2, "reward: give a reward model, or a reward_function\n")
    code, _, err = call(capsys, *argv, "--reward", "my_score.py:worst", "--out", "none")
    assert code == 2
    assert err.endswith("there is no function worst; it has reward, best\n")
    assert not (tmp_path / "none").exists()


def test_chat_chooses_by_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path / "m", policy_model(), tokenizer())
    written(tmp_path, LONGEST, "my_score.py")
    monkeypatch.chdir(tmp_path)
    outputs = {}
    for n, reward in ((1, []), (6, ["--reward", "my_score.py:reward"])):
        monkeypatch.setattr("sys.stdin", io.StringIO("owl\n"))
        code, out, err = call(capsys, "chat", "m", "--best-of", n, *reward, "--temperature", 1, "--max-tokens", 20)
        assert code == 0, err
        outputs[n] = (out, err)
    score = float(outputs[6][1].split("best of 6: ")[1].split(";")[0])
    assert score >= len(outputs[6][0].rstrip("\n")) > 0  # control characters are not shown
    written(tmp_path, "def reward(p, a):\n    return [0.5]\n", "my_score.py")
    monkeypatch.setattr("sys.stdin", io.StringIO("owl\n"))
    code, _, err = call(capsys, "chat", "m", "--best-of", 2, "--reward", "my_score.py", "--max-tokens", 8)
    assert (code, err) == (0, "my_score.py gave 1 scores for 2 answers\n")


def test_score_takes_it_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, LONGEST, "my_score.py")
    written(tmp_path, json.dumps({"prompt": "Who?", "chosen": "The river.", "rejected": "No."}) + "\n", "pairs.jsonl")
    code, out, err = call(capsys, "score", "my_score.py:reward", "pairs.jsonl")
    assert code == 0, err
    assert json.loads(out) == {"index": 0, "chosen": 10, "rejected": 3, "rating": None}


@pytest.mark.parametrize("reward", ["my_score.py:reward", "python:my_score:reward", "http://127.0.0.1:9/score"])
def test_ppo_says_that_it_takes_none(capsys: pytest.CaptureFixture[str], reward: str) -> None:
    argv = ["--model", Path(__file__), "--reward-helpfulness", reward, "--prompts", "p.jsonl", "--out", "o"]
    code, _, err = call(capsys, "ppo", *argv)
    assert code == 2
    assert err == (
        "--reward-helpfulness: ppo takes no function and no address here; "
        "give a reward model: a path, or the stage that left it (model)\n"
    )


def test_in_a_recipe_the_file_stands_beside_it(small: Small, tmp_path: Path) -> None:
    written(tmp_path, LONGEST + "\n\nbest = reward\n", "my_score.py")
    model, asked_for = small.inputs["model"], small.inputs["prompts"][0]  # type: ignore[index]
    written(
        tmp_path,
        f"stages:\n  rs:\n    kind: reject\n    model: {model}\n    prompts: {asked_for}\n"
        "    reward: my_score.py\n    reward_function: best\n    n: 2\n    max_tokens: 16\n    dtype: fp32\n",
        "recipe.yaml",
    )
    summary = run_recipe(tmp_path / "recipe.yaml", tmp_path / "run", quiet=True)
    kept_are_longest(small, Path(summary["stages"][0]["directory"]))
    again = run_recipe(tmp_path / "run" / "recipe.yaml", tmp_path / "run", quiet=True)
    assert again["stages"][0]["state"] == "reused"


def test_waiting_is_real_time_unless_told_otherwise(server: Server) -> None:
    good = server.says
    server.says = lambda items: (503, b"") if len(server.asked) < 2 else good(items)
    began = time.monotonic()
    assert asked(load_function(server.url)) == [1, 3, 2]
    assert 0.9 < time.monotonic() - began < 10
