"""An append-only file of samples: whole chunks survive a kill, a torn one is drawn again to the same bits."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ayni.errors import BadInput
from ayni.files import failpoint, fsync, json_line, parse_json, write_text
from ayni.memory import need_memory
from ayni.model.compute import METER, Compute
from ayni.records import Prompt, Sample, from_dict, to_dict
from ayni.rollout.engine import Engine, chunk_prompts, rollout
from ayni.rollout.sampling import Sampling
from ayni.run import Run

Draw = Callable[[Sequence[Prompt]], list[list[Sample]]]


@dataclass(frozen=True, slots=True)
class _Spent:
    """What a chunk has cost."""

    forward: int
    backward: int
    flops: int
    seconds: float = 0.0  # an earlier version did not say


def draw_all(
    path: Path, prompts: Sequence[Prompt], draw: Draw, *, chunk: int, progress: Callable[[int, int], None]
) -> list[list[Sample]]:
    """Samples of every prompt, drawn chunk by chunk and kept in `path`: one line per chunk of prompts."""
    done = resumed_chunks(path)
    _check_prompts(path, [group for groups in done for group in groups], prompts)
    METER.add(*spent_on(path, len(done)))
    for start in range(sum(map(len, done)), len(prompts), chunk):
        before, began = METER.read, METER.seconds
        groups = draw(prompts[start : start + chunk])
        note_spent(path, METER.read - before, METER.seconds - began)  # first: no chunk whose cost is not known
        with open(path, "a", encoding="utf-8") as file:
            file.write(json_line([[to_dict(s) for s in group] for group in groups]))
            failpoint("chunk-written")
            file.flush()
            # a chunk costs minutes of sampling and milliseconds of waiting for the disk
            os.fsync(file.fileno())
        done.append(groups)
        progress(min(start + chunk, len(prompts)), len(prompts))
    return [group for groups in done for group in groups]


def kept_rollout(
    engine: Engine, prompts: Sequence[Prompt], run: Run, name: str, *, n: int, sampling: Sampling, seed: int
) -> list[list[Sample]]:
    """`rollout`, kept in NAME.jsonl of the stage as it comes: what a killed one has drawn is not drawn again."""
    return draw_all(
        run.directory / f"{name}.jsonl",
        prompts,
        lambda part: rollout(engine, part, n=n, sampling=sampling, seed=seed),
        chunk=chunk_prompts(n),
        progress=lambda done, total: run.progress(done, total, "prompt"),
    )


def note_spent(store: Path, spent: Compute, seconds: float) -> None:
    """Keeps what the next chunk of a store has cost, and how long it took."""
    path = _beside(store)
    first = not path.exists()
    with open(path, "a", encoding="utf-8") as file:
        file.write(json_line({**asdict(spent), "seconds": round(seconds, 3)}))
        file.flush()
        os.fsync(file.fileno())
    if first:
        fsync(path.parent)  # its name, too, is there before the chunk is


def spent_on(store: Path, chunks: int) -> tuple[Compute, float]:
    """What the first so many chunks have cost, and their seconds; nothing where an earlier version drew them. Lines of
    chunks that were not kept are cut off."""
    path = _beside(store)
    lines = path.read_text(encoding="utf-8").split("\n")[:-1][:chunks] if path.exists() else []
    if lines:
        write_text(path, "".join(f"{line}\n" for line in lines))
    else:
        path.unlink(missing_ok=True)
    spent = [from_dict(_Spent, parse_json(line, path=path)) for line in lines]
    return sum((Compute(c.forward, c.backward, c.flops) for c in spent), Compute()), sum(c.seconds for c in spent)


def _beside(store: Path) -> Path:
    return store.with_name(f".{store.name}.spent.tmp")  # the seal removes it with what else a kill leaves


def _check_prompts(path: Path, groups: Sequence[Sequence[Sample]], prompts: Sequence[Prompt]) -> None:
    """BadInput unless these are samples of the first of the prompts, in their order."""
    ids = [group[0].prompt_id for group in groups]
    if ids != [prompt.id for prompt in prompts[: len(ids)]]:
        raise BadInput("holds samples of other prompts", path=path, fix="draw them again: --fresh")


def resumed_chunks(path: Path) -> list[list[list[Sample]]]:
    """The whole chunks of a store that goes on; a last line that a kill has torn is cut off the file."""
    if not path.exists():
        return []
    chunks, whole = whole_chunks(path)
    if whole < path.stat().st_size:
        with open(path, "r+b") as file:
            file.truncate(whole)
    return chunks


def whole_chunks(path: Path) -> tuple[list[list[list[Sample]]], int]:
    """The chunks of a store but for a last line that is torn, and at which byte that begins."""
    _check_file(path)
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    return _chunks(data[:whole], path), whole


def read_chunks(path: Path) -> list[list[list[Sample]]]:
    """The chunks of a finished store, which is left as it is."""
    _check_file(path)
    return _chunks(path.read_bytes(), path)


def _chunks(data: bytes, path: Path) -> list[list[list[Sample]]]:
    lines = data.split(b"\n")  # not splitlines: an answer may hold U+2028 or U+0085
    return [chunk_from_json(line, path, number) for number, line in enumerate(lines, 1) if line]


def chunk_from_json(line: bytes, path: Path, number: int) -> list[list[Sample]]:
    """One line of a store. Raises BadInput, and says what to do about the lines of earlier versions."""
    try:
        groups = parse_json(line.decode(), path=path, line=number)
    except UnicodeDecodeError as error:
        raise BadInput(f"is not UTF-8 at byte {error.start + 1}", path=path, line=number) from None
    if not isinstance(groups, list) or not all(isinstance(group, list) for group in groups):
        raise BadInput("is no store of samples", path=path, line=number)
    try:
        found = [[from_dict(Sample, value, path=path, line=number) for value in group] for group in groups]
    except BadInput as error:
        if error.what != "Field required" or error.field != "prompt_tokens":
            raise
        what, fix = (
            "these samples lack their prompt's tokens, as earlier versions kept them",
            "draw them again: --fresh",
        )
        raise BadInput(what, path=path, line=number, field="prompt_tokens", fix=fix) from None
    for group in found:
        if len({sample.prompt_id for sample in group}) != 1:
            raise BadInput("a group of samples is of one prompt", path=path, line=number)
        for sample in group:
            _check(sample, path, number)
    return found


def _check(sample: Sample, path: Path, number: int) -> None:
    """BadInput for what no model can have drawn."""
    numbers = (*sample.logprobs, sample.temperature, *(sample.scores or {}).values())
    if len(sample.logprobs) != len(sample.tokens) or not all(map(math.isfinite, numbers)):
        raise BadInput("expected a finite number for every token", path=path, line=number, field="logprobs")
    if not sample.tokens or not sample.prompt_tokens or min(*sample.tokens, *sample.prompt_tokens) < 0:
        raise BadInput("expected token ids", path=path, line=number, field="tokens")


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise BadInput("is not a file", path=path)
    need_memory(path.stat().st_size, f"{path}: a store of samples")


def read_groups(path: Path) -> list[list[Sample]]:
    """All samples of a finished store, grouped by prompt."""
    return [group for groups in read_chunks(path) for group in groups]
