"""The gradient of an objective's mean, from any cut of its examples over any number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ayni.cores import cores, side_by_side
from ayni.errors import BadNumbers
from ayni.model.role import Role
from ayni.parallel import Ranks
from ayni.train.batch import balanced, cut, tokens_in
from ayni.train.objectives import Metrics, Objective

Lanes = Sequence[Sequence[Any]]  # a rank's micro-batches, those of each thread by themselves
TOKENS = 512  # of a lane at least: fewer do not keep a core busy
GRADIENTS = 1 << 30  # bytes that the lanes' gradients may take; a model of more has products worth dividing


def micro_batches(
    role: Role, examples: Sequence[Any], objective: Objective, ranks: Ranks, budget: int
) -> list[list[Any]]:
    """This rank's share of a step's examples, laid out in batches of at most `budget` tokens at a time, in lanes that
    are computed side by side."""
    mine = balanced(examples, ranks.size)[ranks.rank]
    gradient = sum(p.nbytes for p in role.trainable().values())
    most = min(cores(role.device), GRADIENTS // gradient, sum(map(tokens_in, mine)) // TOKENS)
    lanes = [lane for lane in balanced(mine, max(1, most)) if lane]
    return [[objective.batch(part) for part in cut(lane, max(1, budget // len(lanes)))] for lane in lanes]


def accumulate(role: Role, lanes: Lanes, objective: Objective, ranks: Ranks) -> dict[str, float]:
    """Forward and backward of each micro-batch; leaves d(mean loss)/dp on the role's trainable parameters.

    The loss is a sum divided once by the count of all ranks, so neither the cut nor the number of ranks changes the
    gradient. Returns the loss and the objective's metrics. Raises BadNumbers where the loss is not finite.
    """
    lanes = [[batch.to(role.device) for batch in lane] for lane in lanes]
    count = ranks.sum(_total([objective.count(batch) for lane in lanes for batch in lane], role))

    def learn(lane: tuple[Role, Sequence[Any]]) -> list[tuple[Tensor, Metrics]]:
        learner, batches = lane
        found = []
        for batch in batches:
            loss, metrics = objective.loss(learner, batch)
            # divided before backward, so gradients add up to the mean's with nothing left to rescale
            (loss / count).backward()
            found.append((loss.detach(), metrics))
        return found

    # a lane adds up gradients of its own: in one place, their order would be that of the threads
    learners = [role, *(role.replica() for _ in lanes[1:])]
    found = [each for lane in side_by_side(learn, list(zip(learners, lanes, strict=False))) for each in lane]
    for other in learners[1:]:
        for p, q in zip(role.trainable().values(), other.trainable().values(), strict=True):
            if q.grad is not None:
                p.grad = q.grad if p.grad is None else p.grad.add_(q.grad)
    sums, seen = [loss for loss, _ in found], [metrics for _, metrics in found]
    for _ in range(ranks.max(len(found)) - len(found)):
        # every rank runs as many passes: sharded weights are gathered in each, and sum_gradients wants them all
        role.idle().backward()
    ranks.sum_gradients(role.trainable().values())
    mean = float(ranks.sum(_total(sums, role)) / count)
    # true of NaN and of infinity alone
    if mean - mean != 0:
        raise BadNumbers(f"the loss is {mean}; lower the learning rate")
    return {"loss": mean, **_means(seen, role, ranks)}


@torch.no_grad()
def measure(role: Role, lanes: Lanes, objective: Objective, ranks: Ranks) -> float:
    """The objective's mean over the micro-batches of all ranks, without a gradient."""
    batches = [batch.to(role.device) for lane in lanes for batch in lane]
    count = ranks.sum(_total([objective.count(batch) for batch in batches], role))
    sums = side_by_side(lambda batch: objective.loss(role, batch)[0], batches)
    return float(ranks.sum(_total(sums, role)) / count)


def _means(seen: Sequence[Metrics], role: Role, ranks: Ranks) -> dict[str, float]:
    # a rank that ran no micro-batch has seen no name, and must still take part in the sum
    names = sorted(set().union(*ranks.gather([{name for metrics in seen for name in metrics}])))
    totals = torch.zeros(len(names), 2, dtype=torch.float64, device=role.device)
    for metrics in seen:
        for i, name in enumerate(names):
            if name in metrics:
                totals[i] += torch.stack([x.double() for x in metrics[name]])
    totals = ranks.sum(totals) if names else totals
    return {name: float(s / n) for name, (s, n) in zip(names, totals.tolist(), strict=True) if n}


def _total(parts: Sequence[Tensor], role: Role) -> Tensor:
    # fp64: thousands of fp32 sums added in any order agree to the last digit that is logged
    zero = torch.zeros((), dtype=torch.float64, device=role.device)
    return torch.stack([zero, *(p.double() for p in parts)]).sum()
