"""Diverse beam search: answers that differ from each other without a random number (Vijayakumar et al. 2016, §4).

The beams of a prompt decode side by side in groups, here of one beam each: group g takes the token t of largest
log p(t) − λ · (how many of the groups before it have just taken t). The first is greedy decoding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ayni.errors import BadNumbers
from ayni.model.compute import METER, of_tokens
from ayni.model.heads import at_least_fp32
from ayni.model.layout import STRIDE
from ayni.records import Prompt, Sample
from ayni.rollout.decode import next_logits
from ayni.rollout.decoder import Decoder
from ayni.rollout.engine import Drawn, as_samples, check_room, requests_of
from ayni.rollout.local import LocalEngine
from ayni.rollout.prefill import read
from ayni.rollout.sampling import Sampling
from ayni.rollout.scheduler import SLOTS


def diverse_rollout(
    engine: LocalEngine, prompts: Sequence[Prompt], *, groups: int, penalty: float, max_tokens: int
) -> list[list[Sample]]:
    """One answer of every group to every prompt, in order; their log-probs are the model's, without the penalty.

    The engine's ranks share the prompts, and every one of them returns all samples. Raises BadInput when a prompt
    leaves no room in the model's context.
    """
    mine = engine.ranks.share(prompts)
    # temperature 0: nothing is drawn
    requests = requests_of(engine, mine, n=groups, sampling=Sampling(0.0, 1.0, max_tokens), seed=0)
    lengths = engine.ranks.gather([len(request.tokens) for request in requests])
    for i, length in enumerate(lengths):  # of all prompts, so that no rank goes on while another raises
        check_room(length, engine.context, f"prompt {i}")
    answers: list[list[Drawn]] = []
    size = max(1, SLOTS // groups)
    for start in range(0, len(requests), size):
        asked = [request.tokens for request in requests[start : start + size]]
        limits = [min(max_tokens, engine.context - len(tokens)) for tokens in asked]
        answers += diverse_beams(engine.decoder, asked, limits, groups, penalty, engine.tokenizer.eos)
    asked_of = sum(len(request.tokens) for request in requests)
    METER.add(of_tokens(engine.decoder.shape, asked_of + sum(len(d.tokens) for drawn in answers for d in drawn)))
    return engine.ranks.gather(as_samples(engine, mine, requests, answers))


@torch.no_grad()
def diverse_beams(
    model: Decoder, prompts: Sequence[Sequence[int]], limits: Sequence[int], groups: int, penalty: float, eos: int
) -> list[list[Drawn]]:
    """For each of P prompts one answer of each group, of at most its limit of tokens, all of them decoded together."""
    device = model.device
    prefill, logits = read(model, prompts)
    longest, steps = prefill.longest, max(limits)

    def rows(x: Tensor) -> Tensor:
        """A row for every group of a prompt, with room for its answer."""
        return F.pad(x, (0, 0, 0, steps)).repeat_interleave(groups, 0)

    keys, values = ([rows(x) for x in of_prompts] for of_prompts in (prefill.keys, prefill.values))
    logits = logits.repeat_interleave(groups, 0)
    positions, limit = (torch.tensor(x, device=device).repeat_interleave(groups) for x in (prefill.lengths, limits))
    live = torch.ones_like(positions, dtype=torch.bool)
    found: list[tuple[Tensor, Tensor, Tensor]] = []  # (tokens, log-probs, whose they are), all (P·groups,)
    for step in range(steps):
        logprobs = at_least_fp32(logits).log_softmax(-1)
        chosen = apart(logprobs.unflatten(0, (-1, groups)), live.view(-1, groups), penalty).flatten()
        found.append((chosen, logprobs.gather(1, chosen.unsqueeze(1)).squeeze(1), live))
        live = live & (chosen != eos) & (step + 1 < limit)
        if not live.any():
            break
        columns = min(-(-(longest + step + 1) // STRIDE) * STRIDE, longest + steps)
        logits = next_logits(model, chosen, keys, values, positions + step, live, columns)
    drawn = []
    for ids, logs, own in zip(*(torch.stack(x, 1).tolist() for x in zip(*found, strict=True)), strict=True):
        if not math.isfinite(sum(logs[: sum(own)])):
            raise BadNumbers("the model's numbers overflow: what it samples means nothing")
        drawn.append(Drawn(ids[: sum(own)], logs[: sum(own)]))
    return [drawn[start : start + groups] for start in range(0, len(drawn), groups)]


def apart(logprobs: Tensor, live: Tensor, penalty: float) -> Tensor:
    """The next token of every group, (P, G): log-probs (P, G, V); groups that are not live (P, G) keep no token off."""
    taken = torch.zeros_like(logprobs[:, 0])
    chosen = []
    for group in range(logprobs.shape[1]):
        chosen.append((logprobs[:, group] - penalty * taken).argmax(-1))
        taken.scatter_add_(1, chosen[-1].unsqueeze(1), live[:, group : group + 1].to(taken.dtype))
    return torch.stack(chosen, 1)
