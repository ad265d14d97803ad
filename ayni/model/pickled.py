"""PyTorch's `.pth` and `.bin` files, read without unpickling anything but tensors.

torch's own restricted reader runs no code, but it builds what the pickle says: a bytearray of a terabyte, a matrix of a
billion rows that are all the same four bytes. So the archive is looked through first, and every tensor has to own as
many numbers as it claims.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import struct
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from ayni.errors import BadInput

_LARGEST = 2**21  # bytes of all that is no tensor's data: a model of 405 billion parameters needs a tenth
_ENTRIES = 2**24  # bytes of the list of what is in the archive
_NAMES = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch (Double|Float|Half|BFloat16)Storage"
    r"|torch (Byte|Char|Short|Int|Long|Bool)Storage"  # a buffer's; as a weight it is refused later, by its name
)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """A file's tensors by name, mapped into memory rather than read; BadInput for anything else in it."""
    if not path.is_file():
        raise BadInput("is not a file", path=path)
    try:
        _check_archive(path)
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except MemoryError:
        raise
    except Exception as error:  # hostile bytes end in any of them
        what = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise BadInput(f"not a whole file of tensors ({what})", path=path) from None
    if not isinstance(value, dict):
        raise BadInput("expected tensors by name", path=path)
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise BadInput("expected tensors by name", path=path, field=str(name)[:80])
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            sizes = "×".join(map(str, tensor.shape))
            raise BadInput(f"is {sizes}, more numbers than the file holds", path=path, field=name)
    return value


def _check_archive(path: Path) -> None:
    """ValueError unless it is what torch.save writes of tensors: nothing packed, nothing large but their data, and no
    other names in the pickle."""
    _check_list(path)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if len(set(names)) < len(names):
            raise ValueError("a name stands twice in the archive")
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise ValueError(f"{entry.filename[:60]} is packed")
            if entry.file_size > _LARGEST and "/data/" not in entry.filename:
                raise ValueError(f"{entry.filename[:60]} is {entry.file_size:,} bytes long")
        pickles = [name for name in names if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"{len(pickles)} pickles in the archive")
        for code, argument, _ in pickletools.genops(archive.read(pickles[0])):
            if code.name == "GLOBAL" and not _NAMES.fullmatch(str(argument)):
                raise pickle.UnpicklingError(f"{str(argument)[:60]} is no tensor's")


def _check_list(path: Path) -> None:
    """The list of entries is read whole: it must not be large."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 98))
        tail = file.read()
    size = struct.unpack_from("<L", tail[-22:], 12)[0] if tail[-22:-18] == b"PK\5\6" else -1
    if size == 2**32 - 1 and tail[:4] == b"PK\6\6":
        size = struct.unpack_from("<Q", tail, 40)[0]
    if not 0 <= size <= _ENTRIES:
        raise ValueError("no archive that torch.save has written")
