"""Keys and values of what was read so far: the context a Transformer decodes in."""

from __future__ import annotations

import torch
from torch import Tensor

from ayni.model.attention import plain_attention
from ayni.model.layout import STRIDE, Layout
from ayni.model.shape import Shape


class Prefill:
    """A layout that remembers the keys and values it attended over, as rows (N, KV, longest, d) per layer."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.positions = layout, layout.positions
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        lengths = layout.offsets.diff()
        self.longest = max(layout.lengths)
        self._rows = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        for store, x in ((self.keys, k), (self.values, v)):
            rows = x.new_zeros(len(self.layout.lengths), x.shape[1], self.longest, x.shape[2])
            rows[self._rows, :, self.positions] = x
            store.append(rows)
        return self.layout.attend(layer, q, k, v)


class Cache:
    """Slots of keys and values, (slots, KV, length, d) per layer; `positions` (slots,) is where each writes next."""

    def __init__(self, shape: Shape, slots: int, length: int, dtype: torch.dtype, device: torch.device) -> None:
        size = (slots, shape.kv_heads, length, shape.head_dim)
        self.keys = [torch.zeros(size, dtype=dtype, device=device) for _ in range(shape.layers)]
        self.values = [torch.zeros(size, dtype=dtype, device=device) for _ in range(shape.layers)]
        self.positions = torch.zeros(slots, dtype=torch.long, device=device)
        self.longest = 0

    def admit(self, slots: Tensor, prefill: Prefill, prompts: Tensor) -> None:
        """Put prefilled prompts (rows of the prefill) into slots, both (n,)."""
        for layer, (keys, values) in enumerate(zip(prefill.keys, prefill.values, strict=True)):
            self.keys[layer][slots, :, : prefill.longest] = keys[prompts]
            self.values[layer][slots, :, : prefill.longest] = values[prompts]
        self.positions[slots] = prefill.layout.offsets.diff()[prompts]

    def keep(self, slots: Tensor) -> None:
        """Only these slots, renumbered in this order."""
        self.keys = [k[slots] for k in self.keys]
        self.values = [v[slots] for v in self.values]
        self.positions = self.positions[slots]

    def begin_step(self) -> None:
        """Call before a forward pass over one token per slot."""
        needed = int(self.positions.max()) + 1
        # a stride at a time: few shapes, as in training (ayni.model.rounding)
        self.longest = min(-(-needed // STRIDE) * STRIDE, self.keys[0].shape[2])
        columns = torch.arange(self.longest, device=self.positions.device)
        unseen = (columns > self.positions.unsqueeze(1)).view(-1, 1, 1, 1, self.longest)
        self._bias = torch.zeros_like(unseen, dtype=self.keys[0].dtype).masked_fill_(unseen, float("-inf"))
        self._slots = torch.arange(len(self.positions), device=self.positions.device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One token per slot: q (slots, H, d), k and v (slots, KV, d) → (slots, H, d)."""
        keys, values = self.keys[layer], self.values[layer]
        keys[self._slots, :, self.positions] = k
        values[self._slots, :, self.positions] = v
        seen = slice(0, self.longest)
        return plain_attention(q.unsqueeze(2), keys[:, :, seen], values[:, :, seen], self._bias).squeeze(2)
