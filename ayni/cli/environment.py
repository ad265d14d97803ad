"""What the process needs before torch is loaded, for speed on a CPU. Nothing here changes a result.

- OpenMP threads that spin while they wait cost up to ten times when anything else runs on the machine, so they sleep.
  libgomp reads OMP_WAIT_POLICY once, when torch loads it; a value that is already set stays.
- glibc gives every large temporary back to the kernel at once and faults it in again a moment later. Raised
  thresholds keep it (half of the CPU time of element-wise work on 64 MB tensors). mallopt does at any time what
  MALLOC_MMAP_THRESHOLD_ and its sisters do before a start, so no second start is needed; those still win where set.
"""

from __future__ import annotations

import ctypes
import os
import sys

# (what, mallopt's number in malloc.h, bytes)
_MALLOC = (
    ("MALLOC_MMAP_THRESHOLD_", -3, 2**31 - 1),
    ("MALLOC_TRIM_THRESHOLD_", -1, 2**31 - 1),
    ("MALLOC_TOP_PAD_", -2, 64 * 2**20),
)


def prepare() -> None:
    """Call it before torch is imported; does nothing where it does not apply."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        for variable, number, size in _MALLOC:
            if variable not in os.environ:
                mallopt(number, size)
