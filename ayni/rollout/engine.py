"""The path from prompts to samples: rejection sampling, PPO, RAFT, evaluation and chat all come through here.

An `Engine` samples, in this process (ayni.rollout.local). Tokens go in and tokens come out; nothing is tokenised again.
What a sample draws depends only on its own seed. Two need more than samples of whole prompts: `search`, which goes on
from partial answers, asks the engine itself, and diverse beams read the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from ayni.errors import BadInput
from ayni.model.role import Role
from ayni.parallel import Ranks
from ayni.records import Dialog, Finished, Prompt, Sample, TokenSequence
from ayni.rollout.sampling import Sampling
from ayni.seeds import seed_of
from ayni.text.chat import TAGS, answer_text, answer_tokens, render_prompt
from ayni.text.tokenizer import Tokenizer

CHUNK_SAMPLES = 2048  # samples per chunk: chunks are the unit in which results reproduce, bit for bit


def chunk_prompts(n: int) -> int:
    """Prompts per chunk at n samples each."""
    return max(1, CHUNK_SAMPLES // n)


@dataclass(frozen=True)
class Request:
    """One answer per seed (0 ≤ seed < 2⁶³) of one tokenised prompt.

    An answer ends after one of the tokens `stops`, too, as after EOS; all requests of one call have the same.
    """

    tokens: tuple[int, ...]
    seeds: tuple[int, ...]
    sampling: Sampling
    stops: tuple[int, ...] = ()


class Drawn(NamedTuple):
    """One answer: tokens (n,) after the prompt, EOS included where it ended by itself, and their log-probs (n,)."""

    tokens: list[int]
    logprobs: list[float]


class Engine(Protocol):
    """Who samples. It may be another program: neither its memory is shared nor are its bits promised."""

    @property
    def name(self) -> str:
        """The name that its samples carry."""
        ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def context(self) -> int:
        """The longest sequence: prompt and answer together, in tokens."""
        ...

    @property
    def ranks(self) -> Ranks:
        """The processes that share a rollout: each has an engine of its own, of the same weights."""
        ...

    def generate(self, requests: Sequence[Request], keep: bool = False) -> list[list[Drawn]]:
        """The answers of every request, seed by seed. No collective: it answers what this process asks. `keep`: prompts
        of the next call begin with prompts and answers of this one.

        Raises BadInput for a prompt that leaves no room.
        """
        ...

    def stream(self, request: Request) -> Iterator[int]:
        """The tokens of the answer of its first seed as they come, up to EOS (not yielded)."""
        ...

    def sync(self, role: Role) -> None:
        """Sample from this role's weights as they are now. To be called where they changed."""
        ...


def rollout(
    engine: Engine,
    prompts: Sequence[Prompt],
    *,
    n: int,
    sampling: Sampling,
    seed: int,
    iteration: int = 0,
    firsts: Sequence[int] | None = None,
    plain: bool = False,
    keep: bool = False,
) -> list[list[Sample]]:
    """n samples of every prompt, in order. Sample k of a prompt draws from (seed, iteration, prompt id, k) alone.

    k begins at 0, or at firsts[i] for prompt i, so that a prompt that is asked again draws other answers. `plain`: a
    prompt is a text to go on with, its last message, and no chat format stands around it. `keep`: the next rollout goes
    on with these conversations (what was read of them is not read again). The engine's
    ranks share the prompts, and every one of them returns all samples. Raises BadInput when a prompt leaves no room in
    the model's context.
    """
    ranks = engine.ranks
    mine = ranks.share(prompts)
    counts = None if firsts is None else ranks.share(firsts)
    requests = requests_of(
        engine, mine, n=n, sampling=sampling, seed=seed, iteration=iteration, firsts=counts, plain=plain
    )
    lengths = ranks.gather([len(request.tokens) for request in requests])
    for i, length in enumerate(lengths):  # of all prompts, so that no rank goes on while another raises
        check_room(length, engine.context, f"prompt {i}")
    # every rank needs all of them: rewards are whitened over the iteration
    return ranks.gather(as_samples(engine, mine, requests, engine.generate(requests, keep), iteration))


def requests_of(
    engine: Engine,
    prompts: Sequence[Prompt],
    *,
    n: int,
    sampling: Sampling,
    seed: int,
    iteration: int = 0,
    firsts: Sequence[int] | None = None,
    plain: bool = False,
) -> list[Request]:
    """What `rollout` asks of the engine, prompt by prompt."""
    tokenizer = engine.tokenizer
    return [
        Request(
            tuple(_text_tokens(prompt, tokenizer) if plain else render_prompt(prompt.dialog, tokenizer)),
            # never from the batch: neighbours, order and the number of ranks change nothing
            tuple(seed_of(seed, iteration, prompt.id, first + k) for k in range(n)),
            sampling,
        )
        for prompt, first in zip(prompts, firsts or [0] * len(prompts), strict=True)
    ]


def _text_tokens(prompt: Prompt, tokenizer: Tokenizer) -> list[int]:
    return [tokenizer.bos, *tokenizer.encode(prompt.dialog[-1].content)]


def as_samples(
    engine: Engine,
    prompts: Sequence[Prompt],
    requests: Sequence[Request],
    answers: Sequence[Sequence[Drawn]],
    iteration: int = 0,
) -> list[list[Sample]]:
    """What was drawn for these requests, seed by seed, as samples of their prompts."""
    eos = engine.tokenizer.eos
    return [
        [
            Sample(
                prompt.id,
                prompt.task,
                request.tokens,
                tuple(tokens),
                tuple(logprobs),
                answer_text(tokens, engine.tokenizer),
                "stop" if tokens[-1] == eos else "length",
                engine.name,
                iteration,
                request.sampling.temperature,
                seed,
            )
            for seed, (tokens, logprobs) in zip(request.seeds, drawn, strict=True)
        ]
        for prompt, request, drawn in zip(prompts, requests, answers, strict=True)
    ]


def quoted_sample(prompt: Prompt, answer: str, finished: Finished | None, tokenizer: Tokenizer) -> Sample:
    """An answer that somebody else wrote, as a sample of its prompt: nobody drew it, so it has no log-probs."""
    sequence = answer_tokens(prompt.dialog, answer, tokenizer, finished)
    begin = sequence.mask.index(True)
    asked, said = tuple(sequence.tokens[:begin]), tuple(sequence.tokens[begin:])
    text = answer_text(said, tokenizer)
    return Sample(prompt.id, prompt.task, asked, said, (), text, finished or "stop")


def check_room(length: int, context: int, name: str) -> None:
    """BadInput where a prompt of so many tokens leaves no room for an answer."""
    if length >= context:
        raise BadInput(f"{name} has {length} tokens, the model's context {context}", fix="shorten the prompt")


def with_room(
    prompts: Sequence[Prompt],
    engines: Sequence[Engine],
    say: Callable[[str], None],
    *,
    max_tokens: int = 1,
    read: float = math.inf,
) -> list[Prompt]:
    """The prompts that leave room for an answer in every engine's context, and whose answers of up to `max_tokens` can
    be read by whoever judges them, `read` tokens at most; says how many do not. BadInput if none.
    """
    rooms: dict[str, tuple[Tokenizer, int]] = {}
    for engine in engines:
        key = engine.tokenizer.fingerprint
        _, least = rooms.get(key, (engine.tokenizer, engine.context))
        rooms[key] = engine.tokenizer, min(least, engine.context)

    def fits(prompt: Prompt) -> bool:
        lengths = [(len(render_prompt(prompt.dialog, tokenizer)), context) for tokenizer, context in rooms.values()]
        return all(length < context and min(length + max_tokens, context) <= read for length, context in lengths)

    kept = [prompt for prompt in prompts if fits(prompt)]
    context = min(context for _, context in rooms.values())
    if prompts and not kept and read >= context:
        raise BadInput(f"every prompt fills the model's context of {context} tokens", fix="shorten the prompts")
    if prompts and not kept:
        what = f"no prompt leaves room for {max_tokens} tokens in the reward model's context of {read:.0f}"
        raise BadInput(what, field="max_tokens", fix="lower max_tokens, or shorten the prompts")
    if len(kept) < len(prompts):
        why = f"they fill the context of {context} tokens"
        if read < context:
            why = f"answers of {max_tokens} tokens may not fit the reward model's context of {read:.0f}"
        say(f"{len(prompts) - len(kept)} of {len(prompts)} prompts dropped: {why}")
    return kept


def as_answers_to(
    prompts: Sequence[Prompt], groups: Sequence[Sequence[Sample]], tokenizer: Tokenizer
) -> list[list[Sample]]:
    """The samples as answers to these prompts, whatever was said before the prompts when they were drawn."""
    read = [tuple(render_prompt(prompt.dialog, tokenizer)) for prompt in prompts]
    return [[replace(s, prompt_tokens=tokens) for s in group] for tokens, group in zip(read, groups, strict=True)]


def sampled_sequence(sample: Sample) -> TokenSequence:
    """The prompt's tokens as they were read and the sample's as they were drawn; only the sample's are supervised."""
    mask = [False] * len(sample.prompt_tokens) + [True] * len(sample.tokens)
    return TokenSequence([*sample.prompt_tokens, *sample.tokens], mask)


def stream(engine: Engine, dialog: Dialog, *, sampling: Sampling, seed: int) -> Iterator[str]:
    """One answer, piece by piece, as text: together the `text` of the sample that is drawn from this seed.

    Raises BadInput when the dialogue leaves no room in the model's context.
    """
    prompt = render_prompt(dialog, engine.tokenizer)
    check_room(len(prompt), engine.context, "the prompt")
    limit = min(sampling.max_tokens, engine.context - len(prompt))
    ids: list[int] = []
    shown = ""
    for token in engine.stream(Request(tuple(prompt), (seed,), sampling)):
        ids.append(token)
        text = _settled(answer_text(ids, engine.tokenizer))
        if len(text) > len(shown):
            yield text[len(shown) :]
            shown = text
    if len(ids) < limit:
        ids.append(engine.tokenizer.eos)  # it ended by itself
    yield answer_text(ids, engine.tokenizer)[len(shown) :]


def _settled(text: str) -> str:
    """What of an unfinished answer no later token can change: less half a character, half a chat tag, a last space."""
    text = text.rstrip("\N{REPLACEMENT CHARACTER}")
    while begun := max(n for tag in TAGS for n in range(len(tag)) if text.endswith(tag[:n])):
        text = text[:-begun]  # and again: a tag inside a tag may go first
    return text.removesuffix(" ")
