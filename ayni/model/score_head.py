"""From a language model to the start of a reward model: the same trunk, one fresh scalar head (paper §3.2.2)."""

from __future__ import annotations

from dataclasses import replace

import torch

from ayni.errors import BadInput
from ayni.model.transformer import Transformer


def with_score_head(model: Transformer, seed: int) -> Transformer:
    """A copy of the trunk under a head drawn from N(0, 1/√(D+1)), no bias (RECIPE §7, pitfall 9).

    Raises BadInput for a model that scores already: its head would be lost.
    """
    shape = model.shape
    if shape.head == "score":
        raise BadInput("the model is a reward model already", fix="start from a language model")
    with torch.device("meta"):
        copy = Transformer(replace(shape, head="score", tied=False))
    dropped = {"output.weight"}
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items() if name not in dropped}
    generator = torch.Generator().manual_seed(seed)
    head = torch.empty(1, shape.dim).normal_(0, (shape.dim + 1) ** -0.5, generator=generator)
    state["score.weight"] = head.to(model.device, model.head.dtype)
    copy.load_state_dict(state, assign=True)
    copy.dtype = model.dtype
    return copy
