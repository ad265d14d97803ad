"""Ctrl-C and SIGTERM: a loop stops where everything is saved, whatever `checkpoint_every` says; minutes save, too."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from small_stages import Small, contents, prepare

from ayni import interruption
from ayni.interruption import Interrupted
from ayni.run import Run
from ayni.train import checkpoint

NEVER = {"checkpoint_every": 1000}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Small]:
    return prepare(tmp_path_factory.mktemp("inputs"))


def signalled_at(step: int, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
    """The signal arrives while the step is logged."""
    log = Run.log

    def logged(run: Run, at: int, **metrics: Any) -> None:
        log(run, at, **metrics)
        if at == step:
            for _ in range(times):
                signal.raise_signal(number)

    monkeypatch.setattr(Run, "log", logged)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("kind", ["sft", "ppo"])
def test_a_signal_stops_after_the_step_and_nothing_of_it_is_lost(
    kind: str,
    number: signal.Signals,
    code: int,
    stages: dict[str, Small],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    stages[kind].execute(tmp_path / "whole", **NEVER)
    with monkeypatch.context() as patch:
        signalled_at(3, number, patch)
        with pytest.raises(Interrupted) as stopped, interruption.signals():
            stages[kind].execute(tmp_path / "stopped", **NEVER)
    assert stopped.value.exit_code == code
    assert "stopping as soon as this step is done and saved" in capfd.readouterr().err
    assert [place.name for place in (tmp_path / "stopped" / "checkpoints").iterdir()] == ["step-00000003"]
    assert stages[kind].execute(tmp_path / "stopped", **NEVER) == "ran"
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_a_signal_in_the_last_step_leaves_only_the_end_to_do(
    stages: dict[str, Small], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages["sft"].execute(tmp_path / "whole", **NEVER)
    with monkeypatch.context() as patch:
        signalled_at(8, signal.SIGINT, patch)
        with pytest.raises(Interrupted), interruption.signals():
            stages["sft"].execute(tmp_path / "stopped", **NEVER)
    assert not (tmp_path / "stopped" / "model").exists()
    stages["sft"].execute(tmp_path / "stopped", **NEVER)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_the_second_signal_stops_at_once(
    stages: dict[str, Small], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signalled_at(3, signal.SIGINT, monkeypatch, times=2)
    with pytest.raises(Interrupted), interruption.signals():
        stages["sft"].execute(tmp_path / "stopped", **NEVER)
    assert not (tmp_path / "stopped" / "checkpoints").exists()


def test_minutes_save_too(stages: dict[str, Small], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is due however few steps were taken, but not while one is being written, nor all the time."""
    saved: list[int] = []
    save = checkpoint.save_checkpoint

    def noted(directory: Path, step: int, *rest: Any) -> None:
        saved.append(step)
        save(directory, step, *rest)

    monkeypatch.setattr(checkpoint, "save_checkpoint", noted)
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    stages["sft"].execute(tmp_path / "often", **NEVER)
    assert saved
    saved.clear()
    monkeypatch.setattr(checkpoint, "SECONDS", 60.0)
    stages["sft"].execute(tmp_path / "seldom", **NEVER)
    assert not saved
