"""native.c, attention.c and step.c as a library: compiled once for this machine where there is a C compiler, and kept.

Without one torch's operations do the same work in more passes (ayni.model.kernels, ayni.rollout.decoder);
`AYNI_NATIVE=0` asks for that. It lies in the user's cache.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

SOURCES = tuple(Path(__file__).with_name(name) for name in ("native.c", "attention.c", "product.c", "step.c"))
HEADERS = tuple(Path(__file__).with_name(name) for name in ("numbers.h", "vectors.h", "pairs.h", "tile.h"))
FLAGS = ("-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
MACHINE = ("-march=native", "-mprefer-vector-width=512")
DEFINES = {torch.float32: (), torch.bfloat16: ("-DBF16",)}
# l long, f float, p pointer; i: it returns a long
SIGNATURES = {
    "add_norm": "llpppfppp",
    "add_norm_backward": "llpppppppp",
    "swiglu": "lllppp",
    "swiglu_backward": "lppppp",
    "rotate": "llllppfp",
    "attention": "plllpppppi",
    "attention_backward": "plllpppppppppi",
    "product_room": "lli",
    "multiply": "lllpplpp",
    "weigh": "lllpppp",
    "panel_lanes": "i",
    "panel_pair": "i",
    "panel_pays": "i",
    "decode": "plllpppppp",
    "draw": "llpppppp",
}
_TYPES = {"l": ctypes.c_long, "f": ctypes.c_float, "p": ctypes.c_void_p}


@cache
def passes(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The passes over activations of this dtype; None where there are none for it, nothing to compile them with, or no
    place to keep them."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if dtype not in DEFINES or compiler is None or os.environ.get("AYNI_NATIVE") == "0":
        return None
    path = _compiled(compiler, dtype)
    if path is None:
        return None
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError:  # torn by a power cut, or where nothing may be executed
        path.unlink(missing_ok=True)
        return None
    for name, letters in SIGNATURES.items():
        if not hasattr(loaded, name):  # products of bf16 are left to the library
            continue
        function = getattr(loaded, name)
        function.argtypes = [_TYPES[letter] for letter in letters.rstrip("i")]
        function.restype = ctypes.c_long if letters.endswith("i") else None
    return loaded


def _compiled(compiler: str, dtype: torch.dtype) -> Path | None:
    # whatever may change what comes out is in the name: a home may be shared between machines
    texts = [path.read_text(encoding="utf-8") for path in (*SOURCES, *HEADERS)]
    makings = (*texts, compiler, *FLAGS, *MACHINE, *DEFINES[dtype], _processor())
    name = f"native-{hashlib.sha256(repr(makings).encode()).hexdigest()[:24]}.so"
    try:
        directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ayni"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (directory / name).exists():
            return directory / name
        with tempfile.TemporaryDirectory(dir=directory) as place:
            made = Path(place) / name
            for machine in (MACHINE, ()):
                command = [compiler, *FLAGS, *machine, *DEFINES[dtype], *map(str, SOURCES), "-o", str(made), "-lm"]
                if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                    # several processes may do so at once; each leaves the same
                    made.replace(directory / name)
                    return directory / name
    except (OSError, RuntimeError):  # no home, no room, no right to write there
        return None
    return None


def _processor() -> str:
    """What -march=native looks at."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    return "".join(line for line in lines if line.startswith(("model", "flags", "Features", "CPU")))
