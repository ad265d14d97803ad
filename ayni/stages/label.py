"""Comparisons from an AI judge: our own language model or an endpoint, asked in both orders (RLAIF, Lee et al. 2023).

The pairs are comparisons that exist, judged again, or samples: of two models, or of one. The records are those that
people make (paper §3.2.1), with annotator `ai:NAME`; results.json says how far to trust them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ayni.config import Config as Base
from ayni.errors import BadInput
from ayni.evaluate.results import write_results
from ayni.files import failpoint, json_line, write_jsonl, write_text
from ayni.formats.reading import read_comparisons, read_prompts_of
from ayni.model.compute import METER
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.quality.answer_pairs import AnswerPair, pairs_from_comparisons, pairs_from_samples, samples_by_prompt
from ayni.quality.judge_consistency import agreement_results, consistency_results
from ayni.records import RATINGS, Comparison, root_of, to_dict
from ayni.reward.api_judge import ApiJudge, Question, served_model
from ayni.reward.likelihood_judge import LikelihoodJudge
from ayni.reward.option_judge import OptionJudge
from ayni.reward.shared_judge import SharedJudge
from ayni.reward.verdicts import PROBABILITY_THRESHOLDS, PairJudge, Verdict, comparison_of, preference
from ayni.rollout.local import load_engine, load_reference
from ayni.rollout.sampling import Sampling
from ayni.rollout.store import note_spent, spent_on
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input

VERSION = 2  # held out, and intervals, by conversation; comparisons say which answers were cut off
FACE = Face(
    "records",
    inputs=(
        Input("judge", "model", ("language_model",), optional=True, setting="judge_url"),
        Input("reference", "model", ("language_model",), optional=True),
        Input("data", "records.jsonl", ("comparisons",), many=True, optional=True),
        Input("samples", "samples.jsonl", ("samples",), many=True, optional=True),
        Input("prompts", "prompts-train.jsonl", ("prompts",), many=True, optional=True),
    ),
    leaves={"records.jsonl": "comparisons", "heldout.jsonl": "comparisons"},
)
CHUNK = 256  # pairs: whole chunks survive a kill
WORD = 8  # tokens of a reply that says one word


class Config(Base):
    """The judge is the input `judge`, a language model of ours, or the endpoint at `judge_url`."""

    by: Literal["options", "likelihood"] = Field(
        "options",
        description="how a model of ours judges: by its answer to a question, or by how likely it finds both answers",
    )
    judge_url: str | None = Field(None, description="an OpenAI-compatible endpoint that judges, up to /v1")
    judge_model: str | None = Field(None, description="its model; default: the one it serves")
    judge_logprobs: bool = Field(False, description="the endpoint says how probable A and B are, not one of them")
    price: tuple[float, float] | None = Field(
        None,
        strict=False,
        description="of a million tokens that the endpoint reads, and writes: what it will cost is said",
    )
    budget: float | None = Field(None, gt=0, description="estimated to cost more, the labels are not asked for")
    reasoning: bool = Field(False, description="the judge writes what speaks for each answer before it decides")
    temperature: float = Field(0.7, ge=0, description="of the reasoning; of all that an endpoint says")
    max_tokens: int = Field(256, ge=1, description="longest reasoning of a model of ours")
    times: int = Field(1, ge=1, le=1 << 10, description="how often a pair is asked in each order; labels are the mean")
    consistency_pairs: int = Field(100, ge=0, description="pairs asked several times to see if the judge varies")
    consistency_times: int = Field(4, ge=2, le=1 << 10, description="how often each of these is asked in each order")
    soft_labels: bool = Field(False, description="comparisons say how probable it is; the ranking loss learns that")
    surest_reasoned: float = Field(
        0.6,
        ge=0.5,
        le=1,
        description="the highest probability of a soft label after reasoning (the lowest is the rest)",
    )
    degrees: tuple[float, float, float] = Field(
        PROBABILITY_THRESHOLDS,
        strict=False,
        description="least |p − ½| of significantly better, better and slightly better",
    )
    safety_labels: bool = Field(True, description="ask of both answers to safety prompts whether they are safe")
    data_task: Literal["helpfulness", "safety"] | None = Field(
        None, description="set on every comparison read; hh-rlhf files, for one, do not say their task"
    )
    task: Literal["helpfulness", "safety"] | None = Field(
        None, description="judge only pairs of this task: a judge may know one of them"
    )
    limit: int | None = Field(None, ge=1, description="pairs to judge, chosen by the seed")
    heldout_share: float = Field(0.1, ge=0, lt=1, description="of the conversations, for the reward models' test set")
    batch: str = Field("1", description="the name of this batch")
    tokens_per_micro_batch: int = Field(8192, ge=1)
    dtype: Dtype = "auto"

    @field_validator("price")
    @classmethod
    def _no_gift(cls, price: tuple[float, float] | None) -> tuple[float, float] | None:
        if price is not None and min(price) < 0:
            raise ValueError("a price is not below 0")
        return price

    @model_validator(mode="after")
    def _of_an_endpoint(self) -> Config:
        for name in ("judge_logprobs", "price", "budget"):
            if self.judge_url is None and getattr(self, name):
                raise ValueError(f"{name} is of an endpoint: set judge_url")
        if self.budget is not None and self.price is None:
            raise ValueError("what is within the budget cannot be told without a price")
        return self

    @model_validator(mode="after")
    def _of_a_likelihood(self) -> Config:
        if self.by == "likelihood" and (self.judge_url is not None or self.reasoning or self.safety_labels):
            raise ValueError("by: likelihood asks nobody: leave judge_url and reasoning, and set safety_labels: false")
        return self

    @field_validator("degrees")
    @classmethod
    def _descending(cls, degrees: tuple[float, float, float]) -> tuple[float, float, float]:
        if not 0.5 >= degrees[0] >= degrees[1] >= degrees[2] >= 0:
            raise ValueError("degrees must go down, from at most 0.5 to at least 0")
        return degrees


@dataclass(frozen=True, slots=True)
class PairLabel:
    """The judge's verdict on a pair; `safe` is P(safe) of its two answers, None where nobody asked."""

    verdict: Verdict
    safe: tuple[float, float] | None = None


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    if config.judge_url is not None and not run.leads:
        return  # one process alone asks an endpoint
    read = [pair for pair in read_pairs(config, inputs, run) if config.task in (None, pair.asked.task)]
    order = rng(run.seed, run.name, "pairs").permutation(len(read))[: config.limit]
    if config.task is not None and not read:
        raise BadInput(f"no pair of the task {config.task} is given", field="task")
    judge = judge_of(config, inputs, run)
    pairs = [pair for pair in (read[i] for i in order) if judge.fits(pair.asked, pair.first, pair.second)]
    if not pairs:
        raise BadInput("no pair of different answers fits the judge's context", field="judge")
    labels = label_all(judge, pairs, config, run)
    verdicts = [each.verdict.upto(config.times) for each in labels]
    comparisons = [
        labelled_comparison(pair, verdict, each.safe, judge.name, config)
        for pair, verdict, each in zip(pairs, verdicts, labels, strict=True)
    ]
    roots = list(dict.fromkeys(root_of(pair.prompt.dialog) for pair in pairs))
    apart = set(roots[: round(config.heldout_share * len(roots))])  # pairs of one conversation stay together
    test = [c for c in comparisons if c is not None and root_of(c.prompt.dialog) in apart]
    train = [c for c in comparisons if c is not None and root_of(c.prompt.dialog) not in apart]
    write_jsonl(run.directory / "heldout.jsonl", map(to_dict, test))
    write_jsonl(run.directory / "records.jsonl", map(to_dict, train))

    asked = [pair.asked for pair in pairs]
    rows = consistency_results(asked, [each.verdict for each in labels], judge=judge.name, seed=run.seed)
    rows += agreement_results(asked, verdicts, [pair.choices for pair in pairs], judge=judge.name, seed=run.seed)
    write_results(run.directory / "results.json", rows)
    undecided = sum(preference(verdict.probability) == 0.5 for verdict in verdicts)
    counts = {
        "undecided": undecided,
        "unsafe": comparisons.count(None) - undecided,
        "too_long": len(order) - len(pairs),
    }
    shares = {rating: sum(c.rating == rating for c in train) / max(len(train), 1) for rating in RATINGS}
    used = judge.used if isinstance(judge, ApiJudge) else None
    spent = {"tokens_read": used.read, "tokens_written": used.written} if used is not None and used.read else {}
    run.log(0, train=len(train), heldout=len(test), **counts, **shares, **spent)
    dropped = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    run.say(f"{len(train)} comparisons and {len(test)} held out; dropped: {dropped}")


def read_pairs(config: Config, inputs: dict[str, Any], run: Run) -> list[AnswerPair]:
    """The pairs of unequal answers, each once."""
    if bool(inputs.get("data")) == bool(inputs.get("samples")):
        raise BadInput("give comparisons (data) or samples to judge, one of the two", field="data")
    if inputs.get("data"):
        files = (Path(path) for path in inputs["data"])
        comparisons = (read_comparisons(path, task=config.data_task, say=run.say) for path in files)
        return pairs_from_comparisons(chain.from_iterable(comparisons))
    if not inputs.get("prompts"):
        raise BadInput("samples do not hold their prompts", field="prompts", fix="give the prompts they answer")
    prompts = {p.id: p for p in read_prompts_of(inputs["prompts"])}
    return pairs_from_samples([samples_by_prompt(Path(path)) for path in inputs["samples"]], prompts)


def judge_of(config: Config, inputs: dict[str, Any], run: Run) -> PairJudge:
    if inputs.get("reference") and config.by != "likelihood":
        raise BadInput("belongs to a judge by likelihood", field="reference", fix="set by: likelihood")
    if (config.judge_url is None) == (not inputs.get("judge")):
        raise BadInput("give a judge (a model's directory) or a judge_url, one of the two", field="judge")
    judge: PairJudge
    if config.judge_url is not None:
        name = config.judge_model or run.tuned(judge_model=served_model(config.judge_url))["judge_model"]
        memory = run.directory / "replies.jsonl"
        judge = ApiJudge(
            config.judge_url,
            name,
            memory,
            temperature=config.temperature,
            reasoning=config.reasoning,
            logprobs=config.judge_logprobs,
        )
    else:
        placement = Placement.of(run, config.dtype)
        engine = load_engine(inputs["judge"], placement).alone()
        asked: PairJudge
        if config.by == "likelihood":
            path = inputs.get("reference")
            reference = load_reference(path, engine, placement) if path else None
            asked = LikelihoodJudge(engine, reference, config.tokens_per_micro_batch)
        else:
            reasoning = Sampling(config.temperature, 1.0, config.max_tokens) if config.reasoning else None
            seed = seed_of(run.seed, run.name, "reasoning")
            asked = OptionJudge(engine, reasoning, seed, config.tokens_per_micro_batch)
        judge = SharedJudge(asked, placement.ranks)
    if config.times > 1 and not judge.varies:
        fix = "set reasoning and a temperature" if config.judge_url is None else "set a temperature"
        raise BadInput("this judge says the same each time", field="times", fix=fix)
    return judge


def label_all(judge: PairJudge, pairs: list[AnswerPair], config: Config, run: Run) -> list[PairLabel]:
    """What the judge says of every pair, kept in verdicts.jsonl chunk by chunk; a torn chunk is judged again."""
    path = run.directory / "verdicts.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []  # the last is empty, or torn
    whole = len(lines) if len(lines) == len(pairs) else len(lines) // CHUNK * CHUNK
    if path.exists():
        write_text(path, "".join(f"{line}\n" for line in lines[:whole]))
    labels = [_pair_label_of(json.loads(line)) for line in lines[:whole]]
    METER.add(*spent_on(path, -(-whole // CHUNK)))
    again = set[int]()
    if judge.varies:
        draw = rng(run.seed, run.name, "consistency")
        again = set(draw.permutation(len(pairs))[: config.consistency_pairs].tolist())
    if isinstance(judge, ApiJudge):
        often = max(config.times, config.consistency_times)
        announce(judge, [(p, often if i in again else config.times) for i, p in enumerate(pairs)][whole:], config, run)
    for start in range(len(labels), len(pairs), CHUNK):
        chunk, before, began = range(start, min(start + CHUNK, len(pairs))), METER.read, METER.seconds
        labelled: dict[int, PairLabel] = {}
        for some, times in (
            ([i for i in chunk if i not in again], config.times),
            ([i for i in chunk if i in again], max(config.times, config.consistency_times)),
        ):
            if not some:
                continue
            labelled |= zip(
                some, label_pairs(judge, [pairs[i] for i in some], times, config.safety_labels), strict=True
            )
        text = "".join(json_line(_line(i, pairs[i], labelled[i])) for i in chunk)
        note_spent(path, METER.read - before, METER.seconds - began)
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
            failpoint("chunk-written")
            file.flush()
            os.fsync(file.fileno())
        labels += [labelled[i] for i in chunk]
        run.progress(len(labels), len(pairs), "pair")
    return labels


def announce(judge: ApiJudge, pairs: Iterable[tuple[AnswerPair, int]], config: Config, run: Run) -> None:
    """Says what it will cost to ask these pairs, each so many times, before it is done. BadInput over the budget."""
    asked: list[Question] = []
    for pair, times in pairs:
        asked += judge.questions(pair.asked, pair.first, pair.second, times)
        if config.safety_labels and pair.asked.task == "safety":
            asked += [q for answer in (pair.first, pair.second) for q in judge.safety_questions(pair.asked, answer)]
    left = judge.unasked(asked)
    tokens = judge.estimate(left, config.max_tokens if config.reasoning else WORD)
    what = f"{len(left)} questions, about {tokens.read} tokens to read and {tokens.written} to write"
    if config.price is None:
        run.say(f"{what}; set price to hear what that costs")
        return
    cost = tokens.cost(config.price)
    run.say(f"{what}: about {cost:.2f} at a price of {config.price[0]:g} and {config.price[1]:g} a million")
    if config.budget is not None and cost > config.budget:
        raise BadInput(f"{what} cost about {cost:.2f}", field="budget", fix="raise it, or set a limit of pairs")


def label_pairs(judge: PairJudge, pairs: Sequence[AnswerPair], times: int, safety_labels: bool) -> list[PairLabel]:
    """What the judge says of these pairs, and of safety pairs how safe their answers are."""
    firsts, seconds = [p.first for p in pairs], [p.second for p in pairs]
    verdicts = judge.verdicts([p.asked for p in pairs], firsts, seconds, times=times)
    asks_safety = [safety_labels and p.asked.task == "safety" for p in pairs]
    answers = [
        (p.asked, text) for p, asks in zip(pairs, asks_safety, strict=True) if asks for text in (p.first, p.second)
    ]
    safe = iter(judge.safe([prompt for prompt, _ in answers], [text for _, text in answers]))
    return [
        PairLabel(v, (next(safe), next(safe)) if asks else None) for v, asks in zip(verdicts, asks_safety, strict=True)
    ]


def labelled_comparison(
    pair: AnswerPair, verdict: Verdict, safe: tuple[float, float] | None, name: str, config: Config
) -> Comparison | None:
    """The record of a pair; None where the judge is undecided or chose an unsafe answer over a safe one."""
    found = comparison_of(
        pair.asked,
        pair.first,
        pair.second,
        verdict,
        judge=name,
        safe=safe,
        degrees=config.degrees,
        model_first=pair.model_first,
        model_second=pair.model_second,
        finished_first=pair.finished_first,
        finished_second=pair.finished_second,
        batch=config.batch,
        surest=(config.surest_reasoned if config.reasoning else 1.0) if config.soft_labels else None,
    )
    return None if found is None else replace(found, prompt=pair.prompt)


def _line(index: int, pair: AnswerPair, label: PairLabel) -> dict[str, Any]:
    verdict = label.verdict
    line = {"index": index, "prompt": pair.prompt.id, "forward": verdict.forward, "backward": verdict.backward}
    return line if label.safe is None else line | {"safe": label.safe}


def _pair_label_of(line: dict[str, Any]) -> PairLabel:
    safe = tuple(line["safe"]) if "safe" in line else None
    return PairLabel(Verdict(tuple(line["forward"]), tuple(line["backward"])), safe)
