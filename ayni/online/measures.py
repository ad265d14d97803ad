"""What an iteration of the online loop says of itself: its line of metrics.jsonl."""

from __future__ import annotations

from collections.abc import Sequence

from ayni.online.estimators import AdvantageEstimate
from ayni.online.experience import ScoredAnswers
from ayni.records import Sample
from ayni.reward.combine import Scores, cut_off


def measured(
    scores: Scores, samples: Sequence[Sample], answers: ScoredAnswers, estimate: AdvantageEstimate | None
) -> dict[str, float]:
    """Means over the iteration's answers; KL in nats an answer, length in tokens, entropy in nats a token."""
    shown = {
        "reward": float(scores.combined.mean()),
        "reward_deviation": float(scores.combined.std(correction=0)),
        "helpfulness": float(scores.helpfulness.mean()),
        "kl": float(answers.kl().mean()),
        "kl_k3": answers.mean_k3(),
        "beta": answers.beta,
        "length": sum(len(s.tokens) for s in samples) / len(samples),
        "truncated": float(cut_off(samples).float().mean()),
        # from the samples' own log-probs: −E[log π]
        "entropy": -sum(sum(s.logprobs) for s in samples) / sum(len(s.tokens) for s in samples),
    }
    if estimate is not None and estimate.returns is not None and answers.outputs.values is not None:
        mask = answers.batch.mask
        # 1: the critic knows the returns; 0: no better than their mean
        error = (estimate.returns - answers.outputs.values)[mask].var(correction=0)  # of one token, too
        shown["explained_variance"] = float(1 - error / estimate.returns[mask].var(correction=0).clamp(min=1e-8))
    if scores.safety is not None:
        shown["safety"] = float(scores.safety.mean())
    return shown
