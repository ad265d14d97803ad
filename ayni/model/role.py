"""A model as an algorithm sees it: policy, reference, critic and reward model have one face.

Behind it stands a whole model, or an adapter and a head on a frozen trunk that several roles share; objectives and
loops cannot tell. Columns are those of a Batch (ayni.train.batch).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ayni.model.heads import column_values, token_kl, token_logprobs
from ayni.model.layout import Layout
from ayni.model.rounding import hidden_states
from ayni.model.score_scale import Normalisation
from ayni.model.transformer import Transformer


class BatchLike(Protocol):
    """tokens (T,) · targets (T,) · mask (T,) bool, of which M are True · layout of N sequences: a Batch."""

    @property
    def tokens(self) -> Tensor: ...
    @property
    def targets(self) -> Tensor: ...
    @property
    def mask(self) -> Tensor: ...
    @property
    def layout(self) -> Layout: ...


@dataclass(frozen=True, eq=False, slots=True)
class Role:
    """Results are at least fp32, whatever the model computes in."""

    model: Transformer
    normalisation: Normalisation | None = None  # of a critic whose values are its head's output, normalised

    def logprobs(self, batch: BatchLike, temperature: float = 1.0) -> Tensor:
        """log π(target | what stands before it) at the masked columns: (M,)."""
        asked = batch.mask.nonzero().squeeze(1)
        return token_logprobs(self._hidden(batch, asked), self.model.head, batch.targets[asked], temperature)

    def divergence(self, batch: BatchLike, other: Role, temperature: float = 1.0) -> Tensor:
        """KL(other‖self) of the whole next-token distributions at the masked columns: (M,), no gradient for `other`."""
        asked = batch.mask.nonzero().squeeze(1)
        # the other one is where we were: it stands still
        with torch.no_grad():
            theirs = other._hidden(batch, asked)
        return token_kl(theirs, other.model.head, self._hidden(batch, asked), self.model.head, temperature)

    def values(self, batch: BatchLike) -> Tensor:
        """V before each masked target is sampled: (M,). Needs a scalar head."""
        # at the column before the token: V(s_t) may not have seen a_t
        values = column_values(self.model, self._hidden(batch, batch.mask.nonzero().squeeze(1)))
        return values if self.normalisation is None else self.normalisation(values)

    def scores(self, batch: BatchLike) -> Tensor:
        """The raw reward of every sequence, read at its last token: (N,). Needs a scalar head."""
        # at the end of the answer, EOS read: the score of all of it (§3.2.2)
        return column_values(self.model, self._hidden(batch, batch.layout.ends))

    def _hidden(self, batch: BatchLike, asked: Tensor) -> Tensor:
        """(M, D) of the columns asked (M,)."""
        return hidden_states(self.model, batch.tokens, batch.layout, self.dtype, asked)

    def idle(self) -> Tensor:
        """A zero that touches every parameter: what a rank with fewer micro-batches runs, so that none waits."""
        hidden = self.model(torch.zeros(1, dtype=torch.long, device=self.device), Layout.of([1], self.device))
        # both: the head is no part of the hidden states' graph
        return 0 * (hidden.sum() + self.model.head.sum())

    def replica(self) -> Role:
        """The same weights, not copies, with gradients of its own."""
        own = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in self.model.parameters()}
        return Role(copy.deepcopy(self.model, own), self.normalisation)

    def trainable(self) -> dict[str, nn.Parameter]:
        """By name: what an optimiser moves and a checkpoint keeps."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in; trained weights are fp32 beside it."""
        return self.model.dtype or self.model.tok_embeddings.weight.dtype

    @property
    def context(self) -> int:
        """The longest sequence it reads, in tokens."""
        return self.model.shape.context
