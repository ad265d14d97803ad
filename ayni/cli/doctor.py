"""`ayni doctor`: what this machine offers; of a path, whether what lies there is sound (ayni.cli.diagnosis)."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import ayni
from ayni.cli import VerbFailure, plain
from ayni.memory import memory


def doctor(what: str | None, as_json: bool) -> dict[str, Any] | VerbFailure:
    """{python, torch, cores, bf16, native, memory_gb, disk_gb, data, dependencies, problems} of the machine, or what
    ayni.cli.diagnosis finds."""
    if what is not None:
        from ayni.cli.diagnosis import diagnose

        return diagnose(what, as_json)
    found = _machine()
    if not as_json:
        for key, value in found.items():
            if key != "problems":
                shown = f"{len(value)} pinned" if key == "dependencies" else value
                print(plain(f"{key:14} {'-' if shown is None else shown}"))
        for problem in found["problems"]:
            print(plain(f"problem        {problem}"))
    return found


def _machine() -> dict[str, Any]:
    import torch

    pins, problems = _dependencies()
    data = os.environ.get("AYNI_DATA")
    if data is None:
        problems.append("AYNI_DATA is not set: only recipes and tests on real files need it")
    elif not Path(data).is_dir():
        problems.append(f"AYNI_DATA: {data} is not a directory")
    if not _has_bf16():
        problems.append("bf16 is not faster than fp32 here: training stays in fp32")
    if not _has_native():
        missing = "no C compiler, or no cache to keep what it makes"
        problems.append(f"{missing}: a CPU trains a fifth slower; on Debian and Ubuntu: sudo apt-get install gcc")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "ayni": ayni.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(terse=True),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "bf16": _has_bf16(),
        "native": _has_native(),
        "memory_gb": round(memory() / 1e9, 1),
        "disk_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "data": data,
        "dependencies": pins,
        "problems": problems,
    }


def _has_bf16() -> bool:
    """Whether `dtype: auto` computes in bf16 here."""
    import torch

    from ayni.model.precision import compute_dtype

    return compute_dtype("auto", "cuda" if torch.cuda.is_available() else "cpu") == torch.bfloat16


def _has_native() -> bool:
    """Whether the element-wise passes are compiled for this CPU."""
    import torch

    from ayni.model.native import passes

    return passes(torch.float32) is not None


def _dependencies() -> tuple[dict[str, str | None], list[str]]:
    """Installed versions of what constraints.txt pins (in a checkout) and what differs."""
    pins = Path(ayni.__file__).parent.parent / "constraints.txt"
    found: dict[str, str | None] = {}
    problems = []
    for line in pins.read_text().splitlines() if pins.exists() else []:
        name, equals, wanted = line.partition("==")
        if not equals or line.startswith("#"):
            continue
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None  # an extra that is not installed
        installed = (found[name] or wanted).partition("+")[0]
        if installed != wanted:
            problems.append(f"{name} {found[name]} is installed, constraints.txt pins {wanted}")
    return found, problems
