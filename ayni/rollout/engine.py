"""THE path from prompts to samples: rejection sampling, PPO, RAFT, evaluation and chat all come through here.

K samples of one prompt share its prefill; a finished slot takes the next sample; what a sample draws depends only on
its own seed. Tokens go in and tokens come out; nothing is tokenised again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ayni.errors import BadInput
from ayni.model.layout import Layout
from ayni.model.transformer import Transformer
from ayni.records import Dialog, Prompt, Sample, Sequence
from ayni.rollout.cache import Cache, Prefill
from ayni.rollout.sampling import Sampling, choose, uniforms
from ayni.seeds import seed_of
from ayni.text.chat import TAGS, answer_text, render_prompt
from ayni.text.tokenizer import Tokenizer

SLOTS = 256  # rows decoded together
CHUNK_SAMPLES = 2048  # samples per chunk: chunks are the unit in which results reproduce, bit for bit


def chunk_prompts(n: int) -> int:
    """Prompts per chunk at n samples each."""
    return max(1, CHUNK_SAMPLES // n)


@dataclass(frozen=True)
class Policy:
    """A language model that speaks: weights, its tokenizer, and the name its samples carry."""

    model: Transformer
    tokenizer: Tokenizer
    name: str = ""


def rollout(
    policy: Policy, prompts: Many[Prompt], *, n: int, sampling: Sampling, seed: int, iteration: int = 0
) -> list[list[Sample]]:
    """n samples of every prompt, in order. Sample k of a prompt draws from (seed, iteration, prompt id, k) alone.

    Raises BadInput when a prompt leaves no room in the model's context.
    """
    tokens = [render_prompt(prompt.dialog, policy.tokenizer) for prompt in prompts]
    seeds = [[seed_of(seed, iteration, prompt.id, k) for k in range(n)] for prompt in prompts]
    groups = []
    for prompt, row, drawn in zip(prompts, seeds, generate(policy, tokens, seeds, sampling), strict=True):
        groups.append(
            [
                Sample(
                    prompt.id,
                    prompt.task,
                    tuple(ids),
                    tuple(logprobs),
                    answer_text(ids, policy.tokenizer),
                    "stop" if ids[-1] == policy.tokenizer.eos else "length",
                    policy.name,
                    iteration,
                    sampling.temperature,
                    sample_seed,
                )
                for sample_seed, (ids, logprobs) in zip(row, drawn, strict=True)
            ]
        )
    return groups


def sampled_sequence(prompt: Prompt, sample: Sample, tokenizer: Tokenizer) -> Sequence:
    """The prompt's tokens and the sample's as they were drawn; only the sample's are supervised."""
    head = render_prompt(prompt.dialog, tokenizer)
    return Sequence(head + list(sample.tokens), [False] * len(head) + [True] * len(sample.tokens))


def with_room(prompts: Many[Prompt], policies: Many[Policy], say: Callable[[str], None]) -> list[Prompt]:
    """The prompts that leave room for an answer in every policy's context; says how many do not. BadInput if none."""

    def fits(prompt: Prompt) -> bool:
        return all(len(render_prompt(prompt.dialog, p.tokenizer)) < p.model.shape.context for p in policies)

    kept = [prompt for prompt in prompts if fits(prompt)]
    context = min(p.model.shape.context for p in policies)
    if prompts and not kept:
        raise BadInput(f"every prompt fills the model's context of {context} tokens", fix="shorten the prompts")
    if len(kept) < len(prompts):
        say(f"{len(prompts) - len(kept)} of {len(prompts)} prompts dropped: they fill the context of {context} tokens")
    return kept


Drawn = tuple[list[int], list[float]]  # tokens after the prompt, and their log-probs


@torch.no_grad()
def generate(policy: Policy, prompts: Many[list[int]], seeds: Many[Many[int]], sampling: Sampling) -> list[list[Drawn]]:
    """One sample per seed of every tokenised prompt: the engine below records and chat formats."""
    for i, tokens in enumerate(prompts):
        _check_room(policy, tokens, f"prompt {i}")
    policy = decoding(policy)
    out: list[list[Drawn]] = []
    size = chunk_prompts(max((len(row) for row in seeds), default=1))
    for start in range(0, len(prompts), size):
        chunk = slice(start, start + size)
        out += _Chunk(policy, prompts[chunk], seeds[chunk], sampling).run()
    return out


def _check_room(policy: Policy, tokens: list[int], name: str) -> None:
    context = policy.model.shape.context
    if len(tokens) >= context:
        raise BadInput(f"{name} has {len(tokens)} tokens, the model's context {context}", fix="shorten the prompt")


def decoding(policy: Policy) -> Policy:
    """The policy with its weights in the compute dtype: cast once per rollout, not once per token."""
    model = policy.model
    if model.dtype in (None, model.head.dtype):
        return policy
    cast = copy.deepcopy(model).to(model.dtype).requires_grad_(False)
    return replace(policy, model=cast)


class _Chunk:
    """One chunk of prompts on its way through the slots."""

    def __init__(self, policy: Policy, prompts: Many[list[int]], seeds: Many[Many[int]], sampling: Sampling) -> None:
        self.model, self.eos, self.sampling = policy.model, policy.tokenizer.eos, sampling
        self.prompts = prompts
        self.waiting = [(p, k) for p in range(len(prompts)) for k in range(len(seeds[p]))][::-1]
        self.seeds = seeds
        self.drawn: list[list[Drawn]] = [[([], []) for _ in row] for row in seeds]
        self.limits = [min(sampling.max_tokens, self.model.shape.context - len(p)) for p in prompts]

    def run(self) -> list[list[Drawn]]:
        model = self.model
        layout = Layout.of([len(p) for p in self.prompts], model.device)
        prefill = Prefill(layout)
        tokens = torch.tensor([t for p in self.prompts for t in p], device=model.device)
        first = self._logits(model(tokens, prefill)[layout.ends])

        slots = min(SLOTS, len(self.waiting))
        length = max(len(p) + limit for p, limit in zip(self.prompts, self.limits, strict=True))
        cache = Cache(model.shape, slots, length, prefill.keys[0].dtype, model.device)
        owners: list[tuple[int, int] | None] = [None] * slots  # which (prompt, k) a slot is busy with
        current = torch.zeros(slots, dtype=torch.long, device=model.device)
        while True:
            # Fill free slots: a new sample's first token comes from its prompt's prefill.
            free = [i for i, owner in enumerate(owners) if owner is None]
            while free and self.waiting:
                taken = [(slot, self.waiting.pop()) for slot in free[: len(self.waiting)]]
                prompts = torch.tensor([p for _, (p, _) in taken], device=model.device)
                places = torch.tensor([slot for slot, _ in taken], device=model.device)
                chosen = self._choose(first[prompts], [owner for _, owner in taken])
                cache.admit(places, prefill, prompts)
                current[places] = torch.tensor(chosen, device=model.device)
                for (slot, owner), token in zip(taken, chosen, strict=True):
                    owners[slot] = None if self._finished(owner, token) else owner
                free = [i for i, owner in enumerate(owners) if owner is None]
            busy = [i for i, owner in enumerate(owners) if owner is not None]
            if not busy:
                return self.drawn
            if len(busy) <= len(owners) // 2:  # nothing waits any more: go on with the busy half
                kept = torch.tensor(busy, device=model.device)
                cache.keep(kept)
                current = current[kept]
                owners = [owners[i] for i in busy]
            cache.positions[[i for i, owner in enumerate(owners) if owner is None]] = 0
            cache.begin_step()
            logits = self._logits(model(current, cache))
            cache.positions += 1
            active = [(i, owner) for i, owner in enumerate(owners) if owner is not None]
            rows = torch.tensor([i for i, _ in active], device=model.device)
            chosen = self._choose(logits[rows], [owner for _, owner in active])
            current[rows] = torch.tensor(chosen, device=model.device)
            for (slot, owner), token in zip(active, chosen, strict=True):
                if self._finished(owner, token):
                    owners[slot] = None

    def _logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.model.head.to(hidden.dtype).t()

    def _choose(self, logits: Tensor, owners: list[tuple[int, int]]) -> list[int]:
        """The next token of each owner; its log-prob is written down."""
        seeds = np.array([self.seeds[p][k] for p, k in owners], dtype=np.uint64)
        steps = np.array([len(self.drawn[p][k][0]) for p, k in owners], dtype=np.uint64)
        drawn = torch.from_numpy(uniforms(seeds, steps)).to(logits.device)
        tokens, logprobs = choose(logits, drawn, self.sampling)
        ids = tokens.tolist()
        for (p, k), token, logprob in zip(owners, ids, logprobs.tolist(), strict=True):
            self.drawn[p][k][0].append(token)
            self.drawn[p][k][1].append(logprob)
        return ids

    def _finished(self, owner: tuple[int, int], token: int) -> bool:
        p, k = owner
        return token == self.eos or len(self.drawn[p][k][0]) >= self.limits[p]


def stream(policy: Policy, dialog: Dialog, *, sampling: Sampling, seed: int) -> Iterator[str]:
    """One answer, piece by piece, as text: together the `text` of the sample that `rollout` draws from this seed.

    Raises BadInput when the dialogue leaves no room in the model's context.
    """
    ids: list[int] = []
    said = ""
    for token in stream_tokens(policy, render_prompt(dialog, policy.tokenizer), sampling=sampling, seed=seed):
        ids.append(token)
        text = _settled(answer_text(ids, policy.tokenizer))
        if len(text) > len(said):
            yield text[len(said) :]
            said = text
    yield answer_text(ids, policy.tokenizer)[len(said) :]


def _settled(text: str) -> str:
    """What of an unfinished answer no later token can change: less half a character, half a chat tag, a last space."""
    text = text.rstrip("\N{REPLACEMENT CHARACTER}")
    while begun := max(n for tag in TAGS for n in range(len(tag)) if text.endswith(tag[:n])):
        text = text[:-begun]  # and again: a tag inside a tag may go first
    return text.removesuffix(" ")


def stream_tokens(policy: Policy, prompt: list[int], *, sampling: Sampling, seed: int) -> Iterator[int]:
    """The tokens after a tokenised prompt, one at a time, up to EOS (not yielded), the limit or the context's end."""
    _check_room(policy, prompt, "the prompt")
    model = policy.model
    with torch.no_grad():
        prefill = Prefill(Layout.of([len(prompt)], model.device))
        hidden = model(torch.tensor(prompt, device=model.device), prefill)[-1:]
        limit = min(sampling.max_tokens, model.shape.context - len(prompt))
        cache = Cache(model.shape, 1, len(prompt) + limit, prefill.keys[0].dtype, model.device)
        zero = torch.zeros(1, dtype=torch.long, device=model.device)
        cache.admit(zero, prefill, zero)
        for step in range(limit):
            drawn = uniforms(np.array([seed], dtype=np.uint64), np.array([step], dtype=np.uint64))
            logits = hidden @ model.head.to(hidden.dtype).t()
            token, _ = choose(logits, torch.from_numpy(drawn).to(model.device), sampling)
            if int(token) == policy.tokenizer.eos:
                return
            yield int(token)
            cache.begin_step()
            with torch.no_grad():
                hidden = model(token, cache)
            cache.positions += 1
