"""How often the 95% intervals hold the truth, in simulated experiments whose items stand or fall together as ours do.

    python -m benchmarks.coverage

writes docs/results/coverage.json and the table of docs/statistics.md. Every experiment draws clusters and then items,
so the truth is known: the share (mean, ratio) of all the clusters there could be. Beside ours stand the percentile
bootstrap over clusters, and the interval that counts items as if each had been drawn by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ayni.files import write_text
from ayni.maths.clustered import clustered_fraction, clustered_gain, clustered_mean, clustered_ratio, clustered_share
from ayni.maths.statistics import Estimate
from ayni.seeds import rng
from benchmarks.machine import described
from benchmarks.turns import ROOT

PAGE, RESULTS = ROOT / "docs" / "statistics.md", ROOT / "docs" / "results" / "coverage.json"
BEGIN, END = "<!-- coverage -->", "<!-- /coverage -->"
HEAD = (
    "| what | of | truth | correlation in a cluster | our interval | cluster bootstrap | counting items |\n"
    "|---|---|---|---|---|---|---|\n"
)
EXPERIMENTS, RESAMPLES, LEVEL = 1000, 400, 0.95

Draw = np.random.Generator
Floats = NDArray[np.float64]
Owners = NDArray[np.int64]
Grouping = Callable[[Draw], Owners]  # the cluster of each item


@dataclass(frozen=True)
class Items:
    """One experiment: what was counted, what each item weighs (a text's bytes, else 1), and its cluster; all (n,)."""

    values: Floats
    owners: Owners
    weights: Floats | None = None


@dataclass(frozen=True)
class Study:
    """One sort of experiment: what is measured on what, and what the answer is."""

    of: str
    items: str
    truth: float
    correlation: float  # between two items of a cluster
    experiment: Callable[[Draw], Items]

    def interval(self, items: Items, clusters: Sequence[int]) -> Estimate:
        """The one that results.json would hold."""
        if items.weights is not None:
            return clustered_ratio(items.values, items.weights, clusters, LEVEL)
        of = {"accuracy gained": clustered_gain, "right content": clustered_fraction, "mean score": clustered_mean}
        return of.get(self.of, clustered_share)(items.values, clusters, LEVEL)


def even(clusters: int, each: int) -> Grouping:
    return lambda draw: np.repeat(np.arange(clusters), each)


def uneven(clusters: int, items: int) -> Grouping:
    """Clusters of 1, 2, 3 … items, the small ones the commonest; about `items` in all."""
    return lambda draw: np.repeat(np.arange(clusters), draw.geometric(clusters / items, clusters))


def shares(draw: Draw, truth: float, correlation: float, owners: Owners) -> Floats:
    """Of each item the probability that it is right: its cluster's, which is beta, so that two items correlate so."""
    if correlation == 0:
        return np.full(owners.size, truth)
    strength = (1 - correlation) / correlation
    return draw.beta(truth * strength, (1 - truth) * strength, owners.max() + 1)[owners]


def share(grouping: Grouping, truth: float, correlation: float, draw: Draw) -> Items:
    owners = grouping(draw)
    return Items((draw.random(owners.size) < shares(draw, truth, correlation, owners)) * 1.0, owners)


def graded(grouping: Grouping, truth: float, correlation: float, draw: Draw) -> Items:
    """Quarters of an answer are right or not, each with its cluster's probability."""
    owners = grouping(draw)
    return Items(draw.binomial(4, shares(draw, truth, correlation, owners)) / 4, owners)


def with_ties(grouping: Grouping, truth: float, correlation: float, draw: Draw) -> Items:
    """A third of prompts are tied whatever their cluster; `truth` is the share with ties as half."""
    decided = share(grouping, (truth - 1 / 6) * 3 / 2, correlation, draw)
    return Items(np.where(draw.random(decided.owners.size) < 1 / 3, 0.5, decided.values), decided.owners)


def annotators(prompts: int, truth: float, correlation: float, draw: Draw) -> Items:
    """One to three pairs of a prompt, each judged by three, who half of the time all say the same of a pair."""
    pairs = np.repeat(np.arange(prompts), draw.integers(1, 4, prompts))
    of_pair = shares(draw, truth, correlation, pairs)[:, None]
    alone, together = draw.random((pairs.size, 3)) < of_pair, draw.random((pairs.size, 1)) < of_pair
    said = np.where(draw.random((pairs.size, 1)) < 0.5, together, alone)
    return Items(said.flatten() * 1.0, np.repeat(pairs, 3))


def gain(grouping: Grouping, truth: float, correlation: float, draw: Draw) -> Items:
    """A later model is right on `truth` more of the pairs of which the earlier one was right on 65%."""
    owners = grouping(draw)
    before = draw.random(owners.size) < shares(draw, 0.65, correlation, owners)
    # it mends a fifth of what was wrong, and breaks so much of what was right that the gain is left
    mends, breaks = draw.random(owners.size) < 0.2, draw.random(owners.size) < (0.2 * 0.35 - truth) / 0.65
    return Items(np.where(before, ~breaks, mends) * 1.0 - before, owners)


def mean(grouping: Grouping, truth: float, correlation: float, draw: Draw) -> Items:
    owners = grouping(draw)
    of_cluster = draw.normal(truth, correlation**0.5, owners.max() + 1)[owners]
    return Items(of_cluster + draw.normal(0, (1 - correlation) ** 0.5, owners.size), owners)


def bits(texts: int, truth: float, draw: Draw) -> Items:
    """Texts of very unequal length, some harder than others."""
    sizes = np.exp(draw.normal(7, 0.7, texts))
    rates = truth * np.exp(draw.normal(-(0.25**2) / 2, 0.25, texts))
    return Items(rates * sizes, np.arange(texts), sizes)


def studies() -> Iterator[Study]:
    """Clusters like those of the village, of real preference data and of our held-out texts."""
    accuracy, wins, ties = "reward accuracy", "win rate, ties out", "win rate, ties as half"
    four, of_four = even(300, 4), "four pairs of each of 300 prompts"
    topics, of_topics = even(20, 28), "560 prompts of 20 topics"
    subjects, of_subjects = uneven(200, 1300), "about 1,300 prompts of 200 subjects, unequal"
    several = "one to three pairs of each of 150 prompts, three annotators a pair"
    for truth in (0.65, 0.75, 0.95):
        for within in (0.2, 0.5):
            yield Study(accuracy, of_four, truth, within, partial(share, four, truth, within))
        yield Study(accuracy, several, truth, 0.2, partial(annotators, 150, truth, 0.2))
    for truth in (0.5, 0.75, 0.95):
        for within in (0.05, 0.1, 0.2):
            yield Study(wins, of_topics, truth, within, partial(share, topics, truth, within))
        for within in (0.1, 0.3):
            yield Study(wins, of_subjects, truth, within, partial(share, subjects, truth, within))
        alike = "560 prompts of 20 topics that do not differ"
        yield Study(wins, alike, truth, 0.0, partial(share, topics, truth, 0.0))
        yield Study(wins, "400 prompts, each by itself", truth, 0.0, partial(share, even(400, 1), truth, 0.0))
    for truth in (0.5, 0.75):
        yield Study(ties, of_topics, truth, 0.1, partial(with_ties, topics, truth, 0.1))
    for truth in (0.0, 0.04):
        yield Study("accuracy gained", of_four, truth, 0.5, partial(gain, four, truth, 0.5))
    for truth in (0.7, 0.9, 0.95):
        yield Study("right content", of_topics, truth, 0.1, partial(graded, topics, truth, 0.1))
        yield Study("right content", of_subjects, truth, 0.3, partial(graded, subjects, truth, 0.3))
        few = even(12, 10)
        yield Study("right content", "120 prompts of 12 topics", truth, 0.1, partial(graded, few, truth, 0.1))
    yield Study("mean score", of_topics, 1.0, 0.1, partial(mean, topics, 1.0, 0.1))
    yield Study("mean score", of_subjects, 1.0, 0.3, partial(mean, subjects, 1.0, 0.3))
    yield Study("bits per byte", "100 texts, unequal", 1.5, 0.0, partial(bits, 100, 1.5))


def bootstrap(items: Items, draw: Draw) -> tuple[float, float]:
    """The percentiles of what clusters drawn again say."""
    tops, bottoms = np.bincount(items.owners, items.values), np.bincount(items.owners, items.weights)
    chosen = draw.integers(0, tops.size, (RESAMPLES, tops.size))
    low, high = np.quantile(tops[chosen].sum(1) / bottoms[chosen].sum(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def coverage(study: Study, experiments: int = EXPERIMENTS) -> dict[str, Any]:
    """A row of the results: in which shares of experiments the three intervals hold the truth, and their mean widths.

    The random numbers are the study's own; the first experiments are the same however many there are.
    """
    draw, again = (rng("coverage", of, study.of, study.items, study.truth, study.correlation) for of in ("items", "b"))
    bounds = np.zeros((3, experiments, 2))
    for i in range(experiments):
        items = study.experiment(draw)
        ours, alone = (study.interval(items, owners) for owners in (items.owners.tolist(), range(items.owners.size)))
        bounds[:, i] = (ours.low, ours.high), bootstrap(items, again), (alone.low, alone.high)
    held = ((bounds[..., 0] <= study.truth) & (study.truth <= bounds[..., 1])).mean(1).tolist()
    widths = (bounds[..., 1] - bounds[..., 0]).mean(1).round(4).tolist()
    row = {"of": study.of, "items": study.items, "truth": study.truth, "correlation": study.correlation}
    for name, share_held, width in zip(("", "_by_bootstrap", "_by_items"), held, widths, strict=True):
        row |= {f"held{name}": share_held, f"width{name}": width}
    return row


def filled(page: str, report: dict[str, Any]) -> str:
    """The page, with the part between the marks as the results have it: a row for each sort of experiment."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    sorts: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in report["results"]:
        sorts.setdefault((row["of"], row["items"]), []).append(row)
    lines = []
    for name, rows in sorts.items():
        held = (f"{_span(rows, key, 100)}%" for key in ("held", "held_by_bootstrap", "held_by_items"))
        lines.append(f"| {' | '.join((*name, _span(rows, 'truth'), _span(rows, 'correlation'), *held))} |")
    about = f"{report['experiments']:,} experiments for each truth and correlation, {report['date']}"
    versions = ", ".join(f"{name} {report['versions'][name]}" for name in ("python", "numpy"))
    said = f"{about}, commit {report['commit']}, {versions}:"
    return f"{before}{BEGIN}\n{said}\n\n{HEAD}" + "\n".join(lines) + f"\n{END}{after}"


def _span(rows: Sequence[dict[str, Any]], key: str, scale: float = 1) -> str:
    found = [row[key] * scale for row in rows]
    return " to ".join(dict.fromkeys(f"{end:.4g}" for end in (min(found), max(found))))


def main() -> None:
    rows = []
    for study in studies():
        rows.append(coverage(study))
        print(*rows[-1].values(), sep="  ", flush=True)
    report: dict[str, Any] = {"command": "python -m benchmarks.coverage"} | described("cpu")
    report |= {"experiments": EXPERIMENTS, "level": LEVEL, "results": rows}
    write_text(RESULTS, json.dumps(report, indent=1) + "\n")
    write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), report))


if __name__ == "__main__":
    main()
