"""Two model variants that answer a person live, side by side, turn after turn (paper §3.2.1)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ayni.records import Dialog, Prompt
from ayni.rollout.engine import Engine, as_samples, requests_of
from ayni.rollout.sampling import Sampling

if TYPE_CHECKING:
    from ayni.feedback.page import Talk


def two_answers(engines: Sequence[Engine], temperatures: Sequence[float], max_tokens: int, seed: int) -> Talk:
    """What answers a dialogue twice: one model, or the first and the last of several; the temperatures take turns.

    Only this process answers, whoever else shares the engines' rollouts.
    """
    first, second = engines[0], engines[-1]
    count = itertools.count()

    def answer(engine: Engine, dialog: Dialog, task: str, turn: int, k: int) -> tuple[str, dict[str, Any]]:
        # by turns, so that neither side of the page is always the warmer one
        sampling = Sampling(temperatures[(turn + k) % len(temperatures)], 1.0, max_tokens)
        prompt = Prompt(f"live-{turn}-{k}", dialog, "safety" if task == "safety" else "helpfulness")
        requests = requests_of(engine, [prompt], n=1, sampling=sampling, seed=seed)
        drawn = engine.generate(requests, keep=True)  # the next message goes on from here
        ((sample,),) = as_samples(engine, [prompt], requests, drawn)
        return sample.text, asdict(sampling) | {"seed": sample.seed, "finished": sample.finished}

    def talk(dialog: Dialog, task: str) -> tuple[str, str, str, str, Mapping[str, Any], Mapping[str, Any]]:
        turn = next(count)
        a, sampling_a = answer(first, dialog, task, turn, 0)
        b, sampling_b = answer(second, dialog, task, turn, 1)
        return a, b, first.name, second.name, sampling_a, sampling_b

    return talk
