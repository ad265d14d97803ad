"""Sequences become a Batch here, and nowhere else: the only shift, and no padding.

Column t speaks of predicting `targets[t]` after reading `tokens[..t]` of its own sequence. `targets`, `mask`,
`logprobs`, `values`, `advantages` all lie on that axis (T,). A sequence's last token stays in `tokens`; its target is
masked. The answers of a pair or a group share the columns of their prompt, which is read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Self, TypeVar

import torch
from torch import Tensor

from ayni.model.layout import Layout
from ayni.records import TokenSequence

E = TypeVar("E")
LEAST_ALIKE = 1 / 3  # of a sequence: to share less is not worth what sharing costs


@dataclass(frozen=True, slots=True)
class Batch:
    """tokens (T,) · targets (T,) · mask (T,) bool · layout."""

    tokens: Tensor
    targets: Tensor
    mask: Tensor
    layout: Layout

    def to(self, device: torch.device | str) -> Self:
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self)(**{k: v.to(device) if hasattr(v, "to") else v for k, v in moved.items()})


@dataclass(frozen=True, slots=True)
class PairBatch(Batch):
    """Sequences 2i chosen, 2i + 1 rejected. margin (P,); safe (N,) bool, which means something where `labelled` (N,);
    ref_logprobs (N,) are the reference's summed log-probs (zeros where the objective needs none); weight (P,);
    probability (P,) that the chosen one is better: 1, or a soft label."""

    margin: Tensor
    safe: Tensor
    labelled: Tensor
    ref_logprobs: Tensor
    weight: Tensor
    probability: Tensor


@dataclass(frozen=True, slots=True)
class Groups(Batch):
    """`size` candidates of one prompt side by side; rewards (N,)."""

    rewards: Tensor
    size: int


@dataclass(frozen=True, slots=True)
class Experience(Batch):
    """Sampled answers and what was remembered of them: all (T,), zero where mask is False. None where nobody said:
    reference log-probs without a reference, values and returns without a critic."""

    logprobs: Tensor
    advantages: Tensor
    ref_logprobs: Tensor | None
    values: Tensor | None
    returns: Tensor | None


@dataclass(frozen=True, slots=True)
class Pair:
    """One comparison as sequences."""

    chosen: TokenSequence
    rejected: TokenSequence
    margin: float = 0.0
    safe: tuple[bool | None, bool | None] = (None, None)
    ref_logprobs: tuple[float, float] = (0.0, 0.0)
    weight: float = 1.0
    probability: float = 1.0

    def __len__(self) -> int:
        return len(self.chosen.tokens) + len(self.rejected.tokens)


@dataclass(frozen=True, slots=True)
class Group:
    """Candidates of one prompt, and their rewards."""

    sequences: tuple[TokenSequence, ...]
    rewards: tuple[float, ...]

    def __len__(self) -> int:
        return sum(len(s.tokens) for s in self.sequences)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One sampled answer of an Experience; the tensors cover its own columns (n,)."""

    sequence: TokenSequence
    logprobs: Tensor
    advantages: Tensor
    ref_logprobs: Tensor | None = None
    values: Tensor | None = None
    returns: Tensor | None = None

    def __len__(self) -> int:
        return len(self.sequence.tokens)


def _columns(
    sequences: Sequence[TokenSequence], shared: Sequence[int] | None = None
) -> tuple[Tensor, Tensor, Tensor, Layout]:
    """Of each sequence the first `shared` tokens are columns of the last before it that shares none."""
    begins = [0] * len(sequences) if shared is None else shared
    layout = Layout.of([len(s.tokens) for s in sequences], shared=begins)
    tokens = torch.tensor([t for s, n in zip(sequences, begins, strict=True) for t in s.tokens[n:]])
    supervised = torch.tensor([m for s, n in zip(sequences, begins, strict=True) for m in s.mask[n:]])
    # THE shift: a column's target is the next token of its own sequence.
    # roll gives each end the next sequence's first token; the line below takes it away
    targets, mask = tokens.roll(-1), supervised.roll(-1)
    targets[layout.ends], mask[layout.ends] = 0, False
    return tokens, targets, mask, layout


def _by_group(sequences: Sequence[TokenSequence], size: int) -> list[int]:
    """Every `size` sequences after each other answer one prompt, whose columns they share."""
    shared: list[int] = []
    for i in range(0, len(sequences), size):
        shared += [0] + [_shared(sequences[i : i + size])] * (size - 1)
    return shared


def _alike(sequences: Sequence[TokenSequence]) -> list[int]:
    """A sequence that begins as the last before it that shares nothing, for LEAST_ALIKE of its length, shares that."""
    shared: list[int] = []
    leader = sequences[0]
    for sequence in sequences:
        begin = 0 if not shared else _shared([leader, sequence])
        if begin < LEAST_ALIKE * len(sequence.tokens):
            begin, leader = 0, sequence
        shared.append(begin)
    return shared


def _shared(answers: Sequence[TokenSequence]) -> int:
    """How many columns at the beginning are one for all: they read the same and predict nothing that is supervised."""
    first, *others = answers
    if not others:
        return 0
    # the column before an answer's first token predicts it; where nothing is supervised the last is the answer's own
    most = min(next((i for i, m in enumerate(s.mask) if m), len(s.mask)) - 1 for s in answers)
    shared = 0
    while shared < most and all(s.tokens[shared] == first.tokens[shared] for s in others):
        shared += 1
    return shared


def batch_of(sequences: Sequence[TokenSequence], *, alike: bool = False) -> Batch:
    """With `alike`, sequences that begin alike and stand beside each other share those columns."""
    return Batch(*_columns(sequences, _alike(sequences) if alike else None))


def pairs_of(pairs: Sequence[Pair]) -> PairBatch:
    both = [s for p in pairs for s in (p.chosen, p.rejected)]
    return PairBatch(
        *_columns(both, _by_group(both, 2)),
        # fp64 on the way: the objective casts to what its scores are in
        margin=torch.tensor([p.margin for p in pairs], dtype=torch.float64),
        safe=torch.tensor([bool(s) for p in pairs for s in p.safe]),
        # beside `safe`, where an unlabelled answer is False like an unsafe one
        labelled=torch.tensor([s is not None for p in pairs for s in p.safe]),
        ref_logprobs=torch.tensor([r for p in pairs for r in p.ref_logprobs], dtype=torch.float64),
        weight=torch.tensor([p.weight for p in pairs], dtype=torch.float64),
        probability=torch.tensor([p.probability for p in pairs], dtype=torch.float64),
    )


def groups_of(groups: Sequence[Group]) -> Groups:
    # one size: rankings run over a (G, K) block
    sizes = {len(g.sequences) for g in groups}
    if len(sizes) != 1:
        raise ValueError(f"groups of different sizes {sorted(sizes)} cannot share a batch")
    (size,) = sizes
    members = [s for g in groups for s in g.sequences]
    return Groups(
        *_columns(members, _by_group(members, size)),
        rewards=torch.tensor([r for g in groups for r in g.rewards], dtype=torch.float64),
        size=size,
    )


def experience_of(trajectories: Sequence[Trajectory]) -> Experience:
    def column(name: str) -> Tensor | None:
        parts = [getattr(trajectory, name) for trajectory in trajectories]
        # one stands for all: a loop has a critic or a reference for all of its answers or for none
        return None if parts[0] is None else torch.cat(parts)

    return Experience(
        *_columns([trajectory.sequence for trajectory in trajectories]),
        logprobs=torch.cat([trajectory.logprobs for trajectory in trajectories]),
        advantages=torch.cat([trajectory.advantages for trajectory in trajectories]),
        ref_logprobs=column("ref_logprobs"),
        values=column("values"),
        returns=column("returns"),
    )


def tokens_in(example: object) -> int:
    """How many tokens an example lays into a batch."""
    return len(example.tokens) if isinstance(example, TokenSequence) else len(example)  # type: ignore[arg-type]


def balanced(examples: Sequence[E], parts: int) -> list[list[E]]:
    """So many parts of nearly as many tokens each, every one in the order of the examples."""
    owned: list[list[int]] = [[] for _ in range(parts)]
    loads = [0] * parts
    # the longest first, each to whoever has least: what is left for the end is short
    for i in sorted(range(len(examples)), key=lambda i: -tokens_in(examples[i])):
        least = loads.index(min(loads))
        owned[least].append(i)
        loads[least] += tokens_in(examples[i])
    return [[examples[i] for i in sorted(part)] for part in owned]


def cut(examples: Sequence[E], tokens_per_micro_batch: int) -> Iterator[list[E]]:
    """Micro-batches of at most this many tokens, in order; one example is never split, however long."""
    # in order and greedily: the cut depends on the lengths alone, so a resumed run makes the same one
    part: list[E] = []
    room = tokens_per_micro_batch
    for example in examples:
        if part and tokens_in(example) > room:
            yield part
            part, room = [], tokens_per_micro_batch
        part.append(example)
        room -= tokens_in(example)
    if part:
        yield part
