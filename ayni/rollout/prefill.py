"""Reading prompts: one forward pass over all of them, which leaves their keys and values and every first token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ayni.model.layout import Layout
from ayni.model.rounding import hidden_states
from ayni.rollout.decoder import Decoder
from ayni.rollout.engine import Request
from ayni.rollout.sampling import Sampling, choose, uniforms, ways_of


class Prefill:
    """A layout that remembers the keys and values it attended over, as rows (N, KV, longest, d) per layer."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.positions = layout, layout.positions
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.longest = max(layout.lengths)
        lengths = layout.offsets.diff()
        rows = torch.arange(len(lengths), device=lengths.device)
        self._rows = torch.repeat_interleave(rows, lengths, output_size=len(layout.positions))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        for store, x in ((self.keys, k), (self.values, v)):
            rows = x.new_zeros(len(self.layout.lengths), x.shape[1], self.longest, x.shape[2])
            rows[self._rows, :, self.positions] = x
            store.append(rows)
        return self.layout.attend(layer, q, k, v)


@dataclass(frozen=True)
class Begun:
    """A sample whose prompt is read and whose first token is drawn: what a slot takes in."""

    prefill: Prefill
    row: int  # of its prompt in the prefill
    seed: int
    sampling: Sampling
    limit: int  # tokens at which it ends
    token: int
    logprob: float

    @property
    def length(self) -> int:
        """Of the prompt."""
        return self.prefill.layout.lengths[self.row]


def begin(model: Decoder, requests: Sequence[Request], context: int, at_once: int) -> list[list[Begun]]:
    """The samples of every request, one per seed; their first tokens are drawn `at_once` at a time.

    One host round trip. Raises ValueError without a request or a seed.
    """
    device = model.device
    prefill = Prefill(Layout.of([len(r.tokens) for r in requests], device))
    prompts = torch.tensor([token for r in requests for token in r.tokens], device=device)
    logits = model.logits(hidden_states(model, prompts, prefill, model.dtype, prefill.layout.ends))
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
        out[row].append(Begun(prefill, row, number, sampling, limit, int(token), logprob))
    return out
