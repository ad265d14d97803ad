"""Reading records: ours (checked, typed, with file and line of every error) beside json.loads of every line.

    python -m benchmarks.read_records

20,000 comparisons of about 200 words in one file.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ayni.files import write_jsonl
from ayni.formats.reading import read_comparisons
from ayni.records import Comparison, Message, Prompt, to_dict
from ayni.seeds import rng
from benchmarks.options import Options
from benchmarks.side import Turns
from benchmarks.work import OURS, Work, main

RECORDS = {"tiny": 200}
SENTENCE = "the hare asks a wise owl why rain falls on the green hill and who may sing at night"


def write(path: Path, count: int) -> None:
    """Comparisons with prompts and answers of 20 to 120 words."""
    draw, words = rng("benchmark", "records"), SENTENCE.split()

    def text() -> str:
        return " ".join(draw.choice(words, draw.integers(20, 121)))

    records = (
        Comparison(Prompt(str(i), (Message("user", text()),), "helpfulness"), text(), text(), "helpfulness", "better")
        for i in range(count)
    )
    write_jsonl(path, map(to_dict, records))


def side(read: Callable[[Path], tuple[int, int]], options: Options, turns: Turns) -> None:
    turns.imported()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        path = Path(directory) / "comparisons.jsonl"
        write(path, RECORDS.get(options.shape, 20_000))
        for _ in turns:
            for _ in range(options.steps):
                count, characters = read(path)
            turns.end(count * options.steps, losses=[float(count), float(characters)])


def ours(path: Path) -> tuple[int, int]:
    records = read_comparisons(path)
    return len(records), sum(len(record.chosen) for record in records)


def theirs(path: Path) -> tuple[int, int]:
    with open(path, encoding="utf-8") as file:
        records: list[dict[str, Any]] = [json.loads(line) for line in file]
    return len(records), sum(len(record["chosen"]) for record in records)


SIDES = {OURS: partial(side, ours), "json.loads": partial(side, theirs)}
WORK = Work("read_records", "records/s", SIDES, tolerance={"fp32": 0.0}, ceiling=False, needs="json")

if __name__ == "__main__":
    main(WORK, __doc__ or "")
