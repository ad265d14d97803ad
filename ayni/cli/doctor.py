"""`ayni doctor`: what this machine offers; whether a run's files are what its stages left, and what it leaks."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import ayni
from ayni.cli import VerbFailure, show
from ayni.cli.stages import located
from ayni.errors import BadInput
from ayni.runs.leaks import gone, leaks_of
from ayni.runs.lineage import made_by
from ayni.runs.sealing import damages, read_seal, source_hash

NEEDED = (3, 11)


def doctor(directory: Path | None, as_json: bool) -> dict[str, Any] | VerbFailure:
    """{python, torch, cores, bf16, native, memory_gb, disk_gb, data, dependencies, problems} of the machine, or
    {run, stages, leaks, gone} of a run."""
    if directory is not None:
        return _verify(located(directory), as_json)
    found = _machine()
    if not as_json:
        for key, value in found.items():
            if key != "problems":
                shown = f"{len(value)} pinned" if key == "dependencies" else value
                show(f"{key:14} {'-' if shown is None else shown}")
        for problem in found["problems"]:
            show(f"problem        {problem}")
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
        "memory_gb": _memory_gb(),
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


def _memory_gb() -> float:
    """What this process may use: the machine's memory or its control group's limit, in GB."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return round(min(total, int(text) if text.isdigit() else total) / 1e9, 1)


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


def _verify(directory: Path, as_json: bool) -> dict[str, Any] | VerbFailure:
    """Every stage's files against the sha256 it was sealed with, and what is trained on against what is evaluated on;
    any difference and any leak is exit 2."""
    if (directory / "stages").is_dir():
        paths = sorted(path for path in (directory / "stages").iterdir() if path.is_dir())
    elif (directory / "inputs.json").is_file():
        paths = [directory]
    else:
        raise BadInput("neither a run nor a stage", path=directory)
    stages: list[dict[str, Any]] = []
    for path in paths:
        seal = read_seal(path)
        wrong = {} if seal is None else damages(path, seal, thorough=True)
        state = "unfinished" if seal is None else "damaged" if wrong else "whole"
        other = seal is not None and seal["source"] != source_hash()
        stages.append({"directory": str(path), "state": state, "wrong": wrong, "older_source": other})
        if not as_json:
            show(f"{state:10} {path.name}{'  (made by other source code)' if other else ''}")
            for file, what in wrong.items():
                show(f"           {file} {what}")
    count = sum(len(stage["wrong"]) for stage in stages)
    made = [] if count else made_by(directory)  # what is damaged is not read
    leaks, unknown = leaks_of(made), [str(path) for path in gone(made)]
    if not as_json:
        for leak in leaks:
            show(f"{'leak':10} {leak}")
        for file in unknown:
            show(f"{'gone':10} {file}: nobody knows whether it holds what is evaluated on")
    value = {"run": str(directory), "stages": stages, "leaks": [asdict(leak) for leak in leaks], "gone": unknown}
    if count:
        error = BadInput(f"{count} files are not what their stages left", path=directory, fix="see above; --fresh")
        return VerbFailure(value, error)
    if leaks:
        what = f"{len(leaks)} × a file to train on holds what is evaluated on"
        return VerbFailure(value, BadInput(what, path=directory, fix="see above; hold it out, or evaluate on others"))
    return value
