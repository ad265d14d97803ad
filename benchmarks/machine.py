"""The machine: its name, its versions, and what it can do at most, measured in the same run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from ayni.cores import side_by_side
from ayni.model.products import times
from benchmarks.options import Options

if TYPE_CHECKING:
    from benchmarks.side import Turns

CEILING = "ceiling"
PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "numpy", "sentencepiece")
SECONDS = 0.4  # of each measurement


def fastest(call: Any, device: str) -> float:
    """Seconds of the fastest of the calls that fit into SECONDS, at least three."""
    began, seen = time.perf_counter(), list[float]()
    while len(seen) < 3 or time.perf_counter() - began < SECONDS:
        started = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        seen.append(time.perf_counter() - started)
    return min(seen)


def ceiling(options: Options, turns: Turns) -> None:
    """FLOPs a second of a large square product in this number format, torch's or, where they are faster, ours in lanes;
    bytes a second of a large copy."""
    side = 2048 if options.device == "cpu" else 8192
    turns.imported()
    a, b = (torch.randn(side, side, device=options.device).to(options.torch_dtype) for _ in range(2))
    source = torch.zeros(2**26 if options.device == "cpu" else 2**28, device=options.device)  # beyond any cache
    target, product = torch.zeros_like(source), torch.empty_like(a)
    ways: list[Callable[[], Any]] = [lambda: torch.mm(a, b, out=product)]
    if options.device == "cpu":
        ways.append(lambda: side_by_side(lambda rows: times(rows, b), a.chunk(options.threads)))
    for _ in turns:
        flops = 2 * side**3 / min(fastest(way, options.device) for way in ways)
        moved = 2 * source.nbytes / fastest(lambda: target.copy_(source), options.device)
        turns.end(flops, 1.0, flops_s=flops, bytes_s=moved)


SIDES = {CEILING: ceiling}


def median_of(rounds: Sequence[Mapping[str, Any]], label: str) -> dict[str, float]:
    return {key: median(each[label][key] for each in rounds) for key in ("flops_s", "bytes_s")}


def described(device: str) -> dict[str, Any]:
    """Name, cores, memory, versions, commit and date of a measurement."""
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "machine": name_of(device),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "load": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d"),
        "commit": git.stdout.strip(),
        "versions": found,
    }


def name_of(device: str, cpuinfo: str | None = None) -> str:
    """The GPU's name, or the CPU's with the matrix units that decide how fast bf16 is."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if cpuinfo is None else cpuinfo
    model = re.search(r"^model name\s*: (.*)$", text, re.M)
    flags = set((re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.M) or ["", ""])[1].split())
    family = re.search(r"^cpu family\s*: (\d+)$", text, re.M)
    # a virtual EPYC does not say its generation, whose products are twice as fast
    zen = ", Zen 5" if family and family[1] == "26" else ""
    units = "AMX" if "amx_bf16" in flags else "AVX-512 BF16" if "avx512_bf16" in flags else "no bf16 units"
    return f"{model[1].strip() if model else platform.machine()}{zen} ({units})"


def slug(name: str) -> str:
    """For a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("(r)", "").replace("(tm)", "")).strip("-")
