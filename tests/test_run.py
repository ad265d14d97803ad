"""A stage's directory while it runs: progress in a pipe and on a terminal, metrics, and what is chosen once."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from ayni import run as run_module
from ayni.errors import BadNumbers
from ayni.run import Run


class Clock:
    """time.monotonic, by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(run_module.time, "monotonic", lambda: self.now)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def steps(run: Run, clock: Clock, first: int, last: int, total: int, seconds: float, **shown: float) -> None:
    for step in range(first, last + 1):
        clock.now += seconds
        run.progress(step, total, **shown)


def test_a_pipe_gets_a_line_every_few_seconds(tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path, name="sft")
    run.say("10 dialogues")
    steps(run, clock, 1, 10, 10, 1.0, loss=1.23456, tokens_per_s=12345.6)
    assert capsys.readouterr().err == (
        "sft: 10 dialogues\n"
        "sft: step 5/10  loss 1.235  tokens/s 12,346  5s left\n"
        "sft: step 10/10  loss 1.235  tokens/s 12,346\n"
    )


def test_the_time_left_counts_from_where_we_resumed(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path, name="sft")
    steps(run, clock, 501, 503, 4000, 6.0)
    assert [line.split("  ")[-1] for line in capsys.readouterr().err.splitlines()] == ["…", "5h49m left", "5h49m left"]
    steps(run, clock, 1, 2, 40, 6.0)  # another count begins
    assert capsys.readouterr().err.splitlines()[-1] == "sft: step 2/40  3m48s left"


def test_a_terminal_gets_one_live_line(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "60")
    run = Run(tmp_path, name="base")
    steps(run, clock, 1, 2, 4, 1.0, loss=2.0)
    run.say("a word in between")
    steps(run, clock, 3, 4, 4, 1.0, loss=2.0)
    assert screen.getvalue() == (
        "base ━━━━━─────────────── step 1/4  loss 2  …"
        "\r\x1b[Kbase ━━━━━━━━━━────────── step 2/4  loss 2  2s left"
        "\r\x1b[Kbase: a word in between\n"
        "base ━━━━━━━━━━━━━━━───── step 3/4  loss 2  1s left"
        "\r\x1b[Kbase ━━━━━━━━━━━━━━━━━━━━ step 4/4  loss 2\n"
    )
    monkeypatch.setenv("COLUMNS", "30")
    steps(run, clock, 1, 1, 4, 1.0)
    assert len(screen.getvalue().split("\n")[-1]) == 29


def test_quiet_is_quiet(tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path, name="sft", quiet=True)
    run.say("a word")
    steps(run, clock, 1, 4, 4, 9.0)
    assert capsys.readouterr().err == ""


def test_metrics_are_rewound_and_never_nan(tmp_path: Path) -> None:
    run = Run(tmp_path, name="sft")
    for step in (1, 2, 3):
        run.log(step, loss=step / 2)
    run.rewind(2)
    with open(run.metrics_path, "a") as file:
        file.write('{"step":3,"lo')  # a kill
    assert [line["step"] for line in run.metrics()] == [1, 2]
    with pytest.raises(BadNumbers, match="loss is nan at step 4; lower the learning rate"):
        run.log(4, loss=float("nan"))


def test_what_is_settled_stays(tmp_path: Path) -> None:
    assert Run(tmp_path, name="sft").tuned(dtype="bf16") == {"dtype": "bf16"}
    assert Run(tmp_path, name="sft").tuned(dtype="fp32", slots=4) == {"dtype": "bf16", "slots": 4}
    assert json.loads((tmp_path / "tuned.json").read_text()) == {"dtype": "bf16", "slots": 4}
