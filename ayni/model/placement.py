"""Where the models of a run compute, and in which number format: settled once at its start, read back on resume."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from ayni.model.native import passes
from ayni.model.precision import DTYPES, NAMES, Dtype, compute_dtype
from ayni.model.transformer import Transformer
from ayni.parallel import Ranks
from ayni.run import Run


@dataclass(frozen=True, slots=True)
class Placement:
    """The one place that casts and moves models: this process's device, and the dtype that all roles round alike in."""

    ranks: Ranks = Ranks()
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, run: Run, choice: Dtype) -> Placement:
        ranks = Ranks.current()
        # the first process's answer: a measurement may differ between them, the number format may not
        name = ranks.gather([NAMES[compute_dtype(choice, ranks.device)]])[0]
        kernels = "native" if passes(DTYPES[name]) is not None else "torch"
        # written down at the start: a run that resumes on another machine goes on in the same format
        settled = run.tuned(dtype=name, kernels=kernels)
        if settled["kernels"] != kernels:
            run.say(f"began with {settled['kernels']} kernels, goes on with {kernels}: last bits will differ")
        return cls(ranks, DTYPES[settled["dtype"]])

    def place(self, model: Transformer) -> Transformer:
        """On the device, computing in the dtype; weights stay fp32: they are trained, or read beside trained ones."""
        model.to(self.ranks.device).dtype = self.dtype
        # results do not hang on it, so it is no stage's setting and in no identity
        model.recompute = os.environ.get("AYNI_RECOMPUTE") == "1"
        return model

    def freeze(self, model: Transformer) -> Transformer:
        """As `place`, with the weights themselves in the dtype: for a model that only speaks."""
        return model.to(self.ranks.device, self.dtype).requires_grad_(False)
