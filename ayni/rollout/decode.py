"""Decoding on the device: a state of slots, and the step that draws one token more in each of them.

A step never reads a tensor back to the host; what shapes and kernels depend on (`columns`, `ways`) the host knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as _attention

from ayni.model.rounding import hidden_states
from ayni.model.shape import Shape
from ayni.rollout.decoder import Decoder
from ayni.rollout.prefill import Begun
from ayni.rollout.sampling import Way, choose, penalised, uniforms


@dataclass(frozen=True)
class DecodeState:
    """S slots, each with a sample on its way or idle.

    The state owns its buffers: a step writes `keys`, `values`, `tokens` and `logprobs` in place, so the state that it
    was given is spent. The last column of `tokens` and `logprobs` takes what idle slots draw.
    """

    keys: tuple[Tensor, ...]  # (S, KV, length, d) per layer
    values: tuple[Tensor, ...]
    positions: Tensor  # (S,) where the current token stands
    current: Tensor  # (S,) the newest token, which the model has not read
    seeds: Tensor  # (S,)
    steps: Tensor  # (S,) tokens drawn so far
    temperatures: Tensor  # (S,) fp64
    top_p: Tensor  # (S,) fp64
    penalties: Tensor  # (S,) fp64, of tokens that a sample holds already
    limits: Tensor  # (S,) tokens at which a sample ends
    active: Tensor  # (S,) whether a sample is on its way
    tokens: Tensor  # (S, limit + 1) what was drawn
    logprobs: Tensor  # (S, limit + 1)
    columns: int = 0  # of keys to attend to: beyond every position
    ways: frozenset[Way] = frozenset()  # of the samples on their way
    penalise: bool = False  # whether one of them has a penalty


def decode_step(model: Decoder, state: DecodeState, eos: int, stops: Tensor | None = None) -> DecodeState:
    """One token more in every active slot, without a host round trip; EOS ends a sample, and each of `stops` (E,)."""
    uniform, by = uniforms(state.seeds, state.steps), None
    held = (state.keys, state.values, state.positions, state.active, state.columns)
    logits = next_logits(model, state.current, *held)
    if state.penalise:
        by = penalised(logits, state.tokens, state.steps, state.penalties)
    tokens, logprobs = choose(logits, uniform, state.temperatures, state.top_p, state.ways, by)
    place = torch.where(state.active, state.steps, state.tokens.shape[1] - 1).unsqueeze(1)
    state.tokens.scatter_(1, place, tokens.unsqueeze(1))
    state.logprobs.scatter_(1, place, logprobs.unsqueeze(1))
    steps = state.steps + 1
    active = state.active & (tokens != eos) & (steps < state.limits)
    if stops is not None:
        active = active & ~torch.isin(tokens, stops)
    return replace(state, positions=state.positions + 1, current=tokens, steps=steps, active=active)


def next_logits(
    model: Decoder,
    current: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    positions: Tensor,
    active: Tensor,
    columns: int,
) -> Tensor:
    """Of the token after the `current` one (S,), which stands at `positions` (S,), in every slot: (S, V).

    Those of slots that are not `active` (S,) mean nothing. All positions lie within the first `columns`.
    """
    positions = positions.masked_fill(~active, 0)
    if not model.alone:
        slots = Slots(keys, values, positions, columns)
        return model.logits(hidden_states(model, current, slots, model.dtype))
    busy = active.nonzero().squeeze(1)  # a host round trip costs nothing on a CPU
    logits = model.step(current[busy], keys, values, busy, positions[busy])
    if len(busy) == len(active):
        return logits
    return logits.new_zeros(len(active), logits.shape[1]).index_copy(0, busy, logits)


class Slots:
    """The context of one token per slot, at `positions` (S,): it sees its slot's columns up to its own.

    All positions lie within the first `columns` columns.
    """

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor], positions: Tensor, columns: int) -> None:
        self.keys, self.values, self.positions, self.columns = keys, values, positions, columns
        unseen = torch.arange(columns, device=positions.device) > positions.unsqueeze(1)
        unseen = unseen.view(-1, 1, 1, columns)
        self._bias = torch.zeros_like(unseen, dtype=keys[0].dtype).masked_fill_(unseen, float("-inf"))
        self._slots = torch.arange(len(positions), device=positions.device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (S, H, d), k and v (S, KV, d) → (S, H, d)."""
        keys, values = self.keys[layer], self.values[layer]
        keys[self._slots, :, self.positions] = k
        values[self._slots, :, self.positions] = v
        keys, values = keys[:, :, : self.columns], values[:, :, : self.columns]
        if q.dtype == torch.bfloat16:
            return _attention(q.unsqueeze(2), keys, values, self._bias, enable_gqa=True).squeeze(2)
        # query heads that share keys as rows of one query: on a CPU 1.3 times as fast as the kernel's own way in fp32
        rows = q.unflatten(1, (keys.shape[1], -1))
        return _attention(rows, keys, values, self._bias).flatten(1, 2)


def no_slots(shape: Shape, dtype: torch.dtype, device: torch.device) -> DecodeState:
    """The state to grow from; `dtype` is that of keys and values."""
    cache = torch.zeros(0, shape.kv_heads, 0, shape.head_dim, dtype=dtype, device=device)
    whole = torch.zeros(0, dtype=torch.long, device=device)
    logprobs = torch.zeros(0, 1, dtype=torch.promote_types(dtype, torch.float32), device=device)
    return DecodeState(
        keys=(cache,) * shape.layers,
        values=(cache,) * shape.layers,
        positions=whole,
        current=whole,
        seeds=whole,
        steps=whole,
        temperatures=whole.double(),
        top_p=whole.double(),
        penalties=whole.double(),
        limits=whole,
        active=whole.bool(),
        tokens=whole.unsqueeze(1),
        logprobs=logprobs,
    )


def grown(state: DecodeState, slots: int, length: int, limit: int) -> DecodeState:
    """With at least so many slots, columns of keys and tokens an answer."""
    sizes = {1: (slots,), 2: (slots, limit + 1), 4: (slots, 0, length, 0)}  # by the number of axes

    def larger(x: Tensor) -> Tensor:
        out = x.new_zeros([max(pair) for pair in zip(x.shape, sizes[x.ndim], strict=True)])
        out[tuple(slice(size) for size in x.shape)] = x
        return out

    return _changed(state, larger)


def kept(state: DecodeState, slots: Sequence[int]) -> DecodeState:
    """Only these slots, renumbered in this order."""
    rows = torch.tensor(slots, device=state.active.device)
    return _changed(state, lambda x: x[rows])


def _changed(state: DecodeState, change: Callable[[Tensor], Tensor]) -> DecodeState:
    """The state with this done to every tensor."""
    found: dict[str, Any] = {}
    for field in fields(state):
        value = getattr(state, field.name)
        if isinstance(value, Tensor):
            found[field.name] = change(value)
        elif isinstance(value, tuple):
            found[field.name] = tuple(change(x) for x in value)
    return replace(state, **found)


def admit(state: DecodeState, slots: Sequence[int], samples: Sequence[Begun]) -> None:
    """Puts samples into slots: their prompts' keys and values, their first tokens, and what they draw by."""
    device = state.active.device
    for prefill in dict.fromkeys(sample.prefill for sample in samples):
        pairs = [(slot, sample.row) for slot, sample in zip(slots, samples, strict=True) if sample.prefill is prefill]
        places, rows = torch.tensor(pairs, device=device).unbind(1)
        for kept_here, read in ((state.keys, prefill.keys), (state.values, prefill.values)):
            for layer, x in enumerate(read):
                kept_here[layer][places, :, : prefill.longest] = x[rows]
    places = torch.tensor(slots, device=device)
    written: list[tuple[Tensor, list[Any]]] = [
        (state.positions, [sample.length for sample in samples]),
        (state.current, [sample.token for sample in samples]),
        (state.seeds, [sample.seed for sample in samples]),
        (state.steps, [1] * len(samples)),
        (state.temperatures, [sample.sampling.temperature for sample in samples]),
        (state.top_p, [sample.sampling.top_p for sample in samples]),
        (state.penalties, [sample.sampling.repetition_penalty for sample in samples]),
        (state.limits, [sample.limit for sample in samples]),
        (state.active, [True] * len(samples)),
        (state.tokens[:, 0], [sample.token for sample in samples]),
        (state.logprobs[:, 0], [sample.logprob for sample in samples]),
    ]
    for x, values in written:
        x[places] = torch.tensor(values, dtype=x.dtype, device=device)
