"""From a language model to the start of a reward model: the same trunk, one fresh scalar head (paper §3.2.2)."""

from __future__ import annotations

from dataclasses import replace

import torch

from ayni.errors import BadInput
from ayni.model.adapters import SCORE, adapted, adapter_of, adapter_tensors
from ayni.model.transformer import Transformer


def with_score_head(model: Transformer, seed: int) -> Transformer:
    """A copy of the trunk under a head drawn from N(0, 1/√(D+1)), no bias (departure 23).

    Of a model with an adapter only that is copied; the trunk stays shared and frozen, and the head is at least fp32.
    Raises BadInput for a model that scores already: its head would be lost.
    """
    shape = model.shape
    if shape.head == "score":
        raise BadInput("the model is a reward model already", fix="start from a language model")
    generator = torch.Generator().manual_seed(seed)
    # 1/√(D+1): scores of normed states begin with a deviation near 1
    head = torch.empty(1, shape.dim).normal_(0, (shape.dim + 1) ** -0.5, generator=generator)
    if (lora := adapter_of(model)) is not None:
        return adapted(model, lora, {**adapter_tensors(model), SCORE: head})
    with torch.device("meta"):
        copy = Transformer(replace(shape, head="score", tied=False))
    dropped = {"output.weight"}
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items() if name not in dropped}
    state[SCORE] = head.to(model.device, model.head.dtype)
    copy.load_state_dict(state, assign=True)
    copy.dtype = model.dtype
    return copy
