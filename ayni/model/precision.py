"""Which number format to compute in: bf16 where the machine has units for it, fp32 elsewhere (docs/benchmarks.md)."""

from __future__ import annotations

from typing import Literal

import torch

Dtype = Literal["auto", "bf16", "fp32"]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def compute_dtype(choice: Dtype, device: torch.device | str = "cpu") -> torch.dtype:
    """The compute dtype; weights and their optimiser stay in fp32 whatever it is."""
    if choice != "auto":
        return DTYPES[choice]
    if torch.device(device).type == "cuda":
        # never fp16: its gradients underflow without loss scaling
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    # AMX: 1.5 to 1.7 times as fast as fp32 (docs/benchmarks.md); other CPUs have no units for bf16
    return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else torch.float32
