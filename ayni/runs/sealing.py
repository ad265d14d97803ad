"""DONE.json: the seal of a finished stage. It holds the identity and every file's size and sha256.

The hash of an input is the same whether it is read from a seal or from the bytes themselves, so a copied output
is the same input, and a big model inside a sealed directory is not read again.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import ayni
from ayni.errors import BadInput
from ayni.files import fsync, read_json, sha256_of, write_json
from ayni.run import CHECKPOINTS

SEAL = "DONE.json"
SEAL_KEYS = {"hash", "kind", "version", "config", "seed", "seconds", "source", "files", "bytes"}


@cache
def source_hash() -> str:
    """sha256 of ayni's own code: recorded with every stage; a difference only warns."""
    return sha256_of(Path(ayni.__file__).parent, keep=lambda file: file.suffix in (".py", ".c"))


def read_seal(directory: Path) -> dict[str, Any] | None:
    """DONE.json of a stage directory, None where the stage is not finished; BadInput if it is damaged."""
    path = directory / SEAL
    if not path.is_file():
        return None
    seal = read_json(path)
    if not isinstance(seal, dict) or not seal.keys() >= SEAL_KEYS:
        raise BadInput("is not the seal of a finished stage", path=path, fix="remove it and run the stage again")
    return seal


def seal_directory(directory: Path, *, seconds: float, **identity: Any) -> None:
    """Hash every file but checkpoints and what a kill left half written, and write DONE.json.

    Checkpoints are removed after the seal, not before: a kill in between costs nothing.
    """
    remove_leftovers(directory)
    files = {}
    fsync(directory)  # a seal must not outlast what it seals, nor the names of that
    for file in sorted(directory.rglob("*")):
        fsync(file)
        inside = file.relative_to(directory)
        if file.is_file() and CHECKPOINTS not in inside.parts and inside != Path(SEAL):
            files[inside.as_posix()] = file
    seal = {
        **identity,
        "seconds": round(seconds, 3),
        "source": source_hash(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": {name: _digest(file) for name, file in files.items()},
        "bytes": {name: file.stat().st_size for name, file in files.items()},
    }
    write_json(directory / SEAL, seal)
    remove_checkpoints(directory)


def remove_checkpoints(directory: Path) -> None:
    for checkpoint in [path for path in directory.rglob(CHECKPOINTS) if path.is_dir()]:
        shutil.rmtree(checkpoint, ignore_errors=True)


def remove_leftovers(directory: Path) -> None:
    """Remove the half-written files and replaced directories that a kill can leave behind (see ayni.files)."""
    for path in [*directory.rglob(".*.tmp"), *directory.rglob(".*.old")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def damages(directory: Path, seal: dict[str, Any], *, thorough: bool = False) -> dict[str, str]:
    """The files of a sealed directory that are gone or of another size (thorough: or of another hash), and why."""
    wrong = {}
    for name, digest in seal["files"].items():
        file = directory / name
        if not file.is_file():
            wrong[name] = "is gone"
        elif file.stat().st_size != seal["bytes"].get(name):
            wrong[name] = "has another size"
        elif thorough and _digest(file) != digest:
            wrong[name] = "has changed"
    return wrong


def content_hash(path: Path) -> str:
    """The hash of an input: from the seal of the finished stage it lies in, else from its bytes (files.sha256_of).

    BadInput where there is nothing, or where the stage did not leave what it is asked for.
    """
    real = path.resolve()
    for directory in (real, *real.parents):
        seal = read_seal(directory)
        if seal is not None:
            return _sealed_hash(real, directory, seal)
    if not path.exists():
        raise BadInput("no such file or directory", path=path)
    return sha256_of(path)


def _sealed_hash(path: Path, directory: Path, seal: dict[str, Any]) -> str:
    inside = PurePosixPath(path.relative_to(directory).as_posix())
    files = {PurePosixPath(name): digest for name, digest in seal["files"].items()}
    held = [name for name in files if name == inside or inside in name.parents]
    if not held:
        left = sorted({name.parts[0] for name in files} - {"config.yaml", "inputs.json", "metrics.jsonl"})
        raise BadInput(f"the stage {seal['kind']} left no {inside}", path=path, fix=f"it left {', '.join(left)}")
    for name, what in damages(directory, seal).items():
        if PurePosixPath(name) in held:
            raise BadInput(f"{what} since its stage finished", path=directory / name, fix="run it with --fresh")
    return _joined((name.relative_to(inside) if name != inside else None, files[name]) for name in sorted(held))


def _joined(parts: Iterable[tuple[PurePosixPath | None, str]]) -> str:
    """What files.sha256_of says of the same files."""
    digest = hashlib.sha256()
    for name, sha in parts:
        if name is not None:
            digest.update(f"{name.as_posix()}\0".encode())
        digest.update(bytes.fromhex(sha))
    return digest.hexdigest()


def _digest(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
