"""DONE.json: the seal of a finished stage. It holds the identity and every file's size and sha256.

The hash of an input is the same whether it is read from a seal or from the bytes themselves, so a copied output
is the same input. Every file of a sealed input is held against its seal before it is used, once in a process.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import ayni
from ayni.errors import BadInput
from ayni.files import digest_of, fsync, is_path, read_object, sha256_of, write_json
from ayni.limits import absent
from ayni.run import CHECKPOINTS
from ayni.stage import COMPUTE

SEAL = "DONE.json"
SEAL_KEYS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("hash", "kind", "source"), (str,)),
    **dict.fromkeys(("version", "seed"), (int,)),
    **dict.fromkeys(("config", "files", "bytes"), (dict,)),
    "seconds": (int, float),
}
_DIGEST = re.compile("[0-9a-f]{64}")
_SMALL = 2**20  # bytes of a file that is read to see whether it is still the same wherever its size is looked at


@cache
def source_hash() -> str:
    """sha256 of ayni's own code: recorded with every stage; a difference only warns."""
    return sha256_of(Path(ayni.__file__).parent, keep=lambda file: file.suffix in (".py", ".c"))


def read_seal(directory: Path) -> dict[str, Any] | None:
    """DONE.json of a stage directory, None where the stage is not finished; BadInput if it is damaged."""
    path = directory / SEAL
    if not path.is_file():
        return None
    seal = read_object(path, most=2**26)  # a line for every file a stage has left
    if not _is_seal(seal):
        raise BadInput("is not the seal of a finished stage", path=path, fix="remove it and run the stage again")
    return seal


def _is_seal(seal: dict[str, Any]) -> bool:
    """Whether every key is there and holds what it should; the files lie inside the directory."""
    if any(type(seal.get(key)) not in kinds for key, kinds in SEAL_KEYS.items()):
        return False
    files, sizes = seal["files"], seal["bytes"]
    return (
        all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in files.values())
        and all(type(size) is int for size in sizes.values())
        and all(is_path(name) and not {"", "..", "."} & {*name.split("/")} for name in files)
    )


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
        "files": {name: digest_of(file).hex() for name, file in files.items()},
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
    """The files of a sealed directory that are gone, of another size or of other content, and why.

    Content is read of small files, results among them; of all only where it is asked for (`thorough`), or where
    they are read as an input (content_hash).
    """
    wrong = {name: _damage(directory / name, seal, name, thorough) for name in seal["files"]}
    return {name: what for name, what in wrong.items() if what is not None}


def _damage(file: Path, seal: dict[str, Any], name: str, thorough: bool) -> str | None:
    if not file.is_file():
        return "is gone"
    size = file.stat().st_size
    if size != seal["bytes"].get(name):
        return "has another size"
    if (thorough or size <= _SMALL) and digest_of(file).hex() != seal["files"][name]:
        return "has changed"
    return None


def content_hash(path: Path) -> str:
    """The hash of an input: from the seal of the finished stage it lies in, else from its bytes (files.sha256_of).

    BadInput where there is nothing, or where the stage did not leave what it is asked for.
    """
    if (sealed := sealed_hash(path)) is not None:
        return sealed
    if not path.exists():
        raise absent(path)
    return sha256_of(path)


def sealed_hash(path: Path) -> str | None:
    """The same of what lies in a finished stage, every file of it held against the seal; None outside of any.

    BadInput names the first file that is not what the stage left.
    """
    real = path.resolve()
    for directory in (real, *real.parents):
        seal = read_seal(directory)
        if seal is not None:
            return _hash_by_seal(real, directory, seal)
    return None


def _hash_by_seal(path: Path, directory: Path, seal: dict[str, Any]) -> str:
    inside = PurePosixPath(path.relative_to(directory).as_posix())
    files = {PurePosixPath(name): digest for name, digest in seal["files"].items()}
    held = [name for name in files if name == inside or inside in name.parents]
    if not held:
        left = sorted({name.parts[0] for name in files} - {"config.yaml", "inputs.json", "metrics.jsonl", COMPUTE})
        raise BadInput(f"the stage {seal['kind']} left no {inside}", path=path, fix=f"it left {', '.join(left)}")
    for name in held:
        if what := _damage(directory / name, seal, name.as_posix(), thorough=True):
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
