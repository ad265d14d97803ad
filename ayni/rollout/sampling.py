"""Choosing the next token: temperature, nucleus, and random numbers that belong to the sample, not to the batch.

Nothing here reads a tensor back to the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ayni.model.counter import GOLDEN, mixed, shifted
from ayni.model.heads import at_least_fp32
from ayni.rollout.step import can_draw, draw

Way = Literal["greedy", "whole", "nucleus"]  # the likeliest token; drawn from all; drawn from the likeliest few


@dataclass(frozen=True, slots=True)
class Sampling:
    """temperature 0 is greedy; a token is kept while the mass strictly before it is ≤ top_p (Meta's rule).

    With a repetition_penalty θ above 1 the logits of tokens that the answer holds already are divided by θ where they
    are positive and multiplied by it where not (Keskar et al. 2019, §4.1).
    """

    temperature: float = 0.6
    top_p: float = 0.9
    max_tokens: int = 256
    repetition_penalty: float = 1.0

    @property
    def way(self) -> Way:
        if self.temperature == 0:
            return "greedy"
        return "nucleus" if self.top_p < 1 else "whole"


def ways_of(samplings: Iterable[Sampling]) -> frozenset[Way]:
    return frozenset(sampling.way for sampling in samplings)


def uniforms(seeds: Tensor, steps: Tensor) -> Tensor:
    """One fp64 number in [0, 1) per (seed, step), both int64 (B,): splitmix64 as a counter, so order never matters."""
    return shifted(mixed(seeds + (steps + 1) * GOLDEN), 11).double() * 2.0**-53


def penalised(logits: Tensor, drawn: Tensor, counts: Tensor, penalties: Tensor) -> Tensor:
    """The logits (B, V), at least fp32, that tokens are drawn by: less for those among the first `counts` (B,) of
    `drawn` (B, n), by `penalties` (B,)."""
    logits = at_least_fp32(logits)
    there = torch.arange(drawn.shape[1], device=drawn.device) < counts.unsqueeze(1)
    times = torch.zeros(logits.shape, dtype=torch.int32, device=logits.device)
    times.scatter_add_(1, drawn * there, there.int())
    theta = penalties.to(logits.dtype).unsqueeze(1)
    return torch.where(times > 0, torch.where(logits > 0, logits / theta, logits * theta), logits)


def choose(
    logits: Tensor,
    uniform: Tensor,
    temperatures: Tensor,
    top_p: Tensor,
    ways: Set[Way],
    drawn_by: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Next tokens and their log-probs, both (B,): logits (B, V); uniform, temperatures and top_p (B,), in fp64.

    `ways` are those of the rows' samplings: what no row needs is not computed. Log-probs are natural, after
    temperature and before top-p; of temperature 1 when greedy. Of the model's own logits, even where tokens are
    `drawn_by` others (B, V).
    """
    logits = at_least_fp32(logits)
    tokens, logprobs = _chosen(logits if drawn_by is None else drawn_by, uniform, temperatures, top_p, ways)
    if drawn_by is None:
        return tokens, logprobs
    # what is unlikely to the model may be drawn: its probability may be 0, never its log
    return tokens, torch.log_softmax(_scaled(logits, temperatures), -1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def _chosen(
    logits: Tensor, uniform: Tensor, temperatures: Tensor, top_p: Tensor, ways: Set[Way]
) -> tuple[Tensor, Tensor]:
    given = (logits, uniform, temperatures)
    if ways == {"nucleus"}:
        return _by_nucleus(*given, top_p)
    found = draw(*given) if can_draw(logits) else _from_all(*given, ways)
    if "nucleus" not in ways:
        return found
    rows, nucleus = (temperatures != 0) & (top_p < 1), _by_nucleus(*given, top_p)
    return torch.where(rows, nucleus[0], found[0]), torch.where(rows, nucleus[1], found[1])


def _from_all(logits: Tensor, uniform: Tensor, temperatures: Tensor, ways: Set[Way]) -> tuple[Tensor, Tensor]:
    """Drawn from all, or the likeliest."""
    probabilities = _probabilities(logits, temperatures)
    tokens = logits.argmax(-1) if "greedy" in ways else torch.zeros_like(temperatures, dtype=torch.long)
    if "whole" in ways:
        tokens = torch.where(temperatures == 0, tokens, _invert(probabilities, uniform))
    return tokens, _logs(probabilities, tokens)


def _by_nucleus(logits: Tensor, uniform: Tensor, temperatures: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    probabilities = _probabilities(logits, temperatures)
    tokens = _nucleus(probabilities, uniform, top_p)
    return tokens, _logs(probabilities, tokens)


def _probabilities(logits: Tensor, temperatures: Tensor) -> Tensor:
    return torch.softmax(_scaled(logits, temperatures), -1)


def _scaled(logits: Tensor, temperatures: Tensor) -> Tensor:
    return logits / temperatures.masked_fill(temperatures == 0, 1).to(logits.dtype).unsqueeze(-1)


def _logs(probabilities: Tensor, tokens: Tensor) -> Tensor:
    # what is drawn is never so unlikely that its probability is 0
    return probabilities.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).log()


def _nucleus(probabilities: Tensor, uniform: Tensor, top_p: Tensor) -> Tensor:
    most = _in_question(probabilities, top_p)
    if most > probabilities.shape[-1] // 8:
        return _sorted_nucleus(probabilities, uniform, top_p)
    places = probabilities.topk(most, sorted=False).indices.sort().values
    place = _sorted_nucleus(probabilities.gather(-1, places), uniform, top_p)
    return places.gather(-1, place.unsqueeze(-1)).squeeze(-1)


def _in_question(probabilities: Tensor, top_p: Tensor) -> int:
    """How many tokens a nucleus may hold at most. On a CPU, where to look costs nothing and to sort all of them more
    than the model: those above (1 − p)/2V, since all others have (1 − p)/2 together."""
    if probabilities.device.type != "cpu":
        return probabilities.shape[-1]
    least = ((1 - top_p) / (2 * probabilities.shape[-1])).to(probabilities.dtype)
    return max(1, int((probabilities > least.unsqueeze(-1)).sum(-1).max()))


def _sorted_nucleus(probabilities: Tensor, uniform: Tensor, top_p: Tensor) -> Tensor:
    ordered, order = torch.sort(probabilities, dim=-1, descending=True, stable=True)
    beyond = ordered.cumsum(-1) - ordered > top_p.to(ordered.dtype).unsqueeze(-1)
    place = _invert(ordered.masked_fill_(beyond, 0), uniform)
    return order.gather(-1, place.unsqueeze(-1)).squeeze(-1)


def _invert(weights: Tensor, uniform: Tensor) -> Tensor:
    """The index at which the running sum passes uniform·total: (B,). Never one of weight zero."""
    running = weights.cumsum(-1)
    # below 1 by one digit of this dtype: the product stays below the total, so the sum passes it at a positive weight
    below = uniform.to(running.dtype).clamp(max=1 - torch.finfo(running.dtype).eps)
    index = torch.searchsorted(running, below.unsqueeze(-1) * running[:, -1:], right=True).squeeze(-1)
    return index.clamp(max=weights.shape[-1] - 1)  # NaN logits: some token, and a log-prob that tells
