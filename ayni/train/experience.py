"""From scored samples to an Experience: log-probs, reference, values, token rewards, advantages (paper §3.2.3)."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import torch
from torch import Tensor

from ayni.maths.advantages import gae, kl_rewards, whiten
from ayni.model.heads import column_values, token_logprobs
from ayni.model.transformer import Transformer
from ayni.parallel import Ranks
from ayni.records import Sequence
from ayni.train.batch import Batch, Step, batch_of, cut


@dataclass(frozen=True)
class Forward:
    """What the three models say of the samples, on one flat axis on the CPU: (T,), zero where the mask is False."""

    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor


@torch.no_grad()
def forward(
    policy: Transformer,
    reference: Transformer,
    critic: Transformer,
    sequences: Many[Sequence],
    *,
    temperature: float,
    tokens_per_micro_batch: int,
    ranks: Ranks = Ranks(),
) -> Forward:
    """Each of the `ranks` reads its share of the sequences.

    Old log-probs come from the training forward pass, not from the sampler: the first ratio is then exactly 1 in
    any dtype and with any sampler. Log-probs are those of the sampling temperature.
    """
    mine = ranks.share(sequences)
    rows: list[list[Tensor]] = [[torch.empty(0)] for _ in range(3)]
    for part in cut(mine, tokens_per_micro_batch):
        batch = batch_of(part).to(policy.device)
        for out, model in zip(rows, (policy, reference), strict=False):
            hidden = model(batch.tokens, batch.layout)
            out.append(_spread(token_logprobs(hidden, model.head, batch.targets, batch.mask, temperature), batch))
        columns = batch.mask.nonzero().squeeze(-1)
        rows[2].append(_spread(column_values(critic, critic(batch.tokens, batch.layout), columns), batch))
    lengths = [len(s.tokens) for s in mine]
    return Forward(*(ranks.gather_rows(torch.cat(row), lengths) for row in rows))


def _spread(x: Tensor, batch: Batch) -> Tensor:
    """(M,) → (T,), on the CPU."""
    out = x.new_zeros(len(batch.tokens))
    out[batch.mask] = x
    return out.cpu()


@dataclass(frozen=True)
class Advantages:
    """(T,) each; `kl` (N,) is Σ_t log π/π_ref of every answer, in nats."""

    advantages: Tensor
    returns: Tensor
    kl: Tensor


def advantages_of(
    batch: Batch, said: Forward, scores: Tensor, *, beta: float, gamma: float = 1.0, lam: float = 0.95
) -> Advantages:
    """Whitened advantages and plain returns from one reward per answer (N,), over the whole batch."""
    last = batch.layout.ends - 1
    rewards = kl_rewards(said.logprobs, said.ref_logprobs, scores, batch.mask, last, beta=beta)
    advantages, returns = gae(rewards, said.values, batch.mask, gamma=gamma, lam=lam)
    gap = torch.where(batch.mask, said.logprobs - said.ref_logprobs, torch.zeros_like(said.logprobs))
    owner = torch.repeat_interleave(torch.arange(len(scores)), batch.layout.offsets.diff())
    kl = gap.new_zeros(len(scores)).index_add(0, owner, gap)
    return Advantages(whiten(advantages, batch.mask), returns, kl)


def steps_of(sequences: Many[Sequence], batch: Batch, said: Forward, gained: Advantages) -> list[Step]:
    """One Step per answer, ready to be shuffled and cut."""
    sizes = list(batch.layout.lengths)
    columns = (x.split(sizes) for x in (said.logprobs, said.values, gained.advantages, gained.returns))
    return [Step(sequence, *parts) for sequence, *parts in zip(sequences, *columns, strict=True)]
