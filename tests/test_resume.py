"""Kills at every named place of every stage that trains or samples: the same command ends at the same bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_stages import STAGES, Small, contents, prepare

import ayni
from ayni import files
from ayni.errors import BadInput
from ayni.files import Killed
from ayni.rollout import store
from ayni.runs import execution
from ayni.train import checkpoint

MARKED = (files, execution, checkpoint, store)  # the modules that call failpoint
KILLS = int(os.environ.get("AYNI_KILLS", "6"))  # of one run, evenly spread


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Small]:
    return prepare(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """Nothing here depends on the disk's own promise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


class Hits:
    """Counts the failpoints that are reached, and dies at the one it is told to."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.deadly: int | None = None

    def __call__(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) == self.deadly:
            raise Killed(f"{name}, hit {self.deadly}")


@pytest.fixture
def hits(monkeypatch: pytest.MonkeyPatch) -> Hits:
    counter = Hits()
    for module in MARKED:
        monkeypatch.setattr(module, "failpoint", counter)
    return counter


Whole = dict[str, tuple[dict[str, str], list[str]]]


@pytest.fixture(scope="module")
def whole(stages: dict[str, Small], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What every stage leaves when nobody interrupts it, and the places it passes."""
    place, found = tmp_path_factory.mktemp("whole"), {}
    with pytest.MonkeyPatch.context() as patch:
        for name, stage in stages.items():
            counter = Hits()
            for module in MARKED:
                patch.setattr(module, "failpoint", counter)
            assert stage.execute(place / name) == "ran"
            found[name] = (contents(place / name), counter.names)
    return found


def ends_the_same(stage: Small, directory: Path, expected: dict[str, str]) -> None:
    assert stage.execute(directory) == "ran"
    assert contents(directory) == expected  # weights, records, metrics; no leftovers, no checkpoints
    assert stage.execute(directory) == "reused"


@pytest.mark.parametrize("name", STAGES)
def test_a_kill_at_every_named_place(
    name: str, stages: dict[str, Small], whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, passed = whole[name]
    for place in dict.fromkeys(passed):
        directory = tmp_path / place
        monkeypatch.setenv("AYNI_FAILPOINT", place)
        with pytest.raises(Killed):
            stages[name].execute(directory)
        monkeypatch.delenv("AYNI_FAILPOINT")
        if place == "stage-sealed":
            assert stages[name].execute(directory) == "reused"
            assert contents(directory) == expected
        else:
            ends_the_same(stages[name], directory, expected)


@pytest.mark.parametrize("name", STAGES)
def test_one_run_killed_again_and_again(
    name: str, stages: dict[str, Small], whole: Whole, tmp_path: Path, hits: Hits
) -> None:
    """Every attempt gets a little further: whatever the kills left behind, the end is the same."""
    expected, passed = whole[name]
    last = len(passed) - 1  # (the last place comes after the seal)
    for deadly in sorted({round(1 + i * (last - 1) / (KILLS - 1)) for i in range(KILLS)}):
        hits.names, hits.deadly = [], deadly
        try:
            state = stages[name].execute(tmp_path / name)
        except Killed:
            continue
        assert state in ("ran", "reused")  # what it resumed from left fewer places to pass
        break
    hits.deadly = None
    stages[name].execute(tmp_path / name)
    assert contents(tmp_path / name) == expected


@pytest.mark.parametrize("name", ["pretrain", "sft", "reward", "dpo", "rrhf", "ppo"])
def test_a_kill_while_a_finished_model_is_replaced(
    name: str, stages: dict[str, Small], whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model was saved and the stage not yet sealed; the second attempt dies between the two renames."""
    for place in ("stage-finished", "directory-moved"):
        monkeypatch.setenv("AYNI_FAILPOINT", place)
        with pytest.raises(Killed, match=place):
            stages[name].execute(tmp_path / name)
    monkeypatch.delenv("AYNI_FAILPOINT")
    ends_the_same(stages[name], tmp_path / name, whole[name][0])


@pytest.mark.parametrize("name", ["sft", "ppo"])
def test_a_torn_newest_checkpoint_costs_its_steps_only(
    name: str, stages: dict[str, Small], whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / name
    monkeypatch.setenv("AYNI_FAILPOINT", "stage-finished")
    with pytest.raises(Killed):
        stages[name].execute(directory)
    monkeypatch.delenv("AYNI_FAILPOINT")
    newest = max(directory.glob("checkpoints/step-*")) / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    ends_the_same(stages[name], directory, whole[name][0])


def test_all_checkpoints_torn_is_an_error_not_a_fresh_start(
    stages: dict[str, Small], whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AYNI_FAILPOINT", "stage-finished")
    with pytest.raises(Killed):
        stages["sft"].execute(tmp_path / "sft")
    monkeypatch.delenv("AYNI_FAILPOINT")
    saved = sorted((tmp_path / "sft").glob("checkpoints/step-*/state.safetensors"))
    assert len(saved) == 2
    for file in saved:
        file.write_bytes(b"")
    with pytest.raises(BadInput, match=r"no checkpoint here is whole \(.*\); use --fresh to start over"):
        stages["sft"].execute(tmp_path / "sft")


def test_together_the_stages_pass_every_failpoint_there_is(whole: Whole) -> None:
    house = Path(ayni.__file__).parent
    # the preference store is no stage: its failpoints are passed in its own tests
    files = [file for file in house.rglob("*.py") if file.relative_to(house).parts[0] != "feedback"]
    source = "".join(file.read_text() for file in files)
    named = set(re.findall(r'failpoint\("([\w-]+)"\)', source))
    assert len(named) >= 11
    passed = {place for _, places in whole.values() for place in places}
    assert passed | {"directory-moved"} == named  # (that one: while a finished model is replaced)
