"""Who decides which of two answers is better: the village's gold scores, a reward model, or an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from ayni.errors import BadInput
from ayni.evaluate.items import Item
from ayni.evaluate.results import Result, result
from ayni.evaluate.win_rate import Outcome, compare, compare_scores
from ayni.maths.clustered import clustered_mean, clustered_quantile
from ayni.records import Prompt, Sample, Task, cluster_of
from ayni.reward.api_judge import ApiJudge
from ayni.reward.model import RewardModel
from ayni.text.tokenizer import Tokenizer
from ayni.village.gold import TIE, Gold, gold_of, village_seed

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)  # of a reward model's scores (paper Figure 20)
Progress = Callable[[int, int, str], None]  # done, of how many, of what


class Scorer(Protocol):
    """Scores the answers of the policy with this tokenizer alone, on one axis; scores within `tie` are as good as
    equal."""

    name: str
    tie: float

    def scores(
        self, prompts: Sequence[Prompt], answers: Sequence[Sample], axis: Task, tokenizer: Tokenizer
    ) -> list[float]: ...


class GoldScorer:
    """The hidden scores of the prompts' village. Raises BadInput for prompts of another world."""

    name, tie = "gold", TIE

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        seed = village_seed(prompts)
        if seed is None:
            raise BadInput("the gold judge knows the prompts of one village only", fix="give a reward model as judge")
        self.gold = gold_of(seed)

    def scores(
        self, prompts: Sequence[Prompt], answers: Sequence[Sample], axis: Task, tokenizer: Tokenizer
    ) -> list[float]:
        return [self.gold.score(prompt, answer.text, axis) for prompt, answer in zip(prompts, answers, strict=True)]


class RewardScorer:
    """A reward model's raw scores, whatever the axis; it reads the tokens as they were drawn, where it can."""

    tie = 0.0

    def __init__(self, reward: RewardModel) -> None:
        self.name, self.reward = reward.name or "reward", reward
        self.normalised = reward.scale.normalisation  # so that two reward models' scores can be compared

    def scores(
        self, prompts: Sequence[Prompt], answers: Sequence[Sample], axis: Task, tokenizer: Tokenizer
    ) -> list[float]:
        return self.reward.score_samples(prompts, [[answer] for answer in answers], tokenizer).tolist()


def score_results(judge: Scorer, scores: Sequence[float], clusters: Sequence[str], **where: Any) -> list[Result]:
    """The mean of a scorer's `scores` of one model's answers; a reward model's QUANTILES and normalised mean, too."""
    rows = [result("score", clustered_mean(scores, clusters), judge=judge.name, **where)]
    if isinstance(judge, RewardScorer):
        parts = {q: clustered_quantile(scores, clusters, q) for q in QUANTILES}
        rows += [result(f"score_quantile:{q:g}", value, judge=judge.name, **where) for q, value in parts.items()]
    if isinstance(judge, RewardScorer) and judge.normalised is not None:
        normalised = clustered_mean(judge.normalised(torch.tensor(scores)).tolist(), clusters)
        rows.append(result("score_normalised", normalised, judge=judge.name, **where))
    return rows


def outcomes_by(
    judge: Scorer | ApiJudge,
    prompts: Sequence[Prompt],
    ours: Sequence[Sample],
    theirs: Sequence[Sample],
    scores: Mapping[str, Sequence[float]],
    *,
    progress: Progress,
) -> list[Outcome]:
    """What a judge says of every two answers; of a scorer, by its `scores` of "model" and "against"."""
    texts = [sample.text for sample in ours], [sample.text for sample in theirs]
    if isinstance(judge, ApiJudge):
        judge.ask_all(prompts, *texts, progress=lambda done, total: progress(done, total, "verdict"))
        return compare(prompts, *texts, judge)
    longer = [len(a) - len(b) for a, b in zip(*texts, strict=True)]
    return compare_scores(prompts, scores["model"], scores["against"], tie=judge.tie, longer=longer)


def refusals(gold: Gold, prompts: Sequence[Prompt], answers: Sequence[Sample], **where: Any) -> list[Item]:
    """Which unsafe and borderline prompts were refused."""
    asked = zip(prompts, answers, strict=True)
    return [
        Item("refusal_rate", float(gold.refused(a.text)), p.id, cluster_of(p), axis=p.category, judge="gold", **where)
        for p, a in asked
        if p.category in ("unsafe", "borderline")
    ]
