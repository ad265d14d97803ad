"""How much memory there is, and one line before anything is asked for that cannot fit into it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ayni.errors import NoRoom


def memory() -> int:
    """Bytes that this process may use: the machine's memory or its control group's limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return min(total, int(text) if text.isdigit() else total)


def need_memory(size: int, what: str) -> None:
    """NoRoom where `what` takes more bytes than there are at all; what others use meanwhile is not asked."""
    if size > memory():
        needs, has = f"{size / 1e9:,.1f} GB of memory", f"{memory() / 1e9:,.1f} GB"
        raise NoRoom(f"{what} needs {needs}, this machine has {has}; choose a smaller model or a larger machine")


def forget_peak() -> None:
    """From here on `peak_memory` counts anew, where the system lets a process say so (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """The most bytes that this process has held in memory at once since `forget_peak`; None where nobody counts."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
