"""KL(π‖π_ref) of two models with one tokenizer, per answer and in nats: what a gain has cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ayni.evaluate.results import Result, result
from ayni.maths.clustered import clustered_mean
from ayni.records import Prompt, TokenSequence, cluster_of
from ayni.rollout.engine import rollout, sampled_sequence
from ayni.rollout.local import LocalEngine
from ayni.rollout.sampling import Sampling
from ayni.seeds import rng, seed_of
from ayni.train.reference import logprob_sums

Drawn = list[tuple[Prompt, TokenSequence]]


def answers_for_kl(
    engines: Mapping[str, LocalEngine], prompts: Sequence[Prompt], most: int, max_tokens: int, seed: int
) -> Drawn:
    """At most so many prompts with the model's answers at temperature 1; none where no other model of the same tokens
    is there."""
    if "against" not in engines or len({p.tokenizer.fingerprint for p in engines.values()}) > 1:
        return []
    order = rng(seed, "evaluate", "kl").permutation(len(prompts))[:most]
    asked = [prompts[i] for i in order]
    sampling = Sampling(1.0, 1.0, max_tokens)
    drawn = rollout(engines["model"], asked, n=1, sampling=sampling, seed=seed_of(seed, "evaluate", "kl"))
    return [(prompt, sampled_sequence(sample)) for prompt, (sample,) in zip(asked, drawn, strict=True)]


def kl_result(engines: Mapping[str, LocalEngine], drawn: Drawn, budget: int, **where: Any) -> Result:
    """The mean of log π − log π_ref over answers that π drew; `budget`: tokens of one forward pass."""
    engine, reference = engines["model"], engines["against"]
    sequences = [sequence for _, sequence in drawn]
    ours, theirs = (logprob_sums(e.role, sequences, budget).double().numpy() for e in (engine, reference))
    estimate = clustered_mean(ours - theirs, [cluster_of(prompt) for prompt, _ in drawn])
    return result("kl", estimate, model=engine.name, against=reference.name, **where)
