"""The engine in this process: a scheduler over a decode step of our own model."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from ayni.cores import cores, side_by_side
from ayni.errors import BadInput
from ayni.model.compute import METER, of_tokens
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.model_directory import load_model
from ayni.parallel import Ranks
from ayni.rollout.decoder import SMALL, Decoder
from ayni.rollout.engine import Drawn, Request, check_room, chunk_prompts
from ayni.rollout.prefixes import NONE, Prefixes
from ayni.rollout.scheduler import SLOTS, Scheduler
from ayni.run import name_of
from ayni.text.tokenizer import Tokenizer

ROWS = 32  # samples that keep a core busy by themselves
NATIVE_ROWS = 8  # where a step is one call


class LocalEngine:
    """Samples from the role's weights, laid out anew at every `sync` (ayni.rollout.decoder), not at every token."""

    def __init__(self, role: Role, tokenizer: Tokenizer, name: str = "", ranks: Ranks = Ranks()) -> None:
        self.role, self.tokenizer, self.name, self.ranks = role, tokenizer, name, ranks
        self.decoder = Decoder(role.model)
        self._known = NONE  # what the call before has left, where it was asked to

    def alone(self) -> LocalEngine:
        """An engine of the same weights that no other rank shares: for who asks by itself, a person at a page, say."""
        other = copy.copy(self)
        other.ranks = Ranks()
        return other

    @property
    def context(self) -> int:
        return self.role.context

    def sync(self, role: Role) -> None:
        """Sample from this role's weights as they are now."""
        if (role.model.shape, role.device) == (self.decoder.shape, self.decoder.device):
            self.decoder.read(role.model)
        else:
            self.decoder = Decoder(role.model)
        self.role, self._known = role, NONE

    def generate(self, requests: Sequence[Request], keep: bool = False) -> list[list[Drawn]]:
        """The answers of every request, chunk by chunk: the same requests give the same bits."""
        for i, request in enumerate(requests):
            check_room(len(request.tokens), self.context, f"prompt {i}")
        found: list[list[Drawn]] = []
        # rows of one matrix product change its last bits: the same chunks, the same samples
        size = chunk_prompts(max([1, *(len(request.seeds) for request in requests)]))
        kept = Prefixes() if keep and self.decoder.alone else None
        for start in range(0, len(requests), size):
            found += self._chunk(requests[start : start + size], kept)
        self._known = kept or NONE
        read = sum(len(request.tokens) for request in requests)
        METER.add(of_tokens(self.decoder.shape, read + sum(len(d.tokens) for drawn in found for d in drawn)))
        return found

    def _chunk(self, requests: Sequence[Request], kept: Prefixes | None) -> list[list[Drawn]]:
        threads = cores(self.role.device)
        rows = ROWS if self.decoder.native.compiled is None else NATIVE_ROWS
        parts = min(threads, sum(len(request.seeds) for request in requests) // rows)
        alone = parts == threads or self.decoder.bytes <= SMALL
        asked = _divided(requests, max(1, parts) if alone else 1)
        slots = SLOTS // len(asked)
        answered = side_by_side(lambda part: self._drawn(part, slots, kept), asked, alone=alone)
        # each part has some seeds of each request, in their order
        return [[drawn for part in answered for drawn in part[i]] for i in range(len(requests))]

    def _drawn(self, requests: Sequence[Request], slots: int, kept: Prefixes | None) -> list[list[Drawn]]:
        (stops,) = {request.stops for request in requests}
        scheduler = Scheduler(self.decoder, self.tokenizer.eos, self.context, slots, stops, self._known, kept)
        ids = scheduler.submit(requests)
        drawn: dict[tuple[int, int], Drawn] = {}
        while not scheduler.idle:
            drawn |= {(id, k): answer for id, k, answer in scheduler.step()}
        return [[drawn[id, k] for k in range(len(request.seeds))] for id, request in zip(ids, requests, strict=True)]

    def stream(self, request: Request) -> Iterator[int]:
        """The tokens of the answer of its first seed as they come, up to EOS (not yielded). It is kept: the question
        after it begins with all that was said."""
        kept = Prefixes() if self.decoder.alone else None
        scheduler = Scheduler(self.decoder, self.tokenizer.eos, self.context, slots=1, known=self._known, kept=kept)
        scheduler.submit([replace(request, seeds=request.seeds[:1])])
        count = 0
        while not scheduler.idle:
            ended = scheduler.step()
            (tokens,) = [end.drawn.tokens for end in ended] or scheduler.so_far().values()
            yield from (token for token in tokens[count:] if token != self.tokenizer.eos)
            count = len(tokens)
        self._known = kept or NONE


def _divided(requests: Sequence[Request], parts: int) -> list[list[Request]]:
    """The requests in parts of as many samples; each holds every request, most of them without a seed."""
    samples = [(i, seed) for i, request in enumerate(requests) for seed in request.seeds]
    # whole prompts where there are enough: what is cut is prefilled twice
    bounds = [len(samples) * part // parts for part in range(parts + 1)]
    divided = []
    for start, end in pairwise(bounds):
        seeds: list[list[int]] = [[] for _ in requests]
        for i, seed in samples[start:end]:
            seeds[i].append(seed)
        divided.append([replace(r, seeds=tuple(own)) for r, own in zip(requests, seeds, strict=True)])
    return divided


def load_engine(path: Path, placement: Placement = Placement(), name: str = "") -> LocalEngine:
    """A frozen language model that speaks, from its directory; named after it. Raises BadInput for a reward model."""
    model, tokenizer = load_model(path, expect="logits")
    return LocalEngine(Role(placement.freeze(model)), tokenizer, name or name_of(path), placement.ranks)


def load_reference(path: Path, engine: LocalEngine, placement: Placement) -> Role:
    """A model that stands still beside the engine's, and reads the same tokens; else BadInput."""
    reference = load_engine(path, placement)
    if reference.tokenizer.fingerprint != engine.tokenizer.fingerprint:
        what = f"its tokenizer is not {engine.name}'s, so it has no probability of the same answers"
        raise BadInput(what, path=path, field="reference")
    return reference.role


def load_compared(inputs: Mapping[str, Any], placement: Placement, suffix: str = "") -> dict[str, LocalEngine]:
    """The engines of `model` and of what it is held `against`, as far as they are given.

    `suffix` is what tells `model`, as it is asked here, from itself.
    """
    names = {role: name_of(inputs[role]) for role in ("model", "against") if inputs.get(role)}
    if suffix and "model" in names:
        names["model"] += f" {suffix}"
    return {role: load_engine(inputs[role], placement, name) for role, name in names.items()}
