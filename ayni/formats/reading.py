"""What a file holds, and records out of it: the one way in for other people's data.

`detect` looks at the first sound row; `scan` reads. A strict read raises at the first bad row, with file, line and
field; otherwise errors are collected and `ayni inspect` shows them. Nothing is dropped silently: rows that a
format's documented policy leaves out are counted in `Reading.skipped`; a reader raises Skip for a whole row and
yields one for a part of it.

Rows of a comparison or demonstration file can be read as prompts: the dialogue before the last answer, each
dialogue once, with the file's stem and the row's number as id. Rows of judgements (ratings, thumbs) can be read as
comparisons: pairs within a prompt, made file by file (ayni.formats.pairing).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ayni.errors import BadInput
from ayni.files import read_text
from ayni.formats.argilla import argilla_judgements, argilla_pairs
from ayni.formats.detect import format_of_row
from ayni.formats.dialogs import (
    alpaca_demonstrations,
    alpaca_prompts,
    chat_demonstrations,
    chat_prompts,
    completion_demonstrations,
    instance_demonstrations,
    instance_prompts,
    plain_prompts,
    sharegpt_demonstrations,
    sharegpt_prompts,
    xstest_prompts,
)
from ayni.formats.fields import check_text, checked, text_field
from ayni.formats.judgements import edit_demonstrations, edit_pairs, judgements, ratings
from ayni.formats.label_studio import label_studio_min_pairs, label_studio_pairs
from ayni.formats.markdown import markdown_documents
from ayni.formats.oasst import oasst_demonstrations, oasst_pairs, oasst_prompts
from ayni.formats.pairing import PAIRING, Pairing, pairs_of_judgements
from ayni.formats.pairs import check_comparison, check_margin, hh_pairs, pairs, pandalm_pairs, sharegpt_pairs
from ayni.formats.rows import ROW_SUFFIXES, Row, Skip, files_of, peek, rows, suffix_of
from ayni.records import Comparison, Demonstration, Prompt, Task, from_json

Kind = Literal["demonstrations", "comparisons", "judgements", "prompts", "texts"]
TEXT_SUFFIXES = (".md", ".txt", ".jsonl")
Reader = Callable[[Row], Iterable[Any]]


def _demonstration(row: Row) -> Iterator[Demonstration]:
    record = from_json(Demonstration, row.text, path=row.path, line=row.line)
    for index, message in enumerate(record.dialog):
        check_text(row, message.content, f"dialog.{index}.content")
    checked(row, record.dialog, "dialog", last="assistant")
    yield record


def _prompt(row: Row) -> Iterator[Prompt]:
    record = from_json(Prompt, row.text, path=row.path, line=row.line)
    check_text(row, record.id, "id")
    for index, message in enumerate(record.dialog):
        check_text(row, message.content, f"dialog.{index}.content")
    checked(row, record.dialog, "dialog", last="user")
    yield record


def _comparison(row: Row) -> Iterator[Comparison]:
    check_margin(row)
    record = from_json(Comparison, row.text, path=row.path, line=row.line)
    check_text(row, record.prompt.id, "prompt.id")
    for index, message in enumerate(record.prompt.dialog):
        check_text(row, message.content, f"prompt.dialog.{index}.content")
    yield check_comparison(row, record, "prompt.dialog")


def _text(row: Row) -> Iterator[str]:
    yield text_field(row, "text")


def _prompts_of(reader: Reader) -> Reader:
    return lambda row: (record if isinstance(record, Skip) else record.prompt for record in reader(row))


# format -> what it can be read as; the first is what `inspect` reads it as
READERS: dict[str, dict[Kind, Reader]] = {
    "demonstration": {
        "demonstrations": _demonstration,
        "prompts": lambda row: (_as_prompt(row, record) for record in _demonstration(row)),
    },
    "comparison": {"comparisons": _comparison, "prompts": _prompts_of(_comparison)},
    "prompt": {"prompts": _prompt},
    "messages": {"demonstrations": chat_demonstrations, "prompts": chat_prompts},
    "prompt_completion": {"demonstrations": completion_demonstrations, "prompts": plain_prompts},
    "plain_prompts": {"prompts": plain_prompts},
    "alpaca": {"demonstrations": alpaca_demonstrations, "prompts": alpaca_prompts},
    "self_instruct": {"demonstrations": instance_demonstrations, "prompts": instance_prompts},
    "sharegpt": {"demonstrations": sharegpt_demonstrations, "prompts": sharegpt_prompts},
    "xstest": {"prompts": xstest_prompts},
    "pairs": {"comparisons": pairs, "prompts": _prompts_of(pairs)},
    "sharegpt_pairs": {"comparisons": sharegpt_pairs, "prompts": _prompts_of(sharegpt_pairs)},
    "hh_rlhf": {"comparisons": hh_pairs, "prompts": _prompts_of(hh_pairs)},
    "pandalm": {"comparisons": pandalm_pairs, "prompts": _prompts_of(pandalm_pairs)},
    "oasst": {"comparisons": oasst_pairs, "demonstrations": oasst_demonstrations, "prompts": oasst_prompts},
    "label_studio": {"comparisons": label_studio_pairs, "prompts": _prompts_of(label_studio_pairs)},
    "label_studio_min": {"comparisons": label_studio_min_pairs, "prompts": _prompts_of(label_studio_min_pairs)},
    "argilla": {"comparisons": argilla_pairs, "prompts": _prompts_of(argilla_pairs)},
    "argilla_ratings": {"judgements": argilla_judgements, "prompts": _prompts_of(argilla_judgements)},
    "judgement": {"judgements": judgements, "prompts": _prompts_of(judgements)},
    "ratings": {"judgements": ratings, "prompts": _prompts_of(ratings)},
    "edits": {"comparisons": edit_pairs, "demonstrations": edit_demonstrations, "prompts": _prompts_of(edit_pairs)},
    "text_rows": {"texts": _text},
    "markdown": {},
    "text": {},
}


def _as_prompt(row: Row, record: Demonstration) -> Prompt:
    return Prompt(row.name, record.dialog[:-1], source=record.source)


def detect(path: Path) -> str:
    """The name of the format of a file, from its suffix and first sound row; of a directory, of its first file.

    Raises BadInput when no format fits.
    """
    path = Path(path)
    if path.is_dir():
        path = files_of(path, (*ROW_SUFFIXES, ".md", ".txt"))[0]
    if not path.exists():
        raise BadInput("no such file or directory", path=path)
    if suffix_of(path) in (".md", ".txt"):
        return "markdown" if suffix_of(path) == ".md" else "text"
    errors: list[BadInput] = []
    for row in rows(path, errors):
        return format_of_row(row)
    if errors:
        raise errors[0]
    raise BadInput("the file holds no rows", path=path, line=1)


def kinds_of(path: Path) -> tuple[Kind, ...] | None:
    """What a file, or the first file of a directory, can be read as; None where its first row does not tell."""
    try:
        if path.is_dir():
            path = files_of(path, (*ROW_SUFFIXES, ".md", ".txt"))[0]
        if suffix_of(path) in (".md", ".txt"):
            return ("texts",)
        value = peek(path)
        kinds = READERS[format_of_row(Row(path, 1, 0, "", value))] if isinstance(value, dict) else None
    except BadInput:
        return None
    if kinds is None:
        return None
    return (*kinds, "comparisons") if "judgements" in kinds else (*kinds,)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file or directory held: records (or documents), what was left out and why, and what was wrong."""

    format: str
    kind: Kind
    records: list[Any]
    lines: list[tuple[Path, int]]  # where each record stood
    skipped: Counter[str] = field(default_factory=Counter)
    errors: list[BadInput] = field(default_factory=list)


def _documents(path: Path) -> list[str]:
    text = read_text(path)
    if not text.strip():
        raise BadInput("the file is empty", path=path, line=1)
    return markdown_documents(text) if suffix_of(path) == ".md" else [text.strip("\n")]


def scan(path: Path, kind: Kind | None = None, *, strict: bool = True, pairing: Pairing = PAIRING) -> Reading:
    """Read a file, or every file of a directory, as `kind` (default: what its format is made for).

    Raises BadInput at the first error; with `strict=False` errors of rows are collected instead, while a file that
    cannot be read at all still raises. `pairing` says how judgements become comparisons.
    """
    path = Path(path)
    files = files_of(path, TEXT_SUFFIXES if kind == "texts" else (*ROW_SUFFIXES, ".md", ".txt"))
    if kind not in (None, "texts") and path.is_dir():
        files = files_of(path, ROW_SUFFIXES)
    reading: Reading | None = None
    for file in files:
        name = detect(file)
        made_for: list[Kind] = [*READERS[name], "texts"]
        wanted = made_for[0] if kind is None else kind
        if reading is None:
            reading = Reading(name, wanted, [], [])
        if kind is None and wanted != reading.kind:
            raise BadInput(
                f"holds {wanted}, the file before it {reading.kind}", path=file, fix="keep one kind in a directory"
            )
        if wanted == "comparisons" and "judgements" in READERS[name]:
            _read_as_pairs(file, name, reading, pairing, strict=strict)
        else:
            _read_file(file, name, reading, strict=strict)
    assert reading is not None  # files_of never returns an empty list
    if reading.kind == "prompts":
        _check_ids(reading)
    if not reading.records and not reading.errors:
        why = ", ".join(f"{count} × {reason}" for reason, count in reading.skipped.items())
        raise BadInput(f"holds no {reading.kind}" + (f" (left out: {why})" if why else ""), path=path)
    return reading


def _read_file(file: Path, name: str, reading: Reading, *, strict: bool) -> None:
    kind, errors = reading.kind, None if strict else reading.errors
    if kind == "texts" and name in ("markdown", "text"):
        documents = _documents(file)
        reading.records.extend(documents)
        reading.lines.extend([(file, 1)] * len(documents))
        return
    reader = READERS[name].get(kind)
    if reader is None:
        can = [*READERS[name]] or ["texts"]
        raise BadInput(f"expected {kind}, found {can[0]} (format {name})", path=file)
    native = kind == next(iter(READERS[name]))
    seen: set[Any] = set()
    for row in rows(file, errors):
        try:
            for record in reader(row):
                if isinstance(record, Skip):
                    reading.skipped[str(record)] += 1
                    continue
                if kind == "prompts" and not native:
                    if record.dialog in seen:
                        reading.skipped["the same prompt again"] += 1
                        continue
                    seen.add(record.dialog)
                reading.records.append(record)
                reading.lines.append((file, row.line))
        except Skip as skip:
            reading.skipped[str(skip)] += 1
        except BadInput as error:
            if errors is None:
                raise
            errors.append(error)


def _read_as_pairs(file: Path, name: str, reading: Reading, pairing: Pairing, *, strict: bool) -> None:
    """Judgements of one file as comparisons; a pair stands where its better answer does."""
    judged = Reading(name, "judgements", [], [], reading.skipped, reading.errors)
    _read_file(file, name, judged, strict=strict)
    pairs = pairs_of_judgements(judged.records, pairing)
    reading.records.extend(pairs.comparisons)
    reading.lines.extend(judged.lines[origin] for origin in pairs.origins)
    reading.skipped.update(pairs.skipped)


def _check_ids(reading: Reading) -> None:
    """Prompts are known by their ids (random numbers depend on them), so no two may share one."""
    first: dict[str, tuple[Path, int]] = {}
    for prompt, (file, line) in zip(reading.records, reading.lines, strict=True):
        if prompt.id in first:
            other, at = first[prompt.id]
            raise BadInput(
                f"{prompt.id!r} is the id of another prompt too ({other.name}:{at})", path=file, line=line, field="id"
            )
        first[prompt.id] = (file, line)


def read_demonstrations(path: Path) -> list[Demonstration]:
    """Every demonstration of a file or directory; BadInput with path, line and field at the first error."""
    return scan(path, "demonstrations").records


def read_comparisons(path: Path, *, task: Task | None = None) -> list[Comparison]:
    """Every comparison. `task` is set on all of them when given: hh-rlhf files, for one, do not say theirs."""
    records: list[Comparison] = scan(path, "comparisons").records
    if task is None:
        return records
    return [replace(record, task=task, prompt=replace(record.prompt, task=task)) for record in records]


def read_prompts(path: Path, *, task: Task | None = None) -> list[Prompt]:
    """Every prompt, with an id that stays the same while the file does. `task` is set on all of them when given."""
    records: list[Prompt] = scan(path, "prompts").records
    return records if task is None else [replace(record, task=task) for record in records]


def read_prompts_of(paths: Iterable[Path]) -> list[Prompt]:
    """The prompts of several files in order, each once; BadInput where two different ones share an id."""
    found: dict[str, tuple[Prompt, Path]] = {}
    for path in map(Path, paths):
        for prompt in read_prompts(path):
            there, file = found.setdefault(prompt.id, (prompt, path))
            if there != prompt:
                what = f"{prompt.id!r} is the id of another prompt too ({file})"
                raise BadInput(what, path=path, field="id", fix="give every prompt an id of its own, or rename a file")
    return [prompt for prompt, _ in found.values()]


def read_texts(path: Path) -> Iterator[str]:
    """Documents, file by file: chapters of .md, whole .txt files, `{"text"}` rows of .jsonl (.gz too)."""
    for file in files_of(Path(path), TEXT_SUFFIXES):
        yield from scan(file, "texts").records
