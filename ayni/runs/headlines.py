"""The numbers that a person wants to know first: one table for the command line and for the head of the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ayni.evaluate.results import Result


@dataclass(frozen=True)
class Headline:
    """One metric: what to call it, and whether it is a share or counts in a `unit`.

    `label` and `colour` are of its card in the report, where it has one; `{axis}`, `{model}` and `{against}` stand for
    the row's own. Cards are about the final model, but for those of `any_model`.
    """

    metric: str
    name: str
    share: bool = False
    unit: str = ""
    label: str = ""
    colour: str = ""
    any_model: bool = False


NO_INTERVAL = "too few for an interval"
HEADLINES = (
    Headline("win_rate", "win rate", share=True, label="{model} beats {against}", colour="plum"),
    Headline("win_rate_length_controlled", "win rate at equal length", share=True),
    Headline("content", "right content", share=True, label="{model} has it right", colour="teal"),
    Headline("content_gain", "content gained", share=True),
    Headline("broken", "broken answers", share=True),
    Headline("right_fact", "right fact preferred", share=True),
    Headline("kept", "instruction kept", share=True, label="{axis}, turns 2 to the last, {model}", colour="teal"),
    Headline("kept_gain", "more instructions kept", share=True),
    Headline("refusal_rate", "refused", share=True, label="{axis} prompts, {model}", colour="clay"),
    Headline("violation", "violations", share=True),
    Headline("false_refusal", "false refusals", share=True),
    Headline("kl", "KL", unit="nats per answer", label="{model} to {against}", colour="ochre"),
    Headline("accuracy", "reward accuracy", share=True),
    Headline("accuracy_gain", "accuracy gained", share=True),
    Headline("accuracy_over_baseline", "accuracy over a baseline", share=True),
    Headline("accuracy_added", "accuracy added to words", share=True),
    Headline("bits_per_byte", "bits per byte", unit="held-out text", label="{model}", colour="muted", any_model=True),
    Headline("perplexity_ratio", "perplexity of good answers", unit="times"),
    Headline("proxy_change", "change of reward"),
    Headline("gold_change", "change of gold"),
)


def headlines(results: Iterable[Result]) -> Iterator[tuple[Headline, Result]]:
    """The rows that hold one of them, in the table's order."""
    rows = list(results)
    for headline in HEADLINES:
        yield from ((headline, row) for row in rows if row.metric == headline.metric and row.value is not None)


def counted(row: Result) -> str:
    """What a number was counted on: wins, ties and losses or n, and in how many clusters where those are fewer."""
    counts = f"n {row.n:,}" if row.n else ""
    if row.wins is not None:
        counts = f"{row.wins:,} won, {row.ties:,} tied, {row.losses:,} lost"
    fewer = row.clusters is not None and row.n is not None and row.clusters < row.n
    return f"{counts} in {row.clusters:,} clusters" if fewer else counts


def too_few(row: Result) -> bool:
    """Whether a number has no interval because what was drawn tells too little about its spread."""
    return row.value is not None and row.interval is None and row.clusters is not None
