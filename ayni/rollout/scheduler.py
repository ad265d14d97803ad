"""Which sample decodes in which slot: samples wait, take a slot, and leave it to the next one.

K samples of a prompt share its prefill. Requests may come while others are on their way. The order of samples in
slots depends on the requests and on what was drawn alone, so the same requests give the same bits.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from ayni.model.layout import STRIDE
from ayni.model.transformer import Transformer
from ayni.rollout.decode import DecodeState, admit, decode_step, grown, kept, no_slots
from ayni.rollout.engine import Drawn, Request, check_room
from ayni.rollout.prefill import Begun, begin
from ayni.rollout.sampling import ways_of

SLOTS = 256  # rows decoded together


class Finished(NamedTuple):
    """Answer k of a request."""

    id: int
    k: int
    drawn: Drawn


@dataclass
class _Sample:
    id: int
    k: int
    begun: Begun
    count: int = 1  # tokens drawn


class Scheduler:
    """Answers requests with one model, in at most `slots` slots; prompt and answer have `context` tokens together."""

    def __init__(self, model: Transformer, eos: int, context: int, slots: int = SLOTS) -> None:
        self.model, self.eos, self.context, self.slots = model, eos, context, slots
        self._ids = itertools.count()
        self._arrived: list[tuple[int, Request]] = []
        self._waiting: deque[_Sample] = deque()
        self._owners: list[_Sample | None] = []  # of each slot of the state
        self._state: DecodeState | None = None
        self._length = self._limit = 0  # the longest sequence and answer to make room for

    def submit(self, requests: Many[Request]) -> list[int]:
        """Takes requests in and numbers them. Raises BadInput for a prompt that leaves no room."""
        for request in requests:
            check_room(len(request.tokens), self.context, "the prompt")
        ids = [next(self._ids) for _ in requests]
        self._arrived += [(id, request) for id, request in zip(ids, requests, strict=True) if request.seeds]
        return ids

    @property
    def idle(self) -> bool:
        """Whether every answer has been given."""
        return not (self._arrived or self._waiting or any(self._owners))

    @torch.no_grad()
    def step(self) -> list[Finished]:
        """One forward pass: over the prompts that arrived, or over one token of every sample on its way.

        Returns the answers that ended. One host round trip tells which, one more reads them.
        """
        ended = [] if self._arrived else self._decode()
        if self._arrived:
            self._begin()
        ended += self._fill()
        self._shrink()
        return ended

    def so_far(self) -> dict[tuple[int, int], list[int]]:
        """The tokens of every sample on its way, by (id, k)."""
        if self._state is None:
            return {}
        rows = zip(self._owners, self._state.tokens.tolist(), strict=True)
        return {(owner.id, owner.k): row[: owner.count] for owner, row in rows if owner is not None}

    def _begin(self) -> None:
        begun = begin(self.model, [request for _, request in self._arrived], self.context, self.slots)
        for (id, _), samples in zip(self._arrived, begun, strict=True):
            self._waiting += [_Sample(id, k, sample) for k, sample in enumerate(samples)]
            self._limit = max(self._limit, samples[0].limit)
            self._length = max(self._length, samples[0].length + samples[0].limit)
        self._arrived = []

    def _decode(self) -> list[Finished]:
        busy = [(slot, owner) for slot, owner in enumerate(self._owners) if owner is not None]
        if self._state is None or not busy:
            return []
        needed = max(owner.begun.length + owner.count for _, owner in busy)
        # a stride at a time: few shapes, as in training (ayni.model.rounding)
        columns = min(-(-needed // STRIDE) * STRIDE, self._state.keys[0].shape[2])
        self._state = decode_step(self.model, replace(self._state, columns=columns), self.eos)
        going_on = self._state.active.tolist()
        ended = []
        for slot, owner in busy:
            owner.count += 1
            if not going_on[slot]:
                ended.append((slot, owner))
        return self._read(ended)

    def _read(self, ended: list[tuple[int, _Sample]]) -> list[Finished]:
        """What was drawn in these slots, which are free now."""
        if not ended:
            return []
        assert self._state is not None
        rows = torch.tensor([slot for slot, _ in ended], device=self.model.device)
        longest = max(owner.count for _, owner in ended)
        tokens, logprobs = (x[rows, :longest].tolist() for x in (self._state.tokens, self._state.logprobs))
        found = []
        for (slot, owner), ids, said in zip(ended, tokens, logprobs, strict=True):
            self._owners[slot] = None
            found.append(Finished(owner.id, owner.k, Drawn(ids[: owner.count], said[: owner.count])))
        return found

    def _fill(self) -> list[Finished]:
        """Gives free slots to waiting samples. A sample that ended with its first token leaves at once again."""
        if not self._waiting:
            return []
        state = self._room()
        ended: list[Finished] = []
        taken: dict[int, Begun] = {}
        free = [slot for slot, owner in enumerate(self._owners) if owner is None]
        while free and self._waiting:
            left = []
            for slot in free[: len(self._waiting)]:
                sample = self._waiting.popleft()
                begun = sample.begun
                if begun.token == self.eos or begun.limit <= 1:
                    ended.append(Finished(sample.id, sample.k, Drawn([begun.token], [begun.logprob])))
                    left.append(slot)
                else:
                    self._owners[slot], taken[slot] = sample, begun
            free = left
        if taken:
            admit(state, list(taken), list(taken.values()))
        ways = ways_of(owner.begun.sampling for owner in self._owners if owner is not None)
        self._state = replace(state, ways=ways)
        return ended

    def _room(self) -> DecodeState:
        """The state, with a slot for every sample where there may be, and with room for the longest."""
        state = self._state
        if state is None:
            begun = self._waiting[0].begun
            state = no_slots(self.model.shape, begun.prefill.keys[0].dtype, self.model.device)
        busy = sum(owner is not None for owner in self._owners)
        slots = max(len(self._owners), min(self.slots, busy + len(self._waiting)))
        room = (len(self._owners), state.keys[0].shape[2], state.tokens.shape[1] - 1)
        if any(need > there for need, there in zip((slots, self._length, self._limit), room, strict=True)):
            state = grown(state, slots, self._length, self._limit)
            self._owners += [None] * (slots - len(self._owners))
        return state

    def _shrink(self) -> None:
        """Where nothing waits and at most half the slots are busy, goes on with the busy half; with none, lets go."""
        busy = [slot for slot, owner in enumerate(self._owners) if owner is not None]
        if self._waiting or self._state is None or len(busy) > len(self._owners) // 2:
            return
        self._state = kept(self._state, busy) if busy else None
        self._owners = [self._owners[slot] for slot in busy]
        if not busy:
            self._length = self._limit = 0
