"""All works at the size of the documentation: `make bench`. About 25 minutes on two quiet cores.

python -m benchmarks.everything            # docs/results/benchmarks-MACHINE.json, and docs/benchmarks.md's tables
python -m benchmarks.everything --long     # shape B in every work, too: about an hour
python -m benchmarks.everything --only sft # these works anew, the others' numbers stay
python -m benchmarks.everything --tiny     # minutes, to see that all of it runs: prints tables, writes nothing
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from ayni.files import write_json
from benchmarks import machine, tables
from benchmarks.turns import ROOT

BOTH = ("--dtype", "fp32", "bf16")
# batches differ by a factor of two in how much of them a peer pads
FOUR = ("--steps", "4")
PLAN: list[tuple[str, ...]] = [
    # steps enough to have met most lengths: a new one costs every side the making of its kernels
    ("sft", *BOTH, *FOUR),
    # one format at a time: the peer holds 9 GB
    *(("sft", "--shape", "B", "--dtype", dtype, "--peers", "trl padded", *FOUR) for dtype in ("fp32", "bf16")),
    ("reward", *BOTH, *FOUR),
    ("dpo", *BOTH, *FOUR),
    *(("generate", "--variant", variant, *BOTH) for variant in ("fixed", "ragged", "samples")),
    ("ppo", *BOTH),
    ("checkpoint",),
    ("tokenise",),
    ("read_records",),
]
LONG: list[tuple[str, ...]] = [(work, "--shape", "B", *BOTH) for work in ("reward", "dpo", "generate", "ppo")]
ORDER = list(dict.fromkeys(work for work, *_ in PLAN))


def run(work: str, *arguments: str) -> dict[str, Any]:
    """One script's report, or what was wrong with it."""
    print(f"\n{work} {' '.join(arguments)}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"benchmarks.{work}", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    if done.returncode:
        return {"work": work, "arguments": arguments, "failed": done.returncode}
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument(
        "--only", nargs="+", choices=sorted({work for work, *_ in PLAN}), help="of a machine measured before"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given = parser.parse_args()
    plan = [each for each in (PLAN + LONG if given.long else PLAN) if given.only is None or each[0] in given.only]
    size = ("--shape", "tiny", "--pairs", "1") if given.tiny else ()
    about = machine.described(given.device)
    began = time.monotonic()
    works = [{"commit": about["commit"]} | run(*work, "--device", given.device, *size) for work in plan]
    failed = [report["work"] for report in works if "failed" in report]
    about["minutes"] = round((time.monotonic() - began) / 60, 1)
    result = {"schema": 1, **about, "works": works}
    if given.tiny:
        print(tables.section(result))
    else:
        path = tables.RESULTS / f"benchmarks-{machine.slug(about['machine'])}.json"
        if given.only is not None:
            before = json.loads(path.read_text())
            kept = [work for work in before["works"] if work["work"] not in given.only]
            result["works"] = sorted([*works, *kept], key=lambda work: ORDER.index(work["work"]))
            result["minutes"] = round(about["minutes"] + before["minutes"], 1)
        write_json(path, result)
        tables.write()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
