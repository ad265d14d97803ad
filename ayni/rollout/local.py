"""The engine in this process: a scheduler over a decode step of our own model."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.model.transformer import Transformer
from ayni.model_directory import load_model, name_of
from ayni.parallel import Ranks
from ayni.rollout.engine import Drawn, Request, check_room, chunk_prompts
from ayni.rollout.scheduler import SLOTS, Scheduler
from ayni.text.tokenizer import Tokenizer


class LocalEngine:
    """Samples from the role's model itself, or from a copy where its weights are not in its compute dtype.

    The copy is `decoder`: cast once per `sync`, not once per token.
    """

    def __init__(self, role: Role, tokenizer: Tokenizer, name: str = "", ranks: Ranks = Ranks()) -> None:
        self.role, self.tokenizer, self.name, self.ranks = role, tokenizer, name, ranks
        self.decoder = role.model
        self.sync(role)

    def alone(self) -> LocalEngine:
        """An engine of the same weights that no other rank shares: for who asks by itself, a person at a page, say."""
        return LocalEngine(self.role, self.tokenizer, self.name)

    @property
    def context(self) -> int:
        return self.role.context

    def sync(self, role: Role) -> None:
        """Sample from this role's weights as they are now."""
        model, copied, dtype = role.model, self.decoder, role.model.dtype
        if dtype in (None, model.head.dtype):
            self.decoder = model
        elif model is self.role.model is not copied and (copied.device, copied.head.dtype) == (model.device, dtype):
            with torch.no_grad():
                for ours, theirs in zip(copied.parameters(), model.parameters(), strict=True):
                    # into the same memory: what sampled before goes on with new numbers
                    ours.copy_(theirs)
        else:
            self.decoder = _cast(model, dtype)
        self.role = role

    def generate(self, requests: Sequence[Request]) -> list[list[Drawn]]:
        """The answers of every request, chunk by chunk: the same requests give the same bits."""
        for i, request in enumerate(requests):
            check_room(len(request.tokens), self.context, f"prompt {i}")
        found: list[list[Drawn]] = []
        # rows of one matrix product change its last bits: the same chunks, the same samples
        size = chunk_prompts(max([1, *(len(request.seeds) for request in requests)]))
        for start in range(0, len(requests), size):
            found += self._chunk(requests[start : start + size])
        return found

    def _chunk(self, requests: Sequence[Request]) -> list[list[Drawn]]:
        scheduler = Scheduler(self.decoder, self.tokenizer.eos, self.context, SLOTS)
        ids = scheduler.submit(requests)
        drawn: dict[tuple[int, int], Drawn] = {}
        while not scheduler.idle:
            drawn |= {(id, k): answer for id, k, answer in scheduler.step()}
        return [[drawn[id, k] for k in range(len(request.seeds))] for id, request in zip(ids, requests, strict=True)]

    def stream(self, request: Request) -> Iterator[int]:
        """The tokens of the answer of its first seed as they come, up to EOS (not yielded)."""
        scheduler = Scheduler(self.decoder, self.tokenizer.eos, self.context, slots=1)
        scheduler.submit([replace(request, seeds=request.seeds[:1])])
        count = 0
        while not scheduler.idle:
            ended = scheduler.step()
            (tokens,) = [end.drawn.tokens for end in ended] or scheduler.so_far().values()
            yield from (token for token in tokens[count:] if token != self.tokenizer.eos)
            count = len(tokens)


def load_engine(path: Path, placement: Placement = Placement(), name: str = "") -> LocalEngine:
    """A frozen language model that speaks, from its directory; named after it. Raises BadInput for a reward model."""
    model, tokenizer = load_model(path, expect="logits")
    return LocalEngine(Role(placement.freeze(model)), tokenizer, name or name_of(path), placement.ranks)


def _cast(model: Transformer, dtype: torch.dtype) -> Transformer:
    """A copy in `dtype`, weight by weight: never a second one in the model's own."""
    weights = {id(p): nn.Parameter(p.detach().to(dtype), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, weights)  # a memo: takes these where it meets the model's own
