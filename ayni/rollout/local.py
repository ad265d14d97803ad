"""The engine in this process: a scheduler over a decode step of our own model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import replace

import torch
from torch import nn

from ayni.model.transformer import Transformer
from ayni.parallel import Ranks
from ayni.rollout.engine import Drawn, Request, Speaker, check_room, chunk_prompts
from ayni.rollout.scheduler import SLOTS, Scheduler
from ayni.text.tokenizer import Tokenizer


class LocalEngine:
    """Samples from `model` itself, or from a copy where its weights are not in its compute dtype.

    The copy is `decoder`: cast once per `sync`, not once per token.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, name: str = "", ranks: Ranks = Ranks()) -> None:
        self.model, self.tokenizer, self.name, self.ranks = model, tokenizer, name, ranks
        self.decoder = model
        self.sync(self)

    @property
    def context(self) -> int:
        return self.model.shape.context

    def sync(self, role: Speaker) -> None:
        """Sample from this role's weights as they are now."""
        model, copied, dtype = role.model, self.decoder, role.model.dtype
        if dtype in (None, model.head.dtype):
            self.decoder = model
        elif model is self.model is not copied and (copied.device, copied.head.dtype) == (model.device, dtype):
            with torch.no_grad():
                for ours, theirs in zip(copied.parameters(), model.parameters(), strict=True):
                    ours.copy_(theirs)
        else:
            self.decoder = _cast(model, dtype)
        self.model = model

    def generate(self, requests: Many[Request]) -> list[list[Drawn]]:
        """The answers of every request, chunk by chunk: the same requests give the same bits."""
        for i, request in enumerate(requests):
            check_room(len(request.tokens), self.context, f"prompt {i}")
        found: list[list[Drawn]] = []
        size = chunk_prompts(max([1, *(len(request.seeds) for request in requests)]))
        for start in range(0, len(requests), size):
            found += self._chunk(requests[start : start + size])
        return found

    def _chunk(self, requests: Many[Request]) -> list[list[Drawn]]:
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


def _cast(model: Transformer, dtype: torch.dtype) -> Transformer:
    """A copy in `dtype`, weight by weight: never a second one in the model's own."""
    weights = {id(p): nn.Parameter(p.detach().to(dtype), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, weights)  # a memo: takes these where it meets the model's own
