"""A model's files as others refer to them: which hold its numbers, whether those can be there, and their hash."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ayni.errors import BadInput
from ayni.files import is_path, read_object, sha256_of
from ayni.memory import need_memory
from ayni.model.fields import shown

# What a file may hold beside its numbers (names, headers, tables), and the most bytes that a number takes: fp64,
# and as much again where shards or a tied head keep it twice.
BESIDE, WIDEST = 2**24, 16


@dataclass(frozen=True)
class Base:
    """The directory that the weights of a trunk were read from, and still are."""

    path: Path

    @cached_property
    def sha256(self) -> str:
        """Of config.json and the weight files: tokenizer, card and settings of ours may change freely."""
        names = {"config.json", *(file.name for file in weight_files(self.path))}
        return sha256_of(self.path, keep=lambda file: file.as_posix() in names)


def check_size(numbers: int, files: Iterable[Path], path: Path, width: int | None = 4) -> None:
    """Before anything is read, hashed or allocated: can the files hold as many numbers as the configuration asks for,
    and the memory that many of `width` bytes (as stored: None)?

    BadInput where they cannot, or hold far more; NoRoom where there is too little memory.
    """
    held = sum(file.stat().st_size for file in files)
    asked = f"the configuration asks for {numbers:,} numbers, the weight files hold"
    if held < numbers:
        raise BadInput(f"{asked} only {held:,} bytes", path=path)
    if held > WIDEST * numbers + BESIDE:
        raise BadInput(f"{asked} {held:,} bytes: they are another model's", path=path)
    need_memory(held if width is None else width * numbers, f"{path}: a model of {numbers:,} parameters")


def weight_files(directory: Path) -> list[Path]:
    """model.safetensors or pytorch_model.bin, whole or in the shards that an index names; BadInput for neither."""
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        whole, index = directory / f"{stem}.{suffix}", directory / f"{stem}.{suffix}.index.json"
        if whole.is_file():
            return [whole]
        if index.is_file():
            return _shards(index)
    raise BadInput("no weights here: neither model.safetensors nor pytorch_model.bin", path=directory)


def _shards(index: Path) -> list[Path]:
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise BadInput("expected an object", path=index, line=1, field="weight_map")
    there: set[str] = set()
    for name, file in places.items():
        if not is_path(file) or Path(file).name != file:
            raise BadInput(f"{shown(file)} is not a file beside this one", path=index, field=name[:200])
        if file not in there and not (index.parent / file).is_file():
            raise BadInput(f"its shard {file} is missing", path=index, field=name[:200])
        there.add(file)
    return [index.parent / file for file in sorted(there)]
