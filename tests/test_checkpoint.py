"""Checkpoints: the same tensors back, at least two kept, a broken one passed over, a kill at every named place."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ayni.errors import BadInput
from ayni.files import Killed, sha256_of
from ayni.run import Run
from ayni.train.checkpoint import KEEP, Checkpoints, load_checkpoint, read_checkpoint, save_checkpoint

FAILPOINTS = ("save-begin", "save-tensors", "file-written", "directory-written", "save-renamed", "save-end")


def tensors(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        "model.weight": torch.randn(3, 4, generator=generator),
        "adam.step.weight": torch.tensor(float(step)),
        "bf16": torch.randn(5, generator=generator).bfloat16(),
    }


def save(directory: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(directory, step, tensors(step), {"step": step, "best": 1 / step})


def check(directory: Path, step: int) -> None:
    loaded = load_checkpoint(directory)
    assert loaded is not None
    at, found, numbers = loaded
    assert (at, numbers) == (step, {"step": step, "best": 1 / step})
    assert found.keys() == tensors(step).keys()
    for name, tensor in tensors(step).items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_nothing_there_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "nowhere") is None


def test_the_newest_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 5)
    check(tmp_path, 5)
    save(tmp_path, 10, 15, 20)
    check(tmp_path, 20)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000015", "step-00000020"]
    assert KEEP == 2


def test_a_checkpoint_saved_again_replaces_itself(tmp_path: Path) -> None:
    save(tmp_path, 5, 10, 10)
    check(tmp_path, 10)
    assert len(list(tmp_path.iterdir())) == 2


def truncate(place: Path) -> None:
    file = place / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def flip(place: Path) -> None:
    file = place / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(bytes(data))


def zero(place: Path) -> None:
    for file in place.iterdir():
        file.write_bytes(b"\0" * file.stat().st_size)


def lose_tensors(place: Path) -> None:
    (place / "state.safetensors").unlink()


def lose_numbers(place: Path) -> None:
    (place / "numbers.json").unlink()


def tear_numbers(place: Path) -> None:
    file = place / "numbers.json"
    file.write_text(file.read_text()[:20])


def forget_hash(place: Path) -> None:
    (place / "sha256").unlink()


def change_a_number(place: Path) -> None:
    file = place / "numbers.json"
    file.write_text(file.read_text().replace("0.", "1."))


def pipe_for_hash(place: Path) -> None:
    (place / "sha256").unlink()
    os.mkfifo(place / "sha256")


def pipe_for_numbers(place: Path) -> None:
    (place / "numbers.json").unlink()
    os.mkfifo(place / "numbers.json")


def other_json(place: Path) -> None:
    (place / "numbers.json").write_text("[]")


BREAKS = [truncate, flip, zero, lose_tensors, lose_numbers, tear_numbers, forget_hash, other_json]
BREAKS += [change_a_number, pipe_for_hash, pipe_for_numbers]


@pytest.mark.parametrize("damage", BREAKS)
def test_a_broken_newest_falls_back_and_all_broken_is_an_error(damage, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    save(tmp_path, 5, 10)
    damage(tmp_path / "step-00000010")
    check(tmp_path, 5)
    damage(tmp_path / "step-00000005")
    with pytest.raises(BadInput, match=r"no checkpoint here is whole \(.*\); use --fresh"):
        load_checkpoint(tmp_path)
    save(tmp_path, 15)  # (a new one heals it)
    check(tmp_path, 15)


def test_going_back_is_said_and_names_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, 5, 10)
    check(tmp_path, 10)
    assert capsys.readouterr().err == ""
    flip(tmp_path / "step-00000010")
    check(tmp_path, 5)
    said = capsys.readouterr().err
    assert said == f"{tmp_path / 'step-00000010'}: is not what was written; going on from step-00000005\n"
    shutil.copytree(tmp_path / "step-00000005", tmp_path / "step-00000099")
    check(tmp_path, 5)
    assert "step-00000099: is of another step than its name says" in capsys.readouterr().err


def test_what_else_lies_beside_checkpoints_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "step-abc").mkdir()
    (tmp_path / "step-99999999-old").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "step-88888888").symlink_to(tmp_path / "elsewhere")
    for name in ("step-1.txt", ".DS_Store", "step-77777777"):
        (tmp_path / name).write_text("mine")
    assert load_checkpoint(tmp_path) is None
    before = {path.name for path in tmp_path.iterdir()}
    save(tmp_path, 5, 10, 15)
    check(tmp_path, 15)
    assert {path.name for path in tmp_path.iterdir()} == before | {"step-00000010", "step-00000015"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensors, numbers: tensors.pop("model.weight"),
        lambda tensors, numbers: tensors.update({"model.weight": torch.ones(7)}),
        lambda tensors, numbers: numbers.update(best="good"),
        lambda tensors, numbers: numbers.pop("best"),
    ],
    ids=["a tensor gone", "a tensor of another size", "text for a number", "a number gone"],
)
def test_what_does_not_fit_the_stage_is_one_line(spoil: Callable[..., object], tmp_path: Path) -> None:
    state, numbers = tensors(5), {"best": 0.5}
    spoil(state, numbers)
    save_checkpoint(tmp_path / "checkpoints", 5, state, numbers)

    def load(step: int, found: dict[str, torch.Tensor], numbers: dict[str, Any]) -> None:
        torch.empty(3, 4).copy_(found["model.weight"])
        float(numbers["best"])

    with (
        Checkpoints(Run(tmp_path, name="r"), 1) as checkpoints,
        pytest.raises(BadInput, match="step 5 is not this stage's") as caught,
    ):
        checkpoints.resume(load)
    assert "\n" not in str(caught.value)


def test_what_a_library_says_of_a_broken_header_is_cut(tmp_path: Path) -> None:
    save(tmp_path, 5)
    place = tmp_path / "step-00000005"
    header = b'{"a":"' + b"x" * 5000 + b'"}'
    (place / "state.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (place / "sha256").write_text(sha256_of(place, keep=lambda file: file.name != "sha256"))
    with pytest.raises(BadInput, match="is not whole") as caught:
        read_checkpoint(place)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", FAILPOINTS)
def test_a_kill_at_every_place_leaves_the_old_or_the_new(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 5, 10)
    monkeypatch.setenv("AYNI_FAILPOINT", name)
    with pytest.raises(Killed):
        save(tmp_path, 15)
    monkeypatch.delenv("AYNI_FAILPOINT")
    check(tmp_path, 15 if name in ("save-renamed", "save-end") else 10)
    save(tmp_path, 15)
    check(tmp_path, 15)
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000010", "step-00000015"]


def test_a_kill_between_the_two_renames_of_a_replaced_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 5, 10)
    monkeypatch.setenv("AYNI_FAILPOINT", "directory-moved")
    with pytest.raises(Killed):
        save(tmp_path, 10)
    monkeypatch.delenv("AYNI_FAILPOINT")
    check(tmp_path, 5)
    save(tmp_path, 10)
    check(tmp_path, 10)


def test_what_is_written_beside_training_is_what_was_there_when_it_was_saved(tmp_path: Path) -> None:
    changing = tensors(5)
    with Checkpoints(Run(tmp_path, name="r"), 1) as checkpoints:
        checkpoints.save(5, changing, {"step": 5, "best": 1 / 5})
        for tensor in changing.values():
            tensor.zero_()
    check(tmp_path / "checkpoints", 5)


def test_a_save_that_failed_is_heard_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AYNI_FAILPOINT", "save-tensors")
    checkpoints = Checkpoints(Run(tmp_path, name="r"), 1)
    checkpoints.save(5, tensors(5), {})
    with pytest.raises(Killed):
        checkpoints.save(6, tensors(6), {})
    with pytest.raises(Killed), Checkpoints(Run(tmp_path, name="r"), 1) as checkpoints:
        checkpoints.save(5, tensors(5), {})
    with pytest.raises(ZeroDivisionError):
        save_and_divide(tmp_path)
    assert load_checkpoint(tmp_path / "checkpoints") is None


def save_and_divide(directory: Path) -> float:
    """Both go wrong: the block's own error is the one to hear of."""
    with Checkpoints(Run(directory, name="r"), 1) as checkpoints:
        checkpoints.save(5, tensors(5), {})
        return 1 / 0
