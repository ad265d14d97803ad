"""A model directory as others refer to it: the files that hold its numbers, where it lies, and their hash."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from ayni.errors import BadInput
from ayni.files import read_json, sha256_of


@dataclass(frozen=True)
class Base:
    """The directory that the weights of a trunk were read from, and still are."""

    path: Path

    @cached_property
    def sha256(self) -> str:
        """Of config.json and the weight files: tokenizer, card and settings of ours may change freely."""
        files = [self.path / "config.json", *weight_files(self.path)]
        stamps = tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
        return _content_hash(self.path.resolve(), stamps)


@lru_cache
def _content_hash(directory: Path, stamps: tuple[tuple[str, int, int], ...]) -> str:
    """Read once in a process, as long as no file of the directory has another time or size."""
    names = {name for name, _, _ in stamps}
    return sha256_of(directory, keep=lambda file: file.as_posix() in names)


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
    value = read_json(index)
    places = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(places, dict) or not places:
        raise BadInput("expected an object", path=index, line=1, field="weight_map")
    for name, file in places.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise BadInput(f"{file!r} is not a file beside this one", path=index, field=name)
        if not (index.parent / file).is_file():
            raise BadInput(f"its shard {file} is missing", path=index, field=name)
    return [index.parent / file for file in sorted(set(places.values()))]
