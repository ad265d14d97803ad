"""What it costs to choose among answers, and how far the chosen ones are from the policy that draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ayni.evaluate.results import Result, result
from ayni.maths.best_of import best_of_kl
from ayni.maths.clustered import clustered_mean
from ayni.records import Prompt, cluster_of
from ayni.reward.choosing import Chooser, Chosen
from ayni.rollout.sampling import Sampling


def choice_results(
    prompts: Sequence[Prompt], chosen: Sequence[Chosen], chooser: Chooser, sampling: Sampling, where: dict[str, Any]
) -> list[Result]:
    """Of each axis, means over prompts: `chosen_reward`, `tokens_drawn`, `tokens_spent`; and `best_of_kl` of all.

    The last where the policy drew whole answers from its own distribution: best of n at a temperature, top-p 1.
    """
    rows = []
    for axis in dict.fromkeys(p.task for p in prompts):
        at = [i for i, p in enumerate(prompts) if p.task == axis]
        clusters = [cluster_of(prompts[i]) for i in at]
        measured: dict[str, list[float]] = {
            "chosen_reward": [chosen[i].score for i in at],
            "tokens_drawn": [chosen[i].spent.drawn for i in at],
            "tokens_spent": [chosen[i].spent.total for i in at],
        }
        judge = {"chosen_reward": "reward"}
        rows += [
            result(metric, clustered_mean(values, clusters), axis=axis, judge=judge.get(metric), **where)
            for metric, values in measured.items()
        ]
    if chooser.search is None and sampling.way == "whole" and sampling.repetition_penalty == 1:
        logprobs = torch.tensor([sum(each.sample.logprobs) for each in chosen], dtype=torch.float64)
        estimate = clustered_mean(best_of_kl(logprobs, chooser.n).tolist(), [cluster_of(p) for p in prompts])
        rows.append(result("best_of_kl", estimate, **where))
    return rows
