"""Which number format to compute in: bf16 where this machine multiplies it faster, by measurement and not by name."""

from __future__ import annotations

import time
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F

Dtype = Literal["auto", "bf16", "fp32"]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
# How many times faster bf16's products must be for the casts around them to be paid. Units for it give 2 (AVX-512 BF16)
# to 6 (AMX), none give less than 1: the answer does not hang on what else the machine does.
PAYS = 1.5
ROUNDS = 5


def compute_dtype(choice: Dtype, device: torch.device | str = "cpu") -> torch.dtype:
    """The compute dtype; weights and their optimiser stay in fp32 whatever it is."""
    if choice != "auto":
        return DTYPES[choice]
    if torch.device(device).type == "cuda":
        # never fp16: its gradients underflow without loss scaling
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if seconds(torch.float32) > PAYS * seconds(torch.bfloat16) else torch.float32


@cache
def seconds(dtype: torch.dtype) -> float:
    """What a product of a training step's size takes on this CPU, at best: 1.4 GFLOP, tens of milliseconds in all."""
    x, weight = torch.ones(1024, 512, dtype=dtype), torch.ones(1376, 512, dtype=dtype)
    F.linear(x, weight)  # the first makes the kernel
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        F.linear(x, weight)
        found.append(time.perf_counter() - began)
    return min(found)
