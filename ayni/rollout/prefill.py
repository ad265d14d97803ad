"""Reading prompts: one pass over all of them, which leaves their keys and values and every first token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ayni.model.layout import Layout
from ayni.model.rounding import hidden_states
from ayni.rollout.decoder import Decoder
from ayni.rollout.engine import Request
from ayni.rollout.prefixes import NONE, Prefixes
from ayni.rollout.sampling import Sampling, choose, uniforms, ways_of

AT_ONCE = 128  # tokens: what lies between two products stays in a core's cache


@dataclass(frozen=True, eq=False)
class Prefill:
    """Prompts that have been read: their lengths, keys and values as rows (N, KV, longest, d) per layer."""

    lengths: list[int]
    keys: list[Tensor]
    values: list[Tensor]

    @property
    def longest(self) -> int:
        return max(self.lengths)


class _Remembered:
    """A layout that remembers the keys and values it attended over."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.positions = layout, layout.positions
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        lengths = layout.offsets.diff()
        rows = torch.arange(len(lengths), device=lengths.device)
        self._rows = torch.repeat_interleave(rows, lengths, output_size=len(layout.positions))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        lengths = self.layout.lengths
        for store, x in ((self.keys, k), (self.values, v)):
            rows = x.new_zeros(len(lengths), x.shape[1], max(lengths), x.shape[2])
            rows[self._rows, :, self.positions] = x
            store.append(rows)
        return self.layout.attend(layer, q, k, v)


def read(model: Decoder, prompts: Sequence[Sequence[int]], known: Prefixes = NONE) -> tuple[Prefill, Tensor]:
    """The prompts, read, and the logits behind their last tokens (N, V). Of what is `known` a core by itself reads no
    token again; its bits are the same."""
    lengths = [len(prompt) for prompt in prompts]
    if model.alone:
        return _read_alone(model, prompts, lengths, known)
    layout = _Remembered(Layout.of(lengths, model.device))
    tokens = torch.tensor([token for prompt in prompts for token in prompt], device=model.device)
    logits = model.logits(hidden_states(model, tokens, layout, model.dtype, layout.layout.ends))
    return Prefill(lengths, layout.keys, layout.values), logits


def _read_alone(
    model: Decoder, prompts: Sequence[Sequence[int]], lengths: list[int], known: Prefixes
) -> tuple[Prefill, Tensor]:
    shape = model.shape
    size = (len(prompts), shape.kv_heads, max(lengths), shape.head_dim)
    keys, values = ([torch.zeros(size, dtype=model.dtype) for _ in range(shape.layers)] for _ in range(2))
    unread = []
    for row, prompt in enumerate(prompts):
        begin = known.put(prompt[:-1], [x[row] for x in (*keys, *values)])
        unread += [(prompt[at], row, at) for at in range(begin, len(prompt) - 1)]
    last = [(prompt[-1], row, len(prompt) - 1) for row, prompt in enumerate(prompts)]

    def logits_of(rows: list[tuple[int, int, int]], asked: int | None = None) -> list[Tensor]:
        pieces = [torch.tensor(rows[start : start + AT_ONCE]).t() for start in range(0, len(rows), AT_ONCE)]
        return [
            model.step(token, keys, values, slot, at, asked) for token, slot, at in (x.contiguous() for x in pieces)
        ]

    logits_of(unread, asked=0)
    return Prefill(lengths, keys, values), torch.cat(logits_of(last))


@dataclass(frozen=True)
class Begun:
    """A sample whose prompt is read and whose first token is drawn: what a slot takes in."""

    request: Request
    prefill: Prefill
    row: int  # of its prompt in the prefill
    seed: int
    limit: int  # tokens at which it ends
    token: int
    logprob: float

    @property
    def length(self) -> int:
        """Of the prompt."""
        return len(self.request.tokens)

    @property
    def sampling(self) -> Sampling:
        return self.request.sampling


def begin(
    model: Decoder, requests: Sequence[Request], context: int, at_once: int, known: Prefixes = NONE
) -> list[list[Begun]]:
    """The samples of every request, one per seed; their first tokens are drawn `at_once` at a time.

    One host round trip. Raises ValueError without a request or a seed.
    """
    device = model.device
    prefill, logits = read(model, [request.tokens for request in requests], known)
    wanted = [(row, seed, r.sampling) for row, r in enumerate(requests) for seed in r.seeds]
    found = []
    for start in range(0, len(wanted), at_once):
        rows, seeds, samplings = zip(*wanted[start : start + at_once], strict=True)
        seed = torch.tensor(seeds, device=device)
        temperatures = torch.tensor([s.temperature for s in samplings], dtype=torch.float64, device=device)
        top_p = torch.tensor([s.top_p for s in samplings], dtype=torch.float64, device=device)
        uniform = uniforms(seed, torch.zeros_like(seed))
        drawn = choose(logits[torch.tensor(rows, device=device)], uniform, temperatures, top_p, ways_of(samplings))
        found.append(torch.stack([x.double() for x in drawn]))  # exact for any token
    out: list[list[Begun]] = [[] for _ in requests]
    for (row, number, sampling), token, logprob in zip(wanted, *torch.cat(found, 1).tolist(), strict=True):
        limit = min(sampling.max_tokens, context - len(requests[row].tokens))
        out[row].append(Begun(requests[row], prefill, row, number, limit, int(token), logprob))
    return out
