"""What of a model a stage trains: all of it, or an adapter over its frozen trunk."""

from __future__ import annotations

import copy

from ayni.errors import BadInput
from ayni.model.adapters import Lora, adapter_of, copy_adapter, merged, with_adapter
from ayni.model.transformer import Transformer


def frozen_copy(model: Transformer) -> Transformer:
    """Its numbers as they are now, whatever becomes of it; an adapter's trunk is shared, as it never moves."""
    copied = copy.deepcopy(model) if adapter_of(model) is None else copy_adapter(model)
    return copied.requires_grad_(False)


def to_train(model: Transformer, lora: Lora | None, seed: int, *, keep: bool = False) -> Transformer:
    """A model whose trainable parameters are what `lora` says: None trains all of it, an adapter merged first.

    A plain model gets a fresh adapter, seeded by `seed`; one with such an adapter goes on with it. `keep`: the model
    itself is left as it is, for a reference or a reward model beside what is trained from it. Raises BadInput for an
    adapter of other sizes.
    """
    before = adapter_of(model)
    if lora is None:
        if before is not None:
            return merged(model).requires_grad_(True)
        whole = (copy.deepcopy(model) if keep else model).requires_grad_(True)
        whole.base = None  # its weights are about to leave what their directory holds
        return whole
    if before is None:
        return with_adapter(model, lora, seed)
    if before != lora:
        targets = ", ".join(before.targets)
        what = f"the model has an adapter of rank {before.rank} and alpha {before.alpha:g} on {targets}"
        fix = "give the same lora settings to go on with it, or merge it first: ayni export"
        raise BadInput(what, field="lora", fix=fix)
    return copy_adapter(model) if keep else model
