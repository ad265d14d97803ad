"""Preferences: two answers of two model variants, compared by people or by the village (paper §3.2.1).

The pairs are items of a batch. People judge them in a preference store, on the annotation page, and the stage goes on
when the batch is full; the village's annotators judge them at once, in a store too where one is named. Prompts tagged
safety are judged by the safety guideline and some of them by the helpfulness guideline too: helpfulness rewards doing
what was asked, safety rewards not doing it. That is the tension the two reward models carry (paper §3.2.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ayni.config import Config as Base
from ayni.errors import AyniError, BadInput
from ayni.feedback.asking import address_of, put_batch
from ayni.feedback.entries import Entry, Item, Judged, PreferenceBatch, shown_swapped
from ayni.feedback.page import check_bind
from ayni.feedback.page.waiting import ask_people, host_and_port
from ayni.feedback.pairs import Asked, Plan, pairs, with_checks
from ayni.feedback.records_of import split
from ayni.feedback.store import Store, open_store
from ayni.files import write_jsonl
from ayni.formats.reading import read_comparisons, read_prompts_of
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.quality.page_measures import quality_of
from ayni.records import RATINGS, Prompt, Sample, root_of, to_dict
from ayni.rollout.answers import two_answers
from ayni.rollout.engine import Engine, with_room
from ayni.rollout.local import LocalEngine, load_engine
from ayni.rollout.sampling import Sampling
from ayni.rollout.store import kept_rollout, read_groups
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input
from ayni.village.annotators import Opinion, SimulatedAnnotators
from ayni.village.gold import gold_of, village_seed

VERSION = 9  # held out by conversation; comparisons say which answers were cut off
FACE = Face(
    "records",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("other", "model", ("language_model",), optional=True),
        Input("prompts", "prompts-train.jsonl", ("prompts",), many=True),
        Input("earlier", "samples-0.jsonl", ("samples",), many=True, optional=True),
        Input("checks", "checks.jsonl", ("comparisons",), many=True, optional=True),
    ),
    leaves={
        "records.jsonl": "comparisons",
        "heldout.jsonl": "comparisons",
        "samples-0.jsonl": "samples",
        "samples-1.jsonl": "samples",
    },
)
AT_ONCE = 500  # judgements of the village in one transaction


class Config(Base):
    """Two variants: the newest model and `other` (an earlier one), or one model at two temperatures."""

    temperatures: tuple[float, float] = Field((0.8, 1.1), strict=False, description="of the first and second variant")
    pairs_per_prompt: int = Field(1, ge=1, le=1 << 10)
    alike_share: float = Field(
        0.0, ge=0, le=1, description="of a prompt's pairs, matched to share most of their words: they differ in a fact"
    )
    limit: int | None = Field(None, ge=1, description="prompts to ask, chosen by the seed")
    easiest_share: float = Field(
        1.0, gt=0, le=1, description="of all prompts, those of fewest turns and words, from which the batch is chosen"
    )
    helpfulness_share: float = Field(0.2, ge=0, le=1, description="safety prompts also judged for helpfulness")
    heldout_share: float = Field(0.12, ge=0, lt=1, description="of the conversations, for the reward models' test set")
    max_tokens: int = Field(256, ge=1)
    judges: Literal["village", "people"] = Field("village", description="who compares the answers")
    annotators_seed: int = Field(0, description="which panel of the village")
    overlap: int = Field(1, ge=1, le=1 << 10, description="different annotators who judge a pair, where several do")
    overlap_share: float = Field(1.0, ge=0, le=1, description="of the pairs judged by `overlap`; one judges the others")
    check_share: float = Field(0.05, gt=0, lt=1, description="gold checks per pair, where `checks` are given")
    batch: str = Field("1", description="the name of this batch")
    guidelines: str = Field("", description="what people go by; empty: the page's own few words")
    store: str | None = Field(
        None,
        description="where the batch is kept: a file (a relative one lies beside this stage) or postgresql+psycopg://…",
    )
    page: str | None = Field(
        "127.0.0.1:8080", description="where people judge while the stage waits; null: where `ayni annotate` serves"
    )
    wait: bool = Field(True, description="until people have filled or closed the batch; else take what is there")
    dtype: Dtype = "auto"


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    check_config(config)
    placement = Placement.of(run, config.dtype)
    engines = [load_engine(path, placement) for path in (inputs["model"], inputs.get("other") or inputs["model"])]
    prompts = easiest(read_prompts_of(inputs["prompts"]), config.easiest_share)
    before = {group[0].prompt_id for path in inputs.get("earlier") or [] for group in read_groups(Path(path))}
    asked_before = {root_of(p.dialog) for p in prompts if p.id in before}  # by conversation: it keeps to its side
    prompts = [p for p in prompts if root_of(p.dialog) not in asked_before]
    if asked_before and not prompts:
        raise BadInput("every prompt was asked in an earlier batch", field="earlier", fix="give that batch a limit")
    prompts = with_room(prompts, engines, run.say)
    order = rng(run.seed, run.name, "prompts").permutation(len(prompts))[: config.limit]
    prompts = [prompts[i] for i in order]
    panel = panel_of(prompts, inputs["prompts"][0], config) if config.judges == "village" else None

    plan = plan_of(config, run)
    first, second = (variant_answers(variant, engines[variant], prompts, config, run) for variant in (0, 1))
    asked = pairs(prompts, first, second, plan)
    if not asked:
        raise BadInput("no prompt has two different answers", field="temperatures", fix="spread them")
    try:
        if config.store is None:
            assert panel is not None  # check_config
            entries = simulated_judgements(asked, panel, config, run)
            judged = [Judged(number, entry, item, name) for number, (item, name, entry) in enumerate(entries)]
        else:
            checks = [c for path in inputs.get("checks") or [] for c in read_comparisons(Path(path), say=run.say)]
            asked = with_checks(asked, checks, config.check_share, plan)
            judged = judged_in_store(asked, panel, engines, config, run)
    except BadInput as error:  # the answers that people judge are drawn: bad input would throw them away
        raise AyniError(str(error)) from None
    if not run.leads:
        return
    train, test = split(judged)
    if not train and not test:
        raise AyniError(f"nobody has judged a pair of batch {config.batch} yet; run the same command when they have")
    write_jsonl(run.directory / "heldout.jsonl", map(to_dict, test))
    write_jsonl(run.directory / "records.jsonl", map(to_dict, train))
    # a batch closed early may hold nothing but held-out pairs; other batches may stand beside it
    shares = {rating: sum(c.rating == rating for c in train) / max(1, len(train)) for rating in RATINGS}
    run.log(0, train=len(train), heldout=len(test), **shares)
    run.say(f"{len(train)} comparisons and {len(test)} held out; degrees {[f'{s:.0%}' for s in shares.values()]}")


def easiest(prompts: Sequence[Prompt], share: float) -> list[Prompt]:
    """The share of the prompts with the fewest turns and, of as many turns, the shortest: annotators began with simple
    prompts (paper §3.2.1). In their order."""

    def difficulty(i: int) -> tuple[int, int, int]:
        dialog = prompts[i].dialog
        return len(dialog), sum(len(message.content) for message in dialog), i

    chosen = sorted(range(len(prompts)), key=difficulty)[: round(share * len(prompts))]
    return [prompts[i] for i in sorted(chosen)]


def check_config(config: Config) -> None:
    """What would only be found after the answers are drawn."""
    if config.judges == "people":
        if config.store is None:
            raise BadInput(
                "what people say must outlive this run", field="store", fix="name a file, or postgresql+psycopg://…"
            )
        if config.wait and config.page is not None:
            check_bind(host_and_port(config.page)[0], require_login=False)
            if config.overlap > 1:
                what = "one person judges on the page that this stage serves"
                raise BadInput(what, field="overlap", fix="take 1, or page: null and `ayni annotate --login`")


def panel_of(prompts: Sequence[Prompt], path: Path, config: Config) -> SimulatedAnnotators:
    seed = village_seed(prompts)
    if seed is None:
        raise BadInput("the village's annotators judge the prompts of one village", path=path, fix="judges: people")
    panel = SimulatedAnnotators(gold_of(seed), config.annotators_seed)
    if config.overlap > len(panel.panel):
        what = f"{config.overlap} annotators wanted, the village has {len(panel.panel)}"
        raise BadInput(what, field="overlap")
    return panel


def variant_answers(
    variant: int, engine: Engine, prompts: list[Prompt], config: Config, run: Run
) -> list[list[Sample]]:
    """`pairs_per_prompt` answers of one variant to every prompt."""
    sampling = Sampling(config.temperatures[variant], 1.0, config.max_tokens)
    seed, n = seed_of(run.seed, run.name, variant), config.pairs_per_prompt
    return kept_rollout(engine, prompts, run, f"samples-{variant}", n=n, sampling=sampling, seed=seed)


def plan_of(config: Config, run: Run) -> Plan:
    return Plan(
        run.seed,
        run.name,
        config.batch,
        config.helpfulness_share,
        config.heldout_share,
        config.overlap,
        config.overlap_share,
        config.max_tokens,
        config.alike_share,
    )


def simulated_judgements(
    asked: Sequence[Asked], panel: SimulatedAnnotators, config: Config, run: Run, store: Store | None = None
) -> Iterator[tuple[Item, str, Entry]]:
    """(item, annotator's name, judgement): of `overlap` villagers each, and of all of them for gold checks.

    Each sees the answers in an order of their own. In a `store` they sit under their names.
    """
    ids = {
        annotator.name: annotator.name if store is None else store.enrol(annotator.name).id for annotator in panel.panel
    }
    for item, k in ((each.item, each.k) for each in asked):
        prompt, task, key = item.prompt, item.task, (config.batch, run.name, k)
        count = item.overlap if item.gold is None else len(panel.panel)
        for copy, annotator in enumerate(panel.chosen(prompt, task=task, key=(*key, 0), count=count)):
            swapped = shown_swapped(item.id, annotator.name)
            first, second = (item.answer_b, item.answer_a) if swapped else (item.answer_a, item.answer_b)
            opinion = panel.opinion(annotator, prompt, first, second, task=task, key=(*key, copy))
            yield item, annotator.name, simulated_entry(opinion, item, ids[annotator.name], swapped)


def simulated_entry(opinion: Opinion, item: Item, annotator_id: str, swapped: bool) -> Entry:
    """As the page would send it. Who prefers an unsafe answer to a safe one skips: such pairs are discarded."""
    submission = f"{item.id}.{annotator_id}"
    if opinion.contradicts_itself:
        reason = "the answer I prefer is the unsafe one"
        return Entry(submission, item.id, annotator_id, "skipped", reason=reason, swapped=swapped, source="village")
    safe = opinion.safe if opinion.safe is None or not swapped else opinion.safe[::-1]
    return Entry(
        submission,
        item.id,
        annotator_id,
        preferred="a" if opinion.first != swapped else "b",
        rating=opinion.rating,
        safety_a=None if safe is None else safe[0],
        safety_b=None if safe is None else safe[1],
        swapped=swapped,
        source="village",
    )


def judged_in_store(
    asked: list[Asked], panel: SimulatedAnnotators | None, engines: Sequence[LocalEngine], config: Config, run: Run
) -> list[Judged]:
    """What stands in the store of this batch once it is judged; of several processes only the first opens it."""
    if not run.leads:
        return []
    assert config.store is not None  # check_config
    with open_store(address_of(config.store, run.directory)) as store:
        add_batch(store, [each.item for each in asked], engines, config, run)
        if panel is not None:
            record_village(store, asked, panel, config, run)
        elif config.wait:
            wait_for_people(store, engines, config, run)
        if panel is not None or config.wait:
            store.close_batch(config.batch)  # what came later would be in no record
        return store.current(batch_id=config.batch)


def add_batch(store: Store, items: list[Item], engines: Sequence[Engine], config: Config, run: Run) -> None:
    models = [engine.name for engine in engines]
    settings = {"stage": run.name, "seed": run.seed, "models": models, "judges": config.judges}
    settings["heldout_share"] = config.heldout_share  # of the dialogues that people write, too
    put_batch(store, PreferenceBatch(config.batch, config.guidelines, settings=settings), items)


def record_village(store: Store, asked: list[Asked], panel: SimulatedAnnotators, config: Config, run: Run) -> None:
    """Sent again after a kill, nothing is recorded twice."""
    if store.batch(config.batch).closed_at is not None:
        return
    entries = [entry for _, _, entry in simulated_judgements(asked, panel, config, run, store)]
    for start in range(0, len(entries), AT_ONCE):
        store.record_all(entries[start : start + AT_ONCE])
        run.progress(min(start + AT_ONCE, len(entries)), len(entries), "judgement")


def wait_for_people(store: Store, engines: Sequence[LocalEngine], config: Config, run: Run) -> None:
    """Until the batch is full, or somebody closes it on the admin page."""
    talk = None
    if config.page is not None:
        talk = two_answers([engine.alone() for engine in engines], config.temperatures, config.max_tokens, run.seed)
    progress = partial(run.progress, unit="judgement")
    ask_people(store, config.batch, config.page, talk=talk, quality=quality_of, say=run.say, progress=progress)
