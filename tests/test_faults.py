"""Every stage on a disk that fails: one line that says what to do, and the same command then ends at the same bytes.

`make test` tries a few of a stage's operations with every fault, `make torture` all of them with kills and losses of
power and twenty with each of the others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import test_pipeline
from faults import FAULTS, faulty, limited
from small_stages import STAGES, Small, contents, prepare

from ayni.cli import failure
from ayni.errors import NoRoom
from ayni.files import Killed, write_text
from ayni.runs.pipeline import run_recipe
from ayni.seeds import rng

TRIES = int(os.environ.get("AYNI_FAULTS", "2"))  # operations of a stage that fail, for each fault
CODES = {"ENOSPC": 3, "EDQUOT": 3, "EIO": 2, "EACCES": 2}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Small]:
    return prepare(tmp_path_factory.mktemp("inputs"))


Whole = dict[str, tuple[dict[str, str], int]]


@pytest.fixture(scope="module")
def whole(stages: dict[str, Small], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What every stage leaves on a sound disk, and how many operations it takes."""
    place, found = tmp_path_factory.mktemp("whole"), {}
    for name, stage in stages.items():
        with faulty(place / name) as disk:
            stage.execute(place / name)
        found[name] = contents(place / name), disk.passed
    return found


def chosen(name: str, fault: str, count: int) -> list[int]:
    """Which of `count` operations fail: in the torture all of them where that shows what a kill may leave."""
    tries = count if TRIES > 2 and fault in ("kill", "power") else min(TRIES, count)
    return sorted(at + 1 for at in rng("faults", name, fault, tries).permutation(count)[:tries].tolist())


def fail_at(at: int, fault: str, directory: Path, work: Callable[[Path], object]) -> Path:
    """Works on a disk whose operation number `at` fails, and finds where to go on: told so in one line, or killed.

    Or not told: what failed was something that may, as removing what nobody needs any more.
    """
    with faulty(directory, at=at, fault=fault, seed=at) as disk:
        try:
            work(directory)
        except Killed:
            assert fault in ("kill", "power")
        except Exception as died:
            error = died
        else:
            return disk.left
    assert disk.passed >= at
    if fault in CODES:
        assert (failure(error) or (None,))[0] == CODES[fault], error
    return disk.left


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", STAGES)
def test_after_any_fault_the_same_command_ends_the_same(
    name: str, fault: str, stages: dict[str, Small], whole: Whole, tmp_path: Path
) -> None:
    expected, count = whole[name]
    for at in chosen(name, fault, count):
        left = fail_at(at, fault, tmp_path / str(at), stages[name].execute)
        stages[name].execute(left)
        assert contents(left) == expected, f"operation {at} of {count}"


@pytest.mark.parametrize("name", STAGES)
def test_a_file_may_grow_no_further(name: str, stages: dict[str, Small], whole: Whole, tmp_path: Path) -> None:
    """The kernel's own refusal, met by whichever library writes: a limit on the size of a file, higher and higher."""
    expected, _ = whole[name]
    refused = 0
    for size in (0, 300, 3_000, 30_000):
        with limited(size):
            with contextlib.suppress(NoRoom):
                stages[name].execute(tmp_path / "out")
                continue
            refused += 1
    assert refused
    stages[name].execute(tmp_path / "out")
    assert contents(tmp_path / "out") == expected


@pytest.mark.parametrize("fault", FAULTS)
def test_a_whole_run_after_any_fault(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_pipeline.install()
    (tmp_path / "source.txt").write_text("hello ")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(test_pipeline.RECIPE)

    def go(out: Path) -> None:
        run_recipe(recipe, out, quiet=True)

    with faulty(tmp_path / "whole") as disk:
        go(tmp_path / "whole")
    expected = made_by_run(tmp_path / "whole")
    for at in chosen("run", fault, disk.passed):
        left = fail_at(at, fault, tmp_path / f"run-{at}", go)
        go(left)
        assert made_by_run(left) == expected, f"operation {at}"


def made_by_run(out: Path) -> dict[str, str]:
    """Without what holds seconds or the run's own place."""
    return {name: sha for name, sha in contents(out).items() if Path(name).name not in ("status.json", "inputs.json")}


@pytest.mark.parametrize("seed", range(8))
def test_what_was_written_survives_a_loss_of_power_with_all_above_it(seed: int, tmp_path: Path) -> None:
    def write(root: Path) -> None:
        write_text(root / "a" / "b" / "c", "kept")
        with open(root / "later", "w"):
            pass

    with faulty(tmp_path / "whole") as disk:
        write(tmp_path / "whole")
    with faulty(tmp_path / "root", at=disk.passed, fault="power", seed=seed) as disk, pytest.raises(Killed):
        write(tmp_path / "root")
    assert (disk.left / "a" / "b" / "c").read_text() == "kept"
