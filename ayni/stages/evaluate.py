"""One model, or one against another, on held-out prompts: win rates, refusals, KL; bits per byte on held-out text.

Safe prompts are judged for helpfulness, prompts tagged safety for safety (paper §3.4, Figure 11). Scorers judge each
answer alone, so neither order nor position can matter.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from ayni.errors import BadInput
from ayni.evaluate.choices import choice_results
from ayni.evaluate.diversity import diversity_results
from ayni.evaluate.items import Item, rows_of
from ayni.evaluate.judges import GoldScorer, RewardScorer, Scorer
from ayni.evaluate.perplexity import perplexities
from ayni.evaluate.results import Result, result, write_results
from ayni.evaluate.splits import Evaluation, check_split
from ayni.evaluate.win_rate import compare, compare_scores, win_rate_results
from ayni.files import write_jsonl
from ayni.formats.reading import read_prompts_of, read_texts
from ayni.maths.clustered import clustered_mean, clustered_share
from ayni.maths.rewards import Join
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.records import Prompt, Sample, TokenSequence, cluster_of, root_of, to_dict
from ayni.reward.api_judge import ApiJudge, served_model
from ayni.reward.choosing import Chooser, Chosen, chooser_of, chosen_how
from ayni.reward.combine import THRESHOLD, load_combined
from ayni.reward.ensemble import ensemble_of
from ayni.reward.model import load_reward
from ayni.rollout.engine import rollout, sampled_sequence, with_room
from ayni.rollout.local import LocalEngine, load_engine
from ayni.rollout.sampling import Sampling
from ayni.rollout.search import Search
from ayni.run import Run, name_of
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input
from ayni.text.dedup import without
from ayni.text.tokenizer import Tokenizer
from ayni.train.reference import logprob_sums

VERSION = 6  # where answers are chosen: what that cost, and how far it goes
FACE = Face(
    "evaluates",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("against", "model", ("language_model",), optional=True),
        Input("judge", "model", ("reward_model",), optional=True, setting="judge_url", without="gold"),
        Input("reward", "model", ("reward_model",), optional=True),
        Input("reward_ensemble", "model", ("reward_model",), many=True, optional=True),
        Input("reward_safety", "model", ("reward_model",), optional=True),
        Input("critic", "critic", ("critic", "reward_model"), optional=True),
        Input("prompts", "prompts-validation.jsonl", ("prompts",), many=True, optional=True),
        Input("seen", "prompts-train.jsonl", ("prompts",), many=True, optional=True),
        Input("texts", "heldout.jsonl", ("texts",), many=True, optional=True),
        Input("train_texts", "corpus.jsonl", ("texts",), many=True, optional=True),
    ),
    leaves={"samples.jsonl": "answers"},
)


class Config(Evaluation):
    """Without a `judge` input or `judge_url` the village's gold scores judge."""

    best_of: int = Field(1, ge=1, le=1 << 16, description="answers of `model` of which `reward` chooses one")
    search: Search | None = Field(None, description="or how to look for an answer, step by step")
    threshold: float = Field(THRESHOLD, ge=0, le=1, description="of best_of; 0: safety decides on tagged prompts alone")
    ensemble: Join = Field("mean", description="with reward_ensemble: mean, worst, or cautious (mean − deviation)")
    judge_url: str | None = Field(None, description="an OpenAI-compatible endpoint that judges, up to /v1")
    judge_model: str | None = Field(None, description="its model; default: the one it serves")
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1)
    limit: int | None = Field(None, ge=1, description="prompts per axis, chosen by the seed")
    samples: int = Field(40, ge=0, description="answers to write to samples.jsonl for the report")
    kl_prompts: int = Field(400, ge=0, description="prompts for the KL to `against`, sampled at temperature 1")
    tokens_per_micro_batch: int = Field(8192, ge=1)
    dtype: Dtype = "auto"


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    prompts = unseen(config, inputs, run) if inputs.get("prompts") else []
    placement = Placement.of(run, config.dtype)
    engines = {}
    for name in ("model", "against"):
        if inputs.get(name):
            how = chosen_how(config.best_of, config.search, bool(inputs.get("critic"))) if name == "model" else ""
            engines[name] = load_engine(inputs[name], placement, f"{name_of(inputs[name])} {how}".rstrip())
    rows: list[Result] = []
    if prompts:
        chooser = chooser_for(config, inputs, placement, engines["model"].tokenizer)
        longest = math.inf if chooser is None else chooser.context
        prompts = with_room(prompts, list(engines.values()), run.say, max_tokens=config.max_tokens, read=longest)
        prompts = chosen_prompts(prompts, config, run)
        scorer: Scorer | ApiJudge
        if config.judge_url is not None:
            scorer = endpoint(config, config.judge_url, inputs, run)
        elif inputs.get("judge"):
            scorer = RewardScorer(load_reward(inputs["judge"], placement))
        else:
            scorer = GoldScorer(prompts)
        answers, chosen = answers_of(engines, prompts, chooser, config, run)
        drawn = [] if chooser else answers_for_kl(engines, prompts, config, run)
        if run.leads:  # the processes share what is drawn; the first one judges it
            if chooser is not None:
                where = {"model": engines["model"].name, "split": config.split, "seed": run.seed}
                rows += choice_results(prompts, chosen, chooser, sampling_of(config), where)
            rows += judged(engines, prompts, answers, scorer, config, run)
            rows += [kl(engines["model"], engines["against"], drawn, config, run)] if drawn else []
    if not run.leads:
        return
    if inputs.get("texts"):
        texts = [text for path in inputs["texts"] for text in read_texts(Path(path))]
        read = (text for path in inputs.get("train_texts") or [] for text in read_texts(Path(path)))
        train = list(without(read, texts))  # the baseline is held to what the model is
        where = {"model": engines["model"].name, "split": "heldout", "seed": run.seed}
        rows += perplexities(engines["model"], texts, train, where, config.tokens_per_micro_batch)
    if not rows:
        raise BadInput("nothing to evaluate on", field="prompts", fix="give prompts or texts")
    write_results(run.directory / "results.json", rows)


def unseen(config: Config, inputs: dict[str, Any], run: Run) -> list[Prompt]:
    """The prompts, less those that begin like a conversation in `seen`; BadInput where one is of another split."""
    prompts = read_prompts_of(inputs["prompts"])
    check_split(prompts, final=config.final, path=inputs["prompts"][0])
    known = {root_of(prompt.dialog) for prompt in read_prompts_of(inputs.get("seen") or [])}
    kept = [prompt for prompt in prompts if root_of(prompt.dialog) not in known]
    if not kept:
        raise BadInput("every prompt was seen in training", path=inputs["prompts"][0], fix="evaluate on others")
    if len(kept) < len(prompts):
        run.say(f"{len(prompts) - len(kept)} prompts were seen in training and are left out")
    return kept


def chosen_prompts(prompts: list[Prompt], config: Config, run: Run) -> list[Prompt]:
    """At most `limit` prompts of each axis."""
    if config.limit is None:
        return prompts
    order = [prompts[i] for i in rng(run.seed, "evaluate", "prompts").permutation(len(prompts))]
    tasks = dict.fromkeys(p.task for p in prompts)
    return [p for task in tasks for p in [p for p in order if p.task == task][: config.limit]]


def endpoint(config: Config, url: str, inputs: dict[str, Any], run: Run) -> ApiJudge:
    """The judge behind `judge_url`; it compares, so it needs two models."""
    if inputs.get("judge"):
        raise BadInput("give either a judge or a judge_url", field="judge_url")
    if not inputs.get("against"):
        raise BadInput("an endpoint compares two models' answers", field="against", fix="give the other model")
    name = config.judge_model or run.tuned(judge_model=served_model(url))["judge_model"]
    return ApiJudge(url, name, run.directory / "verdicts.jsonl")


def chooser_for(config: Config, inputs: dict[str, Any], placement: Placement, tokenizer: Tokenizer) -> Chooser | None:
    """What chooses among answers of `model`; None where there is one."""
    reward = critic = None
    if inputs.get("reward"):
        others = inputs.get("reward_ensemble") or []
        helpful = ensemble_of(load_reward(inputs["reward"], placement), others, config.ensemble, placement)
        reward = load_combined(helpful, inputs.get("reward_safety"), placement, tokenizer, config.threshold)
    elif inputs.get("reward_ensemble"):
        raise BadInput("reward_ensemble joins a reward that chooses", field="reward", fix="give both, or neither")
    if inputs.get("critic"):
        critic = load_reward(inputs["critic"], placement)
    return chooser_of(reward, config.best_of, config.search, critic, tokenizer)


def sampling_of(config: Config) -> Sampling:
    return Sampling(config.temperature, config.top_p, config.max_tokens)


def answers_of(
    engines: dict[str, LocalEngine],
    prompts: list[Prompt],
    chooser: Chooser | None,
    config: Config,
    run: Run,
) -> tuple[dict[str, list[Sample]], list[Chosen]]:
    """Each model's answer to every prompt, and how `model`'s was chosen where a chooser does."""
    answers: dict[str, list[Sample]] = {}
    chosen: list[Chosen] = []
    for role, engine in engines.items():
        run.say(f"{engine.name} answers {len(prompts)} prompts")
        seed = seed_of(run.seed, "evaluate", role)
        if role == "model" and chooser is not None:
            chosen = chooser(engine, prompts, sampling=sampling_of(config), seed=seed)
            answers[role] = [each.sample for each in chosen]
        else:
            groups = rollout(engine, prompts, n=1, sampling=sampling_of(config), seed=seed)
            answers[role] = [sample for (sample,) in groups]
    return answers, chosen


def judged(
    engines: dict[str, LocalEngine],
    prompts: list[Prompt],
    answers: dict[str, list[Sample]],
    scorer: Scorer | ApiJudge,
    config: Config,
    run: Run,
) -> list[Result]:
    """Mean scores, refusals and lengths of each model; win rates of `model` against `against`."""
    scores: dict[str, list[float]] = {}
    rows: list[Result] = []
    items: list[Item] = []
    for role, engine in engines.items():
        texts = [sample.text for sample in answers[role]]
        scores[role] = [0.0] * len(prompts)
        for axis in dict.fromkeys(p.task for p in prompts):
            at = [i for i, p in enumerate(prompts) if p.task == axis]
            clusters = [cluster_of(prompts[i]) for i in at]
            where: dict[str, Any] = {"axis": axis, "model": engine.name, "split": config.split, "seed": run.seed}
            if not isinstance(scorer, ApiJudge):
                given = [answers[role][i] for i in at]
                found = scorer.scores([prompts[i] for i in at], given, axis, engine.tokenizer)
                for i, score in zip(at, found, strict=True):
                    scores[role][i] = score
                rows.append(result("score", clustered_mean(found, clusters), judge=scorer.name, **where))
                if isinstance(scorer, RewardScorer) and scorer.normalised is not None:
                    normalised = clustered_mean(scorer.normalised(torch.tensor(found)).tolist(), clusters)
                    rows.append(result("score_normalised", normalised, judge=scorer.name, **where))
            lengths = [len(answers[role][i].tokens) for i in at]
            rows.append(result("answer_tokens", clustered_mean(lengths, clusters), **where))
            ended = [answers[role][i].finished == "stop" for i in at]
            rows.append(result("finished", clustered_share(ended, clusters), **where))
            rows += diversity_results([answers[role][i].text for i in at], **where)
        if isinstance(scorer, GoldScorer):
            items += [
                Item(
                    "refusal_rate",
                    float(scorer.gold.refused(text)),
                    p.id,
                    cluster_of(p),
                    axis=p.category,
                    judge="gold",
                    model=engine.name,
                    split=config.split,
                )
                for p, text in zip(prompts, texts, strict=True)
                if p.category in ("unsafe", "borderline")
            ]
    rows += rows_of(items, run.seed)
    if "against" in engines:
        if isinstance(scorer, ApiJudge):
            ours, theirs = ([sample.text for sample in answers[role]] for role in ("model", "against"))
            scorer.ask_all(prompts, ours, theirs, progress=lambda done, total: run.progress(done, total, "verdict"))
            outcomes = compare(prompts, ours, theirs, scorer)
        else:
            outcomes = compare_scores(prompts, scores["model"], scores["against"], tie=scorer.tie)
        who: dict[str, Any] = {"model": engines["model"].name, "against": engines["against"].name, "judge": scorer.name}
        rows += win_rate_results(outcomes, split=config.split, seed=run.seed, **who)
        write_jsonl(run.directory / "outcomes.jsonl", (to_dict(outcome) | who for outcome in outcomes))
    write_jsonl(run.directory / "items.jsonl", map(to_dict, items))
    shown = {} if isinstance(scorer, ApiJudge) else scores
    write_jsonl(run.directory / "samples.jsonl", dialogues(engines, prompts, answers, shown, config, run))
    return rows


def answers_for_kl(
    engines: dict[str, LocalEngine], prompts: list[Prompt], config: Config, run: Run
) -> list[tuple[Prompt, TokenSequence]]:
    """Prompts with the model's answers at temperature 1; none where no other model of the same tokens is there."""
    if "against" not in engines or len({p.tokenizer.fingerprint for p in engines.values()}) > 1:
        return []
    engine = engines["model"]
    order = rng(run.seed, "evaluate", "kl").permutation(len(prompts))[: config.kl_prompts]
    asked = [prompts[i] for i in order]
    sampling = Sampling(1.0, 1.0, config.max_tokens)
    seed = seed_of(run.seed, "evaluate", "kl")
    drawn = rollout(engine, asked, n=1, sampling=sampling, seed=seed)
    return [(prompt, sampled_sequence(sample)) for prompt, (sample,) in zip(asked, drawn, strict=True)]


def kl(
    engine: LocalEngine,
    reference: LocalEngine,
    drawn: list[tuple[Prompt, TokenSequence]],
    config: Config,
    run: Run,
) -> Result:
    """KL(π‖π_ref) per answer in nats, from answers that π drew at temperature 1."""
    sequences = [sequence for _, sequence in drawn]
    ours, theirs = (
        logprob_sums(e.role, sequences, config.tokens_per_micro_batch).double().numpy() for e in (engine, reference)
    )
    estimate = clustered_mean(ours - theirs, [cluster_of(prompt) for prompt, _ in drawn])
    return result("kl", estimate, model=engine.name, against=reference.name, split=config.split, seed=run.seed)


def dialogues(
    engines: dict[str, LocalEngine],
    prompts: list[Prompt],
    answers: dict[str, list[Sample]],
    scores: dict[str, list[float]],
    config: Config,
    run: Run,
) -> list[dict[str, Any]]:
    """Some answers side by side, for the report: half of each axis where there are two."""
    order = rng(run.seed, "evaluate", "shown").permutation(len(prompts))
    tasks = list(dict.fromkeys(p.task for p in prompts))
    share = config.samples // max(len(tasks), 1)
    shown = [i for task in tasks for i in [i for i in order if prompts[i].task == task][:share]]
    lines = []
    for i in shown:
        axis = prompts[i].task
        lines.append(
            {
                "prompt": to_dict(prompts[i]),
                "answers": {engines[role].name: answers[role][i].text for role in engines},
                "scores": {engines[role].name: {axis: scores[role][i]} for role in scores},
            }
        )
    return lines
