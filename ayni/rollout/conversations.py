"""Conversations in which every answer is the model's own: what people meet, and what a prompt's history hides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ayni.records import Dialog, Message, Prompt, Sample
from ayni.rollout.engine import Engine, rollout, with_room
from ayni.rollout.sampling import Sampling
from ayni.seeds import seed_of


def own_answers(
    engine: Engine, prompts: Sequence[Prompt], *, sampling: Sampling, seed: int, say: Callable[[str], None]
) -> list[list[Sample]]:
    """The model's answer to every turn of the user's, each after its own earlier answers; what the prompt's assistant
    said is left out.

    A conversation ends early where it fills the context (`say` tells of it).
    """
    held: list[Dialog] = [tuple(m for m in prompt.dialog if m.role == "system") for prompt in prompts]
    asked = [[m for m in prompt.dialog if m.role == "user"] for prompt in prompts]
    answers: list[list[Sample]] = [[] for _ in prompts]
    for turn in range(max(map(len, asked), default=0)):
        # a prompt keeps its place as its id: dropped ones must not shift the others'
        going = [i for i, each in enumerate(asked) if len(each) > turn and len(answers[i]) == turn]
        turns = [replace(prompts[i], id=str(i), dialog=(*held[i], asked[i][turn])) for i in going]
        turns = with_room(turns, [engine], say) if turns else []
        drawn = rollout(engine, turns, n=1, sampling=sampling, seed=seed_of(seed, "turn", turn))
        for prompt, (sample,) in zip(turns, drawn, strict=True):
            i = int(prompt.id)
            answers[i].append(replace(sample, prompt_id=prompts[i].id))
            held[i] = (*prompt.dialog, Message("assistant", sample.text))
    return answers
