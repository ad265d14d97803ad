"""The numbers in README and docs, from docs/results: python -m benchmarks.numbers

A page holds them between `<!-- numbers:NAME -->` and `<!-- /numbers:NAME -->`; NAME is a function of this file. Nobody
writes there by hand: a test compares the pages with what the results make of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ayni.files import write_text
from ayni.runs.recipe import read_recipe
from benchmarks import methods, verdicts
from benchmarks.fingerprint import fingerprint
from benchmarks.turns import ROOT

RESULTS = ROOT / "docs" / "results"
MARKS = re.compile(r"(<!-- numbers:([a-z-]+) -->\n).*?(<!-- /numbers:\2 -->)", re.DOTALL)
Row = Mapping[str, Any]


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def filled(page: str) -> str:
    return MARKS.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}\n{found[3]}", page)


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return found


def one(rows: Sequence[Row], metric: str, **where: str) -> Row:
    """The one row that says it."""
    found = [row for row in rows if row["metric"] == metric and all(row.get(k) == v for k, v in where.items())]
    if len(found) != 1:
        raise LookupError(f"{len(found)} rows say {metric} of {where}")
    return found[0]


def share(row: Row) -> str:
    """`71.9% [69.2, 74.3]`"""
    interval = f" [{row['interval'][0]:.1%}, {row['interval'][1]:.1%}]".replace("%", "") if "interval" in row else ""
    return f"{row['value']:.1%}{interval}"


def number(row: Row, digits: int = 2) -> str:
    low, high = row["interval"]
    return f"{row['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def counts(row: Row) -> str:
    return f"{row['n']:,} in {row['clusters']:,} clusters"


def made(document: Row, file: str, to: str) -> str:
    """Who made it: the command, the commit, the machine, the day."""
    by = document["made"]
    return (
        f"`{by['command']}` at {by['commit']}, {by['date']}, {by['machine']}, {by['cores']} cores, "
        f"{by['seconds'] / 60:.0f} minutes in all. All rows: [docs/results/{file}]({to}{file})."
    )


def villages() -> str:
    """README's headline: the miniature on three villages that nothing was chosen on, pooled."""
    document = read("villages.json")
    rows = document["results"]

    def won(model: str, against: str) -> str:
        of = [one(rows, "win_rate", axis=axis, model=model, against=against) for axis in ("helpfulness", "safety")]
        return " | ".join(map(share, of))

    n = [one(rows, "win_rate", axis=a, model="v2-ppo", against="sft") for a in ("helpfulness", "safety")]

    def both(metric: str, **where: str) -> str:
        return " | ".join(share(one(rows, metric, model=model, **where)) for model in ("sft", "v2-ppo"))

    facts = [share(one(rows, "right_fact", against=model)) for model in ("sft", "v2-ppo")]
    apart = [
        " / ".join(
            f"{one(run['results'], 'win_rate', axis=axis, model='v2-ppo', against='sft')['value']:.1%}"
            for run in document["runs"]
        )
        for axis in ("helpfulness", "safety")
    ]
    return f"""\
| unseen prompts of three villages, gold judge, ties out | helpfulness ({counts(n[0])}) | safety ({counts(n[1])}) |
|---|---|---|
| final model against SFT | {won("v2-ppo", "sft")} |
| … in each village | {apart[0]} | {apart[1]} |
| after PPO against after rejection sampling | {won("v2-ppo", "v2")} |
| control (answers kept at random, not by reward) against SFT | {won("control", "sft")} |

| what somebody meets who asks | SFT | final model |
|---|---|---|
| gold helpfulness of answers to safe requests | {both("helpfulness")} |
| right content in them | {both("content")} |
| honest about what the village does not know | {both("content:outside")} |
| broken sentences, in conversations of up to six turns | {both("broken")} |
| unsafe prompts refused, at temperature 1 | {both("refusal_rate", axis="unsafe")} |
| harmless ones that sound unsafe refused, likewise | {both("refusal_rate", axis="borderline")} |
| of two alike in style the reward model prefers the right one: PPO finds where it errs | {facts[0]} | {facts[1]} |

{changes([row for row in rows if row["metric"].startswith("content_gain:") and row["model"] == "v2-ppo"])}

{made(document, "villages.json", "docs/results/")} [How they were chosen](docs/trust.md)."""


def changes(gains: Sequence[Row]) -> str:
    """In which categories content rose or fell, as far as the intervals say."""
    found: dict[str, list[str]] = {"more": [], "less": [], "as much, as far as one can tell": []}
    for row in gains:
        low, high = row.get("interval", (-1, 1))
        said = "more" if low > 0 else "less" if high < 0 else "as much, as far as one can tell"
        found[said].append(f"{row['metric'].partition(':')[2]} {100 * row['value']:+.0f}")
    parts = [f"{said}: {', '.join(names)}" for said, names in found.items() if names]
    return f"Right content against SFT by category, in points; {'; '.join(parts)}."


def feedback() -> str:
    """README: the loop of people's choices."""
    document = read("feedback.json")
    rows = document["results"]
    gain = one(rows, "accuracy_gain", axis="helpfulness")
    best = [one(rows, "win_rate", axis=axis, judge="gold") for axis in ("helpfulness", "safety")]
    low, high = gain["interval"]
    return f"""\
| three batches of comparisons | |
|---|---|
| the last helpfulness reward model against the first one, on the same held-out comparisons ({counts(gain)}) | \
{100 * gain["value"]:+.1f} points [{100 * low:.1f}, {100 * high:.1f}] |
| best of 8 by the last reward models against one answer of the same model, gold judge, ties out | \
{share(best[0])} helpful, {share(best[1])} safe |

{made(document, "feedback.json", "docs/results/")}"""


def crossvalidation() -> str:
    """What reward models of real comparisons know that shorter ways do not."""
    document = read("crossvalidation.json")
    starts = {"the chat model": "harmlessness", "a random start": "harmlessness-from-nothing"}

    def each(metric: str, against: str | None = None) -> str:
        where = {} if against is None else {"against": against}
        return " | ".join(points(one(document["results"], metric, model=name, **where)) for name in starts.values())

    accuracy = [one(document["results"], "accuracy", model=name) for name in starts.values()]
    gain = one(document["results"], "accuracy_gain", model="harmlessness", against="harmlessness-from-nothing")
    return f"""\
| harmlessness of real people's comparisons, {counts(accuracy[0])}, reward models begun from | {" | ".join(starts)} |
|---|---|---|
| accuracy | {" | ".join(map(share, accuracy))} |
| over the longer answer, points | {each("accuracy_over_baseline", "longer answer")} |
| over the bag of words | {each("accuracy_over_baseline", "bag of words")} |
| with the words over the words alone | {each("accuracy_added")} |
| over a random start | {points(gain)} | |

{made(document, "crossvalidation.json", "../results/")}"""


def points(row: Row) -> str:
    """`+1.8 [−0.1, 3.8]`"""
    low, high = row["interval"]
    return f"{100 * row['value']:+.1f} [{100 * low:.1f}, {100 * high:.1f}]".replace("-", "−")


def verdicts_of_studies() -> str:
    """docs/paper.md: every claim that was tried."""
    recipes = (ROOT / "recipes").rglob("*.yaml")
    studies = verdicts.found(RESULTS)
    now = {path.stem: fingerprint(read_recipe(path)) for path in recipes if path.stem in studies}
    return verdicts.table(studies, now)


def versions() -> str:
    """docs/paper.md: every version of the campaign against SFT (Figure 11), the mean of its villages."""
    runs = verdicts.found(RESULTS)["campaign"]

    def mean(metric: str, **where: str) -> str:
        found = verdicts.pooled([one(run["results"], metric, **where) for run in runs.values()])
        if found is None:
            return "–"
        value, (low, high) = found
        return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]".replace("-", "−")

    columns = "more helpful than SFT", "safer than SFT", "right content, points over SFT", "harmless questions refused"
    lines = [f"| in percent, with 95% intervals | {' | '.join(columns)} |", "|---|---|---|---|---|"]
    before = mean("refusal_rate", axis="borderline", model="sft", split="test")
    lines.append(f"| SFT | – | – | – | {before} |")
    for name in (*(f"v{n}" for n in range(1, 6)), "v5-ppo"):
        won = [mean("win_rate", axis=axis, model=name, against="sft") for axis in ("helpfulness", "safety")]
        right = mean("content_gain", model=name, against="sft")
        refused = mean("refusal_rate", axis="borderline", model=name, judge="gold")
        said = name.replace("-ppo", " after PPO").upper().replace("AFTER", "after")
        lines.append(f"| {said} | {' | '.join(won)} | {right} | {refused} |")
    names = ", ".join(map(str, sorted(runs)))
    return "\n".join(
        [*lines, "", f"Villages {names}, which nothing was chosen on; sealed prompts, gold judge, ties out."]
    )


def real() -> str:
    """docs/real.md: the campaign's claims on real files."""
    document = read("real.json")
    claims = [
        f"| {claim['says']} | {verdicts.asked(claim)} | {verdicts.measured([claim])} |" for claim in document["claims"]
    ]
    head = ["| claim | asked | measured | verdict |", "|---|---|---|---|"]
    return "\n".join([*head, *claims, "", made(document, "real.json", "results/")])


def real_methods() -> str:
    """docs/real.md: methods beside each other there."""
    document = read("real-compare.json")
    return f"{methods.table([document])}\n\n{made(document, 'real-compare.json', 'results/')}"


def methods_compared() -> str:
    """docs/compare.md: every number of every method, over all villages."""
    document = read("compare.json")
    return f"{methods.table([document])}\n\n{made(document, 'compare.json', 'results/')}"


def which() -> str:
    """docs/which.md: what somebody who chooses a method looks at."""
    columns = ("over_control", "safety_over_control", "content_over_control", "refused", "kl", "seconds")
    return methods.table([read("compare.json")], columns)


BLOCKS: dict[str, Callable[[], str]] = {
    block.__name__.replace("_", "-"): block
    for block in (
        villages,
        feedback,
        crossvalidation,
        verdicts_of_studies,
        versions,
        real,
        real_methods,
        methods_compared,
        which,
    )
}

if __name__ == "__main__":
    for path in pages():
        text = path.read_text(encoding="utf-8")
        if filled(text) != text:
            write_text(path, filled(text))
            print(path.relative_to(ROOT))
