"""The sizes of a Llama, and the table of the paper's four (Llama 2 §2.2, Table 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Far above any model there is; what asks for more is a slip or an attack, and is told before anything is built.
MOST = {
    "dim": 2**17,
    "layers": 2**10,
    "heads": 2**12,
    "kv_heads": 2**12,
    "hidden": 2**20,
    "vocab": 2**24,
    "context": 2**24,
    "norm_eps": 1.0,
    "theta": 1e12,
}


def ffn_hidden(dim: int, multiple_of: int, multiplier: float | None = None) -> int:
    """SwiGLU's width: ⅔ of 4·dim, times the multiplier, rounded up to a multiple (Meta's reference code)."""
    # ⅔: SwiGLU has three matrices, so the parameters stay those of two at 4·dim (Shazeer 2020)
    hidden = int(2 * 4 * dim / 3)
    if multiplier is not None:
        hidden = int(multiplier * hidden)
    return multiple_of * ((hidden + multiple_of - 1) // multiple_of)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a Transformer is built from. `head` is "logits" (a language model) or "score" (reward model, critic)."""

    dim: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    vocab: int
    context: int = 4096
    norm_eps: float = 1e-5
    theta: float = 10000.0
    tied: bool = False
    head: Literal["logits", "score"] = "logits"

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            value = getattr(self, name)
            if not value > 0:  # NaN too
                raise ValueError(f"{name}: {value} is not positive")
            if value > most:
                raise ValueError(f"{name}: {value} is more than {most:,}")
        # rotary positions turn pairs, so a head's size is even
        if self.dim % self.heads or (self.dim // self.heads) % 2:
            raise ValueError(f"dim: {self.dim} does not split into {self.heads} heads of even size")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads: {self.heads} heads cannot share {self.kv_heads} key-value heads evenly")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def parameters(self) -> int:
        """L(2d² + 2·d·n_kv·d_h + 3·d·h + 2d) + embedding + head + d."""
        d = self.dim
        layer = 2 * d * d + 2 * d * self.kv_heads * self.head_dim + 3 * d * self.hidden + 2 * d
        head = d if self.head == "score" else 0 if self.tied else self.vocab * d
        return self.layers * layer + self.vocab * d + head + d


# Table 1; the paper is silent on widths: these are of the released weights, at 34B Code Llama's
SHAPES = {
    "7B": Shape(4096, 32, 32, 32, ffn_hidden(4096, 256), 32000),
    "13B": Shape(5120, 40, 40, 40, ffn_hidden(5120, 256), 32000),
    "34B": Shape(8192, 48, 64, 8, ffn_hidden(8192, 256), 32000),
    "70B": Shape(8192, 80, 64, 8, ffn_hidden(8192, 4096, 1.3), 32000),
}
