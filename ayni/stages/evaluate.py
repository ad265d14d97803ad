"""One model, or one against another, on held-out prompts: win rates, refusals, KL; bits per byte on held-out text.

Safe prompts are judged for helpfulness, prompts tagged safety for safety (paper §3.4, Figure 11). Scorers judge each
answer alone, so neither order nor position can matter. People compare two answers blind, in a preference store, or
have compared them already; several judges judge the same answers, and how far they agree is measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from ayni.errors import BadInput
from ayni.evaluate.agreement import agreement_results, people_results
from ayni.evaluate.asking import Asking, ask, check_people, recorded
from ayni.evaluate.choices import choice_results
from ayni.evaluate.divergence import answers_for_kl, kl_result
from ayni.evaluate.diversity import diversity_results
from ayni.evaluate.items import Item, rows_of
from ayni.evaluate.judges import GoldScorer, RewardScorer, Scorer, outcomes_by, refusals, score_results
from ayni.evaluate.label_agreement import gold_agreement
from ayni.evaluate.people import PEOPLE, Contest, answers_in, outcomes_of
from ayni.evaluate.perplexity import foreseen, perplexities
from ayni.evaluate.results import Result, result, write_results
from ayni.evaluate.splits import check_split, named_split
from ayni.evaluate.win_rate import Outcome, win_rate_results
from ayni.files import write_jsonl
from ayni.formats.reading import read_comparisons, read_demonstrations, read_prompts_of, read_texts
from ayni.maths.clustered import clustered_mean, clustered_share
from ayni.maths.rewards import Join
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.quality.page_measures import quality_of
from ayni.records import Demonstration, Prompt, Sample, TokenSequence, cluster_of, root_of, to_dict, under
from ayni.reward.api_judge import ApiJudge, served_model
from ayni.reward.choosing import Chooser, Chosen, chooser_of, chosen_how
from ayni.reward.combine import THRESHOLD, load_combined
from ayni.reward.ensemble import ensemble_of
from ayni.reward.model import load_reward
from ayni.rollout.engine import as_answers_to, rollout, with_room
from ayni.rollout.local import LocalEngine, load_compared
from ayni.rollout.sampling import Sampling
from ayni.rollout.search import Search
from ayni.rollout.store import kept_rollout
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input
from ayni.text.dedup import without
from ayni.text.tokenizer import Tokenizer

VERSION = 6  # win rates at equal length; several judges, people among them; what choosing an answer cost
FACE = Face(
    "evaluates",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("against", "model", ("language_model",), optional=True),
        Input("judge", "model", ("reward_model",), many=True, optional=True, setting="judge_url", without="gold"),
        Input("people", "records.jsonl", ("comparisons",), many=True, optional=True),
        Input("reward", "model", ("reward_model",), optional=True),
        Input("reward_ensemble", "model", ("reward_model",), many=True, optional=True),
        Input("reward_safety", "model", ("reward_model",), optional=True),
        Input("critic", "critic", ("critic", "reward_model"), optional=True),
        Input("prompts", "prompts-validation.jsonl", ("prompts",), many=True, optional=True),
        Input("seen", "prompts-train.jsonl", ("prompts", "demonstrations"), many=True, optional=True),
        Input("texts", "heldout.jsonl", ("texts",), many=True, optional=True),
        Input("train_texts", "corpus.jsonl", ("texts",), many=True, optional=True),
        Input("demonstrations", "demonstrations-validation.jsonl", ("demonstrations",), many=True, optional=True),
        Input("labels", "records.jsonl", ("comparisons",), many=True, optional=True),
    ),
    leaves={"samples.jsonl": "answers"},
)
R = TypeVar("R", Prompt, Demonstration)


class Config(Asking):
    """Without a `judge` input, a `judge_url` or people the village's gold scores judge."""

    best_of: int = Field(1, ge=1, le=1 << 16, description="answers of `model` of which `reward` chooses one")
    search: Search | None = Field(None, description="or how to look for an answer, step by step")
    threshold: float = Field(THRESHOLD, ge=0, le=1, description="of best_of; 0: safety decides on tagged prompts alone")
    ensemble: Join = Field("mean", description="with reward_ensemble: mean, worst, or cautious (mean − deviation)")
    gold: bool = Field(False, description="the village's gold scores judge beside the others")
    judge_url: str | None = Field(None, description="an OpenAI-compatible endpoint that judges, up to /v1")
    judge_model: str | None = Field(None, description="its model; default: the one it serves")
    system: str = Field("", description="a system message before what `model` is asked; its judge does not see it")
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(1.0, ge=1, description="of tokens that an answer holds already (LIMA: 1.2)")
    max_tokens: int = Field(256, ge=1)
    limit: int | None = Field(None, ge=1, description="prompts per axis, chosen by the seed")
    samples: int = Field(40, ge=0, description="answers to write to samples.jsonl for the report")
    kl_prompts: int = Field(400, ge=0, description="prompts for the KL to `against`, sampled at temperature 1")
    tokens_per_micro_batch: int = Field(8192, ge=1)
    dtype: Dtype = "auto"


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    check_people(config, inputs, chooses=config.best_of > 1 or config.search is not None)
    prompts = unseen(config, inputs, run) if inputs.get("prompts") else []
    placement = Placement.of(run, config.dtype)
    engines = load_compared(inputs, placement, suffix_of(config, inputs))
    # before anything is drawn: a mistake in a file is not to cost an hour
    of_files = read_apart(engines, config, inputs, run) if run.leads else []
    contests = recorded(engines, config, inputs, run) if inputs.get("people") else None
    drawn: list[tuple[Prompt, TokenSequence]] = []
    chosen: list[Chosen] = []
    rows: list[Result] = []
    where: dict[str, Any] = {"split": config.split, "seed": run.seed}
    if contests is not None:
        prompts = [contest.prompt for contest in contests]
        scorers = judges(prompts, config, inputs, placement, run)
        answers = {role: answers_in(contests, role, engine.tokenizer, engine.name) for role, engine in engines.items()}
    elif prompts:
        chooser = chooser_for(config, inputs, placement, engines["model"].tokenizer)
        longest = math.inf if chooser is None else chooser.context
        prompts = with_room(prompts, list(engines.values()), run.say, max_tokens=config.max_tokens, read=longest)
        if config.system:
            fit = with_room([under(p, config.system) for p in prompts], [engines["model"]], run.say)
            prompts = [p for p in prompts if p.id in {f.id for f in fit}]
        prompts = chosen_prompts(prompts, config, run)
        scorers = judges(prompts, config, inputs, placement, run)
        answers, chosen = answers_of(engines, prompts, chooser, config, run)
        # what chooses, or what is said before, is no policy that a KL could be of
        if chooser is None and not config.system and config.kl_prompts:
            drawn = answers_for_kl(engines, prompts, config.kl_prompts, config.max_tokens, run.seed)
        elif chooser is not None and run.leads:
            of = {"model": engines["model"].name, **where}
            rows += choice_results(prompts, chosen, chooser, sampling_of(config), of)
    if prompts and run.leads:  # the processes share what is drawn; the first one judges it
        rows += judged(engines, prompts, answers, scorers, contests, config, run)
        rows += [kl_result(engines, drawn, config.tokens_per_micro_batch, **where)] if drawn else []
    if not run.leads:
        return
    rows += of_files
    if not rows:
        raise BadInput(
            "nothing to evaluate on", field="prompts", fix="give prompts, people, texts, demonstrations or labels"
        )
    write_results(run.directory / "results.json", rows)


def read_apart(engines: dict[str, LocalEngine], config: Config, inputs: dict[str, Any], run: Run) -> list[Result]:
    """Rows of what is read and not answered: held-out texts, good demonstrations, labels."""
    rows: list[Result] = []
    if inputs.get("texts"):
        texts = [text for path in inputs["texts"] for text in read_texts(Path(path))]
        read = (text for path in inputs.get("train_texts") or [] for text in read_texts(Path(path)))
        train = list(without(read, texts))  # the baseline is held to what the model is
        where = {"model": engines["model"].name, "split": "heldout", "seed": run.seed}
        other = engines.get("against")
        rows += perplexities(engines["model"], texts, train, where, config.tokens_per_micro_batch, other)
    if inputs.get("demonstrations"):
        good = [d for path in inputs["demonstrations"] for d in read_demonstrations(Path(path))]
        good = without_seen(good, "demonstrations", inputs, run)
        where = {"model": engines["model"].name, "split": config.split, "seed": run.seed}
        rows += foreseen(engines["model"], good, where, config.tokens_per_micro_batch, engines.get("against"), run.say)
    if inputs.get("labels"):
        labels = [c for path in inputs["labels"] for c in read_comparisons(Path(path), say=run.say)]
        opened = [c.prompt for c in labels if named_split(c.prompt) == "test"]  # of other splits any may be read
        check_split(opened, final=config.final, path=inputs["labels"][0])
        rows += gold_agreement(labels, config.split, run.seed)
    return rows


def suffix_of(config: Config, inputs: dict[str, Any]) -> str:
    """What tells `model`, as it is asked here, from itself."""
    if config.system:
        return "with a system message"
    return chosen_how(config.best_of, config.search, bool(inputs.get("critic")))


def unseen(config: Config, inputs: dict[str, Any], run: Run) -> list[Prompt]:
    """The prompts, less those that begin like a conversation in `seen`; BadInput where one is of another split."""
    prompts = read_prompts_of(inputs["prompts"])
    check_split(prompts, final=config.final, path=inputs["prompts"][0])
    return without_seen(prompts, "prompts", inputs, run)


def without_seen(records: list[R], name: str, inputs: dict[str, Any], run: Run) -> list[R]:
    """Those of the input `name` that begin like no conversation in `seen`; BadInput where none is left."""
    seen = {root_of(prompt.dialog) for prompt in read_prompts_of(inputs.get("seen") or [])}
    kept = [record for record in records if root_of(record.dialog) not in seen]
    if not kept:
        raise BadInput(f"all {name} were seen in training", path=inputs[name][0], fix="evaluate on others")
    if len(kept) < len(records):
        run.say(f"{len(records) - len(kept)} {name} were seen in training and are left out")
    return kept


def chosen_prompts(prompts: list[Prompt], config: Config, run: Run) -> list[Prompt]:
    """At most `limit` prompts of each axis."""
    if config.limit is None:
        return prompts
    order = [prompts[i] for i in rng(run.seed, "evaluate", "prompts").permutation(len(prompts))]
    tasks = dict.fromkeys(p.task for p in prompts)
    return [p for task in tasks for p in [p for p in order if p.task == task][: config.limit]]


def judges(
    prompts: list[Prompt], config: Config, inputs: dict[str, Any], placement: Placement, run: Run
) -> list[Scorer | ApiJudge]:
    """All but people, the village's gold scores first; BadInput where two have one name."""
    given = [Path(path) for path in inputs.get("judge") or []]
    people = config.store is not None or bool(inputs.get("people"))
    found: list[Scorer | ApiJudge] = []
    if config.gold or not (given or people or config.judge_url):
        found.append(GoldScorer(prompts))
    found += [RewardScorer(load_reward(path, placement)) for path in given]
    if config.judge_url is not None:
        found.append(endpoint(config, config.judge_url, inputs, run))
    names = [judge.name for judge in found] + [PEOPLE] * people
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(f"two judges are called {twice}", field="judge", fix="rename one of their directories")
    return found


def endpoint(config: Config, url: str, inputs: dict[str, Any], run: Run) -> ApiJudge:
    """The judge behind `judge_url`; it compares, so it needs two models."""
    if not inputs.get("against"):
        raise BadInput("an endpoint compares two models' answers", field="against", fix="give the other model")
    name = config.judge_model or run.tuned(judge_model=served_model(url))["judge_model"]
    return ApiJudge(url, name, run.directory / "verdicts.jsonl")


def chooser_for(config: Config, inputs: dict[str, Any], placement: Placement, tokenizer: Tokenizer) -> Chooser | None:
    """What chooses among answers of `model`; None where there is one."""
    if config.system and (config.best_of > 1 or config.search is not None):
        raise BadInput("a system message is said to a model that answers once", field="system", fix="or choose without")
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
    return Sampling(config.temperature, config.top_p, config.max_tokens, config.repetition_penalty)


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
            continue
        asked = [under(p, config.system) for p in prompts] if config.system and role == "model" else prompts
        draw: dict[str, Any] = {"n": 1, "sampling": sampling_of(config), "seed": seed}
        if config.store is None:
            groups = rollout(engine, asked, **draw)
        else:  # what people are asked about stays as it is, whenever they answer
            groups = kept_rollout(engine, asked, run, f"asked-{role}", **draw)
        answers[role] = [sample for (sample,) in as_answers_to(prompts, groups, engine.tokenizer)]
    return answers, chosen


def judged(
    engines: dict[str, LocalEngine],
    prompts: list[Prompt],
    answers: dict[str, list[Sample]],
    scorers: list[Scorer | ApiJudge],
    contests: list[Contest] | None,
    config: Config,
    run: Run,
) -> list[Result]:
    """Mean scores, refusals and lengths of each model; win rates of `model` against `against` by every judge, and how
    far the judges agree. `contests`: what people have said of these answers already."""
    scores: dict[str, dict[str, list[float]]] = {judge.name: {} for judge in scorers if not isinstance(judge, ApiJudge)}
    rows: list[Result] = []
    items: list[Item] = []
    for role, engine in engines.items():
        for of_judge in scores.values():
            of_judge[role] = [0.0] * len(prompts)
        for axis in dict.fromkeys(p.task for p in prompts):
            at = [i for i, p in enumerate(prompts) if p.task == axis]
            asked, given = [prompts[i] for i in at], [answers[role][i] for i in at]
            clusters = [cluster_of(prompt) for prompt in asked]
            where: dict[str, Any] = {"axis": axis, "model": engine.name, "split": config.split, "seed": run.seed}
            for judge in scorers:
                if not isinstance(judge, ApiJudge):
                    found = judge.scores(asked, given, axis, engine.tokenizer)
                    for i, score in zip(at, found, strict=True):
                        scores[judge.name][role][i] = score
                    rows += score_results(judge, found, clusters, **where)
            rows.append(result("answer_tokens", clustered_mean([len(s.tokens) for s in given], clusters), **where))
            rows.append(result("finished", clustered_share([s.finished == "stop" for s in given], clusters), **where))
            rows += diversity_results([sample.text for sample in given], **where)
        for judge in scorers:
            if isinstance(judge, GoldScorer):
                items += refusals(judge.gold, prompts, answers[role], model=engine.name, split=config.split)
    rows += rows_of(items, run.seed)
    if "against" in engines:
        ours, theirs = answers["model"], answers["against"]
        verdicts: dict[str, Sequence[Outcome | None]] = {}
        for judge in scorers:
            own = scores.get(judge.name, {})
            verdicts[judge.name] = outcomes_by(judge, prompts, ours, theirs, own, progress=run.progress)
        if config.store is not None:
            contests = ask(prompts, ours, theirs, config, run, quality_of)
        if contests is not None:
            verdicts[PEOPLE] = outcomes_of(contests)
        rows += contest_results(verdicts, contests or [], engines, config, run)
    write_jsonl(run.directory / "items.jsonl", map(to_dict, items))
    shown = next(iter(scores.values()), {})
    write_jsonl(run.directory / "samples.jsonl", dialogues(engines, prompts, answers, shown, config, run))
    return rows


def contest_results(
    verdicts: dict[str, Sequence[Outcome | None]],
    contests: list[Contest],
    engines: dict[str, LocalEngine],
    config: Config,
    run: Run,
) -> list[Result]:
    """The win rates by every judge, kept prompt by prompt in outcomes.jsonl, and how far the judges agree."""
    who = {"model": engines["model"].name, "against": engines["against"].name}
    where: dict[str, Any] = {**who, "split": config.split, "seed": run.seed}
    rows: list[Result] = []
    lines: list[dict[str, Any]] = []
    for judge, found in verdicts.items():
        said = [outcome for outcome in found if outcome is not None]
        rows += win_rate_results(said, judge=judge, **where)
        lines += [to_dict(outcome) | who | {"judge": judge} for outcome in said]
    write_jsonl(run.directory / "outcomes.jsonl", lines)
    return rows + agreement_results(verdicts, **where) + people_results(contests, **where)


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
