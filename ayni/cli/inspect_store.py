"""`ayni inspect STORE`: how far to trust a preference store's judgements, as tables or one JSON object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ayni.cli import VerbFailure
from ayni.cli.stages import tokenizer_path
from ayni.errors import BadInput
from ayni.feedback.address import without_password
from ayni.feedback.damage import Damaged
from ayni.feedback.entries import BatchProgress
from ayni.feedback.store import open_store
from ayni.maths.agreement import Agreement
from ayni.maths.statistics import Estimate
from ayni.quality.agreement import Agreements
from ayni.quality.batch_statistics import TokenCounter
from ayni.quality.report import BatchQuality, StoreQuality, quality_report
from ayni.quality.screening import GOLD_ACCURACY, LEAST
from ayni.text.tokenizer import load_tokenizer

REASONS = 5  # the commonest, of each batch


def inspect_store(address: str, model: Path | None, critic: Path | None, as_json: bool) -> dict[str, Any] | VerbFailure:
    """{store, judged, agreement, trusted, tasks, batches, annotators, results, progress}: StoreQuality as plain values.

    Tokens are counted by the model's tokenizer; without one, words. Of a damaged store {store, problems}, as an error.
    """
    if critic is not None:
        raise BadInput("a critic values tokens of records", field="critic", fix="inspect what the store exports")
    with open_store(address) as store:
        if problems := store.check():
            return _damaged(without_password(address), problems, as_json)
        found = quality_report(store, None if model is None else _counter(model))
        progress = {batch.id: store.progress(batch.id) for batch in store.batches()}
    if not as_json:
        _print(found, progress, Console(highlight=False))
    plain = {"store": without_password(address)} | asdict(found)
    counts = {name: asdict(each) for name, each in progress.items()}
    return plain | {"results": [asdict(row) for row in found.results()], "progress": counts}


def _damaged(where: str, problems: list[str], as_json: bool) -> VerbFailure:
    if not as_json:
        for problem in problems:
            print(_plain(problem))
    count = f"{len(problems)} things are wrong" if len(problems) > 1 else "one thing is wrong"
    return VerbFailure({"store": where, "problems": problems}, Damaged(f"{count}: {_plain(problems[0])}", where))


def _counter(model: Path) -> TokenCounter:
    tokenizer = load_tokenizer(tokenizer_path(model))
    return lambda text: len(tokenizer.encode(text))


def _print(found: StoreQuality, progress: dict[str, BatchProgress], console: Console) -> None:
    groups = {"everybody": found.agreement}
    if any(each.screening.verdict == "screened out" for each in found.annotators):
        groups["not screened out"] = found.trusted
    groups |= found.tasks | {each.batch: each.agreement for each in found.batches}
    for table in (_agreements(groups), _annotators(found), _choices(found.batches), _texts(found.batches)):
        console.print(table)
    for each in found.annotators:
        if each.screening.reasons:
            console.print(_plain(f"{each.name}: {each.screening.verdict}: {'; '.join(each.screening.reasons)}"))
    for batch in found.batches:
        of, done = batch.repeats, progress[batch.batch]
        console.print(
            _plain(f"{batch.batch}: {done.done} of {done.wanted} judgements, {done.turns} turns of dialogues")
        )
        console.print(f"  of {of.prompts} prompts {len(of.exact)} are repeated and {len(of.near)} nearly so")
        for kind, reasons in (("skipped", batch.skipped), ("flagged", batch.flagged)):
            for reason, times in list(reasons.items())[:REASONS]:
                console.print(_plain(f"  {kind} {times} ×: {reason[:80] or 'no reason'}"))


def _agreements(groups: dict[str, Agreements]) -> Table:
    title = "Agreement beyond chance, with 95% intervals"
    table = _table(title, "of", "AC2, degree", "AC1, which better", "alpha, degree", "items")
    for name, of in groups.items():
        cells = [_coefficient(each) for each in (of.degree, of.preference, of.alpha)]
        table.add_row(_plain(name), *cells, str(of.preference.n))
    return table


def _annotators(found: StoreQuality) -> Table:
    title = f"Annotators, who agree most first; screened by {GOLD_ACCURACY:.0%} of {LEAST} or more gold checks"
    columns = ("judged", "AC2 with others", "checks", "first", "hasty", "sec", "screening")
    table = _table(title, "annotator", *columns)
    for each in found.annotators:
        shares = (_share(each.checks, of=True), _share(each.first), _share(each.hasty))
        numbers = (str(each.judged), _coefficient(each.agreement.degree), *shares, _number(each.seconds))
        table.add_row(_plain(each.name), *numbers, each.screening.verdict.removeprefix("screened "))
    return table


def _choices(batches: Iterable[BatchQuality]) -> Table:
    columns = ("judged", "signif.", "better", "slightly", "neglig.", "checks", "first", "sec")
    table = _table("How the choices fall", "batch", *columns)
    for each in batches:
        rated = sum(each.degrees.values())
        degrees = [f"{times / rated:.0%}" if rated else "–" for rating, times in each.degrees.items() if rating]
        shares = (_share(each.checks, of=True), _share(each.first))
        table.add_row(_plain(each.batch), str(each.judged), *degrees, *shares, _number(each.seconds))
    return table


def _texts(batches: tuple[BatchQuality, ...]) -> Table:
    unit = batches[0].texts.unit if batches else "words"
    columns = ("comparisons", "turns", "per example", "in prompt", "in response")
    table = _table(f"What was compared, in {unit} (the paper's Table 6)", "batch", *columns)
    for each in batches:
        of = each.texts
        means = [_number(mean) for mean in (of.turns, of.example, of.prompt, of.response)]
        table.add_row(_plain(each.batch), str(of.comparisons), *means)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=f"\n{title}", title_justify="left", title_style="bold", box=None, padding=(0, 1), pad_edge=False
    )
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left")
    return table


def _coefficient(found: Agreement) -> str:
    if found.value is None:
        return "–"
    around = "" if found.interval is None else f" ({found.interval[0]:.2f}, {found.interval[1]:.2f})"
    return f"{found.value:.2f}{around}"


def _share(found: Estimate, of: bool = False) -> str:
    return "–" if found.value is None else f"{found.value:.0%}{f' of {found.n}' if of else ''}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _plain(text: str) -> Text:
    """What people wrote, without what could drive the terminal or turn text around."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
