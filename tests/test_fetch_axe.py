"""axe-core is the file that we know, from wherever it comes, or there is none."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parent / "browser" / "fetch_axe.py"


@pytest.fixture
def fetch_axe(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program, on a machine without npm."""
    spec = importlib.util.spec_from_file_location("fetch_axe", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("PATH", "/nowhere")
    return module


def registry(directory: Path, member: str, content: bytes) -> str:
    """A package registry with one package in it."""
    where = directory / "axe-core" / "-"
    where.mkdir(parents=True)
    with tarfile.open(where / "axe-core-4.14.1.tgz", "w:gz") as archive:
        info = tarfile.TarInfo(member)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return directory.as_uri()


def test_without_npm_it_comes_from_the_registry(
    fetch_axe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_axe, "SHA256", hashlib.sha256(b"axe").hexdigest())
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry(tmp_path, "package/axe.min.js", b"axe") + "/")
    assert fetch_axe.main(tmp_path / "axe.min.js") == 0
    assert (tmp_path / "axe.min.js").read_bytes() == b"axe"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["axe-core", "axe.min.js"]


@pytest.mark.parametrize(
    ("member", "what"),
    [("package/axe.min.js", "is another than the one of"), ("package/axe.js", "it is no package with")],
)
def test_another_file_is_not_taken(
    fetch_axe: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    member: str,
    what: str,
) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry(tmp_path, member, b"evil"))
    assert fetch_axe.main(tmp_path / "axe.min.js") == 1
    line = capsys.readouterr().err
    assert what in line
    assert line.count("\n") == 1
    assert not (tmp_path / "axe.min.js").exists()


def test_no_network_is_one_line(
    fetch_axe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", (tmp_path / "nothing").as_uri())
    assert fetch_axe.main(tmp_path / "axe.min.js") == 1
    line = capsys.readouterr().err
    assert line.startswith("axe-core 4.14.1 cannot be fetched: ")
    assert line.endswith(f"; put its axe.min.js at {tmp_path}/axe.min.js\n")
