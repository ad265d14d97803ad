"""`ayni generate`: samples with their tokens and log-probs, or one raw continuation."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ayni.cli import show
from ayni.cli.choosing import Choice
from ayni.cli.lines import at_line, read_lines, write_lines
from ayni.cli.stages import language_model_of
from ayni.errors import BadInput
from ayni.model.role import Role
from ayni.model_directory import load_model
from ayni.records import Dialog, Prompt
from ayni.reward.choosing import Chosen
from ayni.rollout.engine import Engine, Request
from ayni.rollout.local import LocalEngine
from ayni.rollout.sampling import Sampling
from ayni.run import name_of
from ayni.runs.status import located
from ayni.seeds import seed_of
from ayni.text.chat import answer_text, render_prompt
from ayni.text.tokenizer import StreamDecoder, Tokenizer


def generate(
    model: Path,
    prompts: Path | None,
    text: str | None,
    output: Path | None,
    n: int,
    sampling: Sampling,
    seed: int,
    choice: Choice,
    as_json: bool,
) -> dict[str, Any] | None:
    """Rows {index, sample, prompt_tokens, tokens, logprobs, text, finish_reason, seed}, prompt by prompt.

    Of a chosen answer also {reward, rewards, tokens_drawn, tokens_spent}: its own and all that it was chosen from.
    """
    choice.check()
    if (prompts is None) == (text is None):
        raise BadInput("give either --prompts FILE or --text TEXT")
    items: list[tuple[int, str | Dialog]] = [(1, text)] if text is not None else read_lines(located(prompts or Path()))
    engine = language_engine(model)
    chooser = choice.chooser(engine)
    if chooser is not None and n > 1:
        raise BadInput("one answer is chosen for every prompt", field="--n", fix="leave it out")
    requests = []
    for index, (line, item) in enumerate(items):
        try:
            if chooser is not None and isinstance(item, str):
                raise BadInput("an answer is chosen to a dialogue, not to a text", fix='give {"messages"} lines')
            tokens = _prompt_tokens(item, engine.tokenizer)
            _check_room(tokens, engine.context)
        except BadInput as error:
            raise (error if prompts is None else at_line(error, prompts, line)) from None
        requests.append(Request(tuple(tokens), tuple(_seed(seed, index, k) for k in range(n)), sampling))
    if text is not None and n == 1 and output is None and not as_json:
        _print_continuation(engine, requests[0])
        return None
    if chooser is not None:
        asked = [Prompt(str(i), item) for i, (_, item) in enumerate(items) if not isinstance(item, str)]
        found = chooser(engine, asked, sampling=sampling, seed=seed)
        return write_lines((_chosen_row(i, each, seed) for i, each in enumerate(found)), output, as_json)
    return write_lines(_rows(engine, [item for _, item in items], requests, seed), output, as_json)


def language_engine(path: Path) -> LocalEngine:
    """A language model that speaks, from its directory, its stage's or its run's; BadInput for a reward model."""
    found = language_model_of(path)
    model, tokenizer = load_model(found)
    if model.shape.head != "logits":
        raise BadInput("this is a reward model, it cannot speak", path=path, fix="score with it: ayni score")
    return LocalEngine(Role(model.requires_grad_(False)), tokenizer, name_of(found))


def _seed(seed: int, index: int, k: int) -> int:
    """As `rollout` seeds sample k of the prompt with the id str(index)."""
    return seed_of(seed, 0, str(index), k)


def _prompt_tokens(item: str | Dialog, tokenizer: Tokenizer) -> list[int]:
    if isinstance(item, str):
        return [tokenizer.bos, *(tokenizer.encode(item) if item else [])]
    return render_prompt(item, tokenizer)


def _check_room(tokens: list[int], context: int) -> None:
    if len(tokens) >= context:
        raise BadInput(f"the prompt has {len(tokens)} tokens, the model's context {context}", fix="shorten it")


def _rows(engine: Engine, items: list[str | Dialog], requests: list[Request], seed: int) -> Iterator[dict[str, Any]]:
    for index, (item, request, group) in enumerate(zip(items, requests, engine.generate(requests), strict=True)):
        for k, (ids, logprobs) in enumerate(group):
            continued = _continuation(request.tokens, ids, engine.tokenizer) if isinstance(item, str) else None
            yield {
                "index": index,
                "sample": k,
                "prompt_tokens": list(request.tokens),
                "tokens": ids,
                "logprobs": logprobs,
                "text": answer_text(ids, engine.tokenizer) if continued is None else continued,
                "finish_reason": "stop" if ids[-1] == engine.tokenizer.eos else "length",
                "seed": seed,
            }


def _chosen_row(index: int, chosen: Chosen, seed: int) -> dict[str, Any]:
    sample = chosen.sample
    return {
        "index": index,
        "sample": 0,
        "prompt_tokens": list(sample.prompt_tokens),
        "tokens": list(sample.tokens),
        "logprobs": list(sample.logprobs),
        "text": sample.text,
        "finish_reason": sample.finished,
        "seed": seed,
        "reward": chosen.score,
        "rewards": chosen.scores,
        "tokens_drawn": chosen.spent.drawn,
        "tokens_spent": chosen.spent.total,
    }


def _decoder_after(prompt: Sequence[int], tokenizer: Tokenizer) -> StreamDecoder:
    """Decodes what follows the prompt: a space at its start is only dropped where the whole text starts."""
    decoder = StreamDecoder(tokenizer)
    for id in prompt:
        decoder.push(id)
    decoder.flush()
    return decoder


def _continuation(prompt: Sequence[int], ids: list[int], tokenizer: Tokenizer) -> str:
    decoder = _decoder_after(prompt, tokenizer)
    return "".join([*map(decoder.push, ids), decoder.flush()])


def _print_continuation(engine: Engine, request: Request) -> None:
    """The continuation alone, as it comes, with no newline added."""
    decoder = _decoder_after(request.tokens, engine.tokenizer)
    for id in engine.stream(request):
        show(decoder.push(id), end="")
        sys.stdout.flush()
    show(decoder.flush(), end="")
