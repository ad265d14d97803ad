"""People compare two models' answers blind: asking them, waiting for what they say, or reading what they have said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from ayni.errors import AyniError, BadInput
from ayni.evaluate.people import PEOPLE, Contest, contests_in, contests_of, items_of
from ayni.evaluate.splits import Evaluation, check_split
from ayni.feedback.asking import address_of, put_batch
from ayni.feedback.entries import Judged, PreferenceBatch
from ayni.feedback.page import check_bind
from ayni.feedback.page.views import Quality
from ayni.feedback.page.waiting import ask_people, host_and_port
from ayni.feedback.store import open_store
from ayni.formats.reading import read_comparisons
from ayni.records import Prompt, Sample
from ayni.rollout.local import LocalEngine
from ayni.run import Run


class Asking(Evaluation):
    store: str | None = Field(
        None,
        description="people judge in it: a file (a relative one lies beside this stage) or postgresql+psycopg://…",
    )
    page: str | None = Field(
        "127.0.0.1:8080", description="where people judge while the stage waits; null: where `ayni annotate` serves"
    )
    batch: str = Field("", description="the name of people's batch; empty: the stage's")
    guidelines: str = Field("", description="what people go by; empty: the page's own few words")
    overlap: int = Field(1, ge=1, le=1 << 10, description="people who judge a pair")


def check_people(config: Asking, inputs: Mapping[str, Any], *, chooses: bool) -> None:
    """What would only be found after the answers are drawn. `chooses`: whether `model`'s answer is one of several."""
    if config.store is None and not inputs.get("people"):
        return
    if not inputs.get("against"):
        raise BadInput("people compare two models' answers", field="against", fix="give the other model")
    if inputs.get("people"):
        if inputs.get("prompts") or config.store is not None or chooses:
            what = "what people have judged already has its prompts and answers"
            raise BadInput(what, field="people", fix="leave out prompts, store and best_of")
    elif not inputs.get("prompts"):
        raise BadInput("people need answers to judge", field="prompts", fix="give prompts")
    elif config.page is not None:
        check_bind(host_and_port(config.page)[0], require_login=False)
        if config.overlap > 1:
            what = "one person judges on the page that this stage serves"
            raise BadInput(what, field="overlap", fix="take 1, or page: null and `ayni annotate --login`")


def recorded(engines: Mapping[str, LocalEngine], config: Asking, inputs: Mapping[str, Any], run: Run) -> list[Contest]:
    """What people have said of these two models' answers; BadInput where a prompt is of another split."""
    comparisons = [c for path in inputs["people"] for c in read_comparisons(Path(path), say=run.say)]
    check_split([c.prompt for c in comparisons], final=config.final, path=inputs["people"][0])
    contests = contests_in(comparisons, engines["model"].name, engines["against"].name)
    votes = sum(len(contest.votes) for contest in contests)
    run.say(f"people have judged {len(contests)} pairs of answers, {votes} times")
    return contests


def ask(
    prompts: Sequence[Prompt],
    ours: Sequence[Sample],
    theirs: Sequence[Sample],
    config: Asking,
    run: Run,
    quality: Quality,
) -> list[Contest]:
    """Puts the answers before people, and waits for what they say; `quality` is what the page's admin sees of it."""
    assert config.store is not None  # who calls it has looked
    batch = config.batch or run.name
    items = items_of(prompts, ours, theirs, batch=batch, overlap=config.overlap, seed=run.seed)
    judged: list[Judged] = []
    try:
        if items:
            with open_store(address_of(config.store, run.directory)) as store:
                models = sorted({item.model_a for item in items} | {item.model_b for item in items})
                settings = {"stage": run.name, "seed": run.seed, "models": models, "judges": PEOPLE}
                put_batch(store, PreferenceBatch(batch, config.guidelines, settings=settings), items)
                progress = partial(run.progress, unit="judgement")
                ask_people(store, batch, config.page, quality=quality, say=run.say, progress=progress)
                store.close_batch(batch)  # what came later would be in no number
                judged = store.current(batch_id=batch)
    except BadInput as error:  # the answers that people judge are drawn: bad input would throw them away
        raise AyniError(str(error)) from None
    return contests_of(prompts, ours, theirs, judged)
