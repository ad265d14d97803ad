"""Which sample decodes in which slot: samples wait, take a slot, and leave it to the next one.

K samples of a prompt share its prefill. Requests may come while others are on their way. The order of samples in
slots depends on the requests and on what was drawn alone, so the same requests give the same bits.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from ayni.errors import BadNumbers
from ayni.model.layout import STRIDE
from ayni.rollout.decode import DecodeState, admit, decode_step, grown, kept, no_slots
from ayni.rollout.decoder import Decoder
from ayni.rollout.engine import Drawn, Request, check_room
from ayni.rollout.prefill import Begun, begin
from ayni.rollout.prefixes import NONE, Prefixes
from ayni.rollout.sampling import ways_of

SLOTS = 256  # rows decoded together


class Finished(NamedTuple):
    """Answer k of a request."""

    id: int
    k: int
    drawn: Drawn


class _Waiting(NamedTuple):
    id: int
    k: int
    begun: Begun


@dataclass
class _Running:
    id: int
    k: int
    request: Request
    count: int = 1  # tokens drawn

    @property
    def length(self) -> int:
        """Of what is read when the newest token is."""
        return len(self.request.tokens) + self.count


class Scheduler:
    """Answers requests with one model, in at most `slots` slots; prompt and answer have `context` tokens together.

    An answer ends with EOS, or with one of the tokens `stops`. What is `known` of prompts is not read again; what
    prompts and answers leave is `kept`, where somebody will ask for it.
    """

    def __init__(
        self,
        model: Decoder,
        eos: int,
        context: int,
        slots: int = SLOTS,
        stops: Collection[int] = (),
        known: Prefixes = NONE,
        kept: Prefixes | None = None,
    ) -> None:
        self.model, self.eos, self.context, self.slots = model, eos, context, slots
        self.known, self.kept = known, kept
        self.ends = {eos, *stops}
        self._stops = torch.tensor(sorted(stops), device=model.device) if stops else None
        self._ids = itertools.count()
        self._arrived: list[tuple[int, Request]] = []
        self._waiting: deque[_Waiting] = deque()
        self._owners: list[_Running | None] = []  # of each slot of the state
        self._state: DecodeState | None = None
        self._length = self._limit = 0  # the longest sequence and answer to make room for

    def submit(self, requests: Sequence[Request]) -> list[int]:
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

        Returns the answers that ended: one host round trip a step, and only where some did two more, to read them.
        """
        ended = [] if self._arrived else self._decode()
        if self._arrived:
            self._begin()
        ended += self._fill()
        self._shrink()
        for end in ended:
            if not math.isfinite(sum(end.drawn.logprobs)):
                raise BadNumbers("the model's numbers overflow: what it samples means nothing")
        return ended

    def so_far(self) -> dict[tuple[int, int], list[int]]:
        """The tokens of every sample on its way, by (id, k)."""
        return {(owner.id, owner.k): tokens for owner, tokens, _ in self._drawn(self._busy())}

    def _begin(self) -> None:
        begun = begin(self.model, [request for _, request in self._arrived], self.context, self.slots, self.known)
        for (id, _), samples in zip(self._arrived, begun, strict=True):
            self._waiting += [_Waiting(id, k, sample) for k, sample in enumerate(samples)]
            self._limit = max(self._limit, samples[0].limit)
            self._length = max(self._length, samples[0].length + samples[0].limit)
        self._arrived = []

    def _busy(self) -> list[tuple[int, _Running]]:
        return [(slot, owner) for slot, owner in enumerate(self._owners) if owner is not None]

    def _decode(self) -> list[Finished]:
        busy = self._busy()
        if self._state is None or not busy:
            return []
        needed = max(owner.length for _, owner in busy)
        # a stride at a time: few shapes, as in training (ayni.model.rounding)
        columns = min(-(-needed // STRIDE) * STRIDE, self._state.keys[0].shape[2])
        self._state = decode_step(self.model, replace(self._state, columns=columns), self.eos, self._stops)
        going_on = self._state.active.tolist()
        for _, owner in busy:
            owner.count += 1
        ended = [(slot, owner) for slot, owner in busy if not going_on[slot]]
        drawn = self._drawn(ended)
        for (slot, _), (owner, tokens, _) in zip(ended, drawn, strict=True):
            self._owners[slot] = None
            if self.kept is not None:  # the last token is drawn, not read
                read = [x[slot] for x in (*self._state.keys, *self._state.values)]
                self.kept.keep((*owner.request.tokens, *tokens[:-1]), read)
        return [Finished(owner.id, owner.k, Drawn(tokens, logprobs)) for owner, tokens, logprobs in drawn]

    def _drawn(self, slots: list[tuple[int, _Running]]) -> list[tuple[_Running, list[int], list[float]]]:
        """What was drawn in these slots."""
        if self._state is None or not slots:
            return []
        rows = torch.tensor([slot for slot, _ in slots], device=self.model.device)
        longest = max(owner.count for _, owner in slots)
        read = (x[rows, :longest].tolist() for x in (self._state.tokens, self._state.logprobs))
        return [
            (owner, tokens[: owner.count], logprobs[: owner.count])
            for (_, owner), tokens, logprobs in zip(slots, *read, strict=True)
        ]

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
                id, k, begun = self._waiting.popleft()
                if begun.token in self.ends or begun.limit <= 1:
                    ended.append(Finished(id, k, Drawn([begun.token], [begun.logprob])))
                    left.append(slot)
                else:
                    self._owners[slot], taken[slot] = _Running(id, k, begun.request), begun
            free = left
        if taken:
            admit(state, list(taken), list(taken.values()))
        samplings = [owner.request.sampling for _, owner in self._busy()]
        penalise = any(sampling.repetition_penalty != 1 for sampling in samplings)
        self._state = replace(state, ways=ways_of(samplings), penalise=penalise)
        return ended

    def _room(self) -> DecodeState:
        """The state, with a slot for every sample where there may be, and with room for the longest."""
        state = self._state
        if state is None:
            begun = self._waiting[0].begun
            state = no_slots(self.model.shape, begun.prefill.keys[0].dtype, self.model.device)
        slots = max(len(self._owners), min(self.slots, len(self._busy()) + len(self._waiting)))
        room = (len(self._owners), state.keys[0].shape[2], state.tokens.shape[1] - 1)
        if any(need > there for need, there in zip((slots, self._length, self._limit), room, strict=True)):
            state = grown(state, slots, self._length, self._limit)
            self._owners += [None] * (slots - len(self._owners))
        return state

    def _shrink(self) -> None:
        """Where nothing waits and at most half the slots are busy, goes on with the busy half; with none, lets go."""
        busy = [slot for slot, _ in self._busy()]
        if self._waiting or self._state is None or len(busy) > len(self._owners) // 2:
            return
        self._state = kept(self._state, busy) if busy else None
        self._owners = [self._owners[slot] for slot in busy]
        if not busy:
            self._length = self._limit = 0
