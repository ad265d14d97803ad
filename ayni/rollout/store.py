"""An append-only file of samples: whole chunks survive a kill, a torn one is drawn again to the same bits."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from collections.abc import Sequence as Many
from pathlib import Path

from ayni.files import failpoint, json_line
from ayni.records import Prompt, Sample, from_json, to_dict

Draw = Callable[[Many[Prompt]], list[list[Sample]]]


def draw_all(
    path: Path, prompts: Many[Prompt], draw: Draw, *, chunk: int, progress: Callable[[int, int], None]
) -> list[list[Sample]]:
    """Samples of every prompt, drawn chunk by chunk and kept in `path`: one line per chunk of prompts."""
    done = read_chunks(path)
    for start in range(sum(map(len, done)), len(prompts), chunk):
        groups = draw(prompts[start : start + chunk])
        with open(path, "a", encoding="utf-8") as file:
            file.write(json_line([[to_dict(s) for s in group] for group in groups]))
            failpoint("chunk-written")
            file.flush()
            os.fsync(file.fileno())
        done.append(groups)
        progress(min(start + chunk, len(prompts)), len(prompts))
    return [group for groups in done for group in groups]


def read_chunks(path: Path) -> list[list[list[Sample]]]:
    """The whole chunks of a store; a torn last line is cut off the file."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with open(path, "r+b") as file:
            file.truncate(whole)
    chunks = []
    for number, line in enumerate(data[:whole].decode().split("\n")[:-1], 1):  # an answer may hold U+2028 or U+0085
        groups = json.loads(line)
        chunks.append([[from_json(Sample, json.dumps(s), path=path, line=number) for s in group] for group in groups])
    return chunks


def read_groups(path: Path) -> list[list[Sample]]:
    """All samples of a finished store, grouped by prompt."""
    return [group for groups in read_chunks(path) for group in groups]
