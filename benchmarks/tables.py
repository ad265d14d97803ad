"""docs/benchmarks.md's tables from docs/results/benchmarks-*.json: python -m benchmarks.tables"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from ayni.files import write_text
from benchmarks.turns import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "docs" / "results"
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
NAMES = {
    "sft": "SFT",
    "reward": "reward model",
    "dpo": "DPO",
    "generate": "sampling",
    "ppo": "PPO",
    "checkpoint": "a checkpoint",
    "tokenise": "tokenising",
    "read_records": "reading records",
}
VARIANTS = {"fixed": "16 × (64 + 128)", "ragged": "ragged", "samples": "16 answers to one prompt"}
WITHOUT_A_MODEL = ("tokenise", "read_records")
HEAD = "| work, shape, number format | ayni | peer | ratio | peak memory, MB |\n|---|---|---|---|---|\n"


def write() -> None:
    """The page, with the part between the marks as the results have it."""
    write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), read()))


def read() -> list[dict[str, Any]]:
    """The results of every machine that was measured."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("benchmarks-*.json"))]


def filled(page: str, results: list[dict[str, Any]]) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    said = "\n\n".join(map(section, results)) or "Not measured with these scripts yet: `make bench`."
    return f"{before}{BEGIN}\n{said}\n{END}{after}"


def section(result: dict[str, Any]) -> str:
    """One machine: who it is, the rows beside peers, what ours does by itself."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    works = [work for work in result["works"] if "rows" in work]
    commits = ", ".join(dict.fromkeys(work.get("commit", result["commit"]) for work in works)) or result["commit"]
    threads = works[0]["threads"] if works else 0
    about = (
        f"{result['date']}, {result['cores']} cores, {threads} threads, {result['memory_gb']} GB; load at the start "
        f"{result['load']}; {result['minutes']:g} minutes; commit {commits}; {versions}."
    )
    rows = [row_of(work, row) for work in works for row in work["rows"] if "peer" in row]
    alone = [line for work in works for row in work["rows"] if "peer" not in row for line in lines_of(work, row)]
    return "\n\n".join([f"### {result['machine']}", about + limits(works), HEAD + "\n".join(rows), "\n".join(alone)])


def limits(works: list[dict[str, Any]]) -> str:
    """The ceilings of each number format, the least and the most that the works met."""
    found: dict[str, list[dict[str, float]]] = {}
    for work in works:
        for dtype, seen in work["ceilings"].items():
            found.setdefault(dtype, []).append(seen)
    if not found:
        return ""
    products = ", ".join(f"{dtype} {span(seen['flops_s'] for seen in all_)} GFLOP/s" for dtype, all_ in found.items())
    copied = span(seen["bytes_s"] for all_ in found.values() for seen in all_)
    return f" Ceilings: {products}, a copy {copied} GB/s."


def span(values: Iterable[float]) -> str:
    """`143 to 184`, in units of 10⁹."""
    shown = [f"{value / 1e9:,.0f}" for value in sorted(values)]
    return shown[0] if shown[0] == shown[-1] else f"{shown[0]} to {shown[-1]}"


def row_of(work: dict[str, Any], row: dict[str, Any]) -> str:
    peer, _, dtype = row["peer"].rpartition(" ")
    ours, theirs = (short(row[key]) for key in ("speed", "peer_speed"))
    memory = f"{row['memory']:,.0f} / {row['peer_memory']:,.0f}"
    what = title(work, "best" if row.get("best") else dtype)
    if row.get("best"):
        ours, peer = f"{ours} ({row['side'].rpartition(' ')[2]})", f"{peer} ({dtype})"
    ratio = f"**{row['ratio']:.2f}** [{row['least']:.2f}, {row['most']:.2f}]"
    return f"| {what} | {ours} {work['unit']} | {peer} {theirs} | {ratio} | {memory} |"


def lines_of(work: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """Shares of the ceilings, and where the seconds of an iteration go."""
    what, said = title(work, row["side"].rpartition(" ")[2]), []
    if "of_products" in row:
        ceiling = work["ceilings"][row["side"].rpartition(" ")[2]]["flops_s"] / 1e9
        said.append(f"{row['of_products']:.0%} of the ceiling of products, {ceiling:,.0f} GFLOP/s then")
    if "of_reading" in row:
        said.append(f"a decode step takes {row['of_reading']:.1f} times the reading of its weights")
    if work["work"] == "checkpoint":
        step, next_step = row["split"]["a training step"], row["split"]["the step after a save"]
        said.append(
            f"a save holds training up for {1 / step:.0%} of a step; the next step takes {next_step / step:.2f}"
        )
    elif "split" in row:
        said.append(", ".join(f"{part} {share:.0%}" for part, share in row["split"].items()))
    return [f"- {what}: {'; '.join(said)}"] if said else []


def title(work: dict[str, Any], dtype: str) -> str:
    """`SFT, A, fp32`."""
    formats = {"best": "best format beside best"}.get(dtype, dtype)
    parts = [NAMES[work["work"]], VARIANTS.get(work["variant"], "")]
    if work["work"] not in WITHOUT_A_MODEL:
        parts += [work["shape"], formats]
    return ", ".join(filter(None, parts))


def short(speed: float) -> str:
    """Three figures."""
    return f"{speed:.3g}" if speed < 1000 else f"{round(speed, 2 - math.floor(math.log10(speed))):,.0f}"


if __name__ == "__main__":
    write()
