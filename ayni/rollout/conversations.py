"""Conversations in which every answer is the model's own: what people meet, and what a prompt's history hides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from ayni.records import Dialog, Message, Prompt, Sample
from ayni.rollout.engine import Engine, rollout, with_room
from ayni.rollout.sampling import Sampling
from ayni.seeds import seed_of
from ayni.text.chat import render_prompt

Choice = Callable[
    [Sequence[Prompt], Sequence[Sequence[Sample]]], Sequence[int]
]  # of every turn's samples, the one given


def _first(turns: Sequence[Prompt], groups: Sequence[Sequence[Sample]]) -> list[int]:
    return [0] * len(groups)


def own_answers(
    engine: Engine,
    prompts: Sequence[Prompt],
    *,
    sampling: Sampling,
    seed: int,
    say: Callable[[str], None],
    n: int = 1,
    read: float = math.inf,
    choose: Choice = _first,
    goes_on: Callable[[Sample], bool] = lambda answer: True,
) -> list[list[Sample]]:
    """The model's answer to every turn of the user's, each after its own earlier answers; what the prompt's assistant
    said is left out. Of the `n` samples of a turn the answer is the one that `choose` chooses.

    Who chooses reads `read` tokens at most. A conversation ends early where it fills the context (`say` tells of it),
    and with an answer after which it does not go on.
    """
    longest = min(engine.context - 1, read - sampling.max_tokens if read < engine.context else math.inf)
    held: list[Dialog] = [tuple(m for m in prompt.dialog if m.role == "system") for prompt in prompts]
    asked = [[m for m in prompt.dialog if m.role == "user"] for prompt in prompts]
    answers: list[list[Sample]] = [[] for _ in prompts]
    last = max(map(len, asked), default=0) - 1
    for turn in range(last + 1):
        # a prompt keeps its place as its id: dropped ones must not shift the others'
        going = [i for i, each in enumerate(asked) if len(each) > turn and len(answers[i]) == turn]
        going = [i for i in going if not turn or goes_on(answers[i][-1])]
        turns = [replace(prompts[i], id=str(i), dialog=(*held[i], asked[i][turn])) for i in going]
        if turn:
            room = [t for t in turns if len(render_prompt(t.dialog, engine.tokenizer)) <= longest]
            if len(room) < len(turns):
                say(f"{len(turns) - len(room)} conversations end before turn {turn + 1}: they fill the context")
            turns = room
        else:  # where nothing can be asked at all it is refused
            turns = with_room(turns, [engine], say, max_tokens=sampling.max_tokens, read=read)
        seed_here = seed_of(seed, "turn", turn)
        drawn = rollout(engine, turns, n=n, sampling=sampling, seed=seed_here, keep=turn < last)
        for prompt, group, k in zip(turns, drawn, choose(turns, drawn), strict=True):
            i = int(prompt.id)
            answers[i].append(replace(group[k], prompt_id=prompts[i].id))
            held[i] = (*prompt.dialog, Message("assistant", group[k].text))
    return answers
