"""What a file holds, and records out of it: the one way in for other people's data.

`detect` looks at the first sound row; `scan` reads. A strict read raises at the first bad row, with file, line and
field; otherwise errors are collected and `ayni inspect` shows them. Nothing is dropped silently: rows that a
format's documented policy leaves out are counted in `ScannedRecords.skipped`; a reader raises Skip for a whole row and
yields one for a part of it.

Rows of a comparison or demonstration file can be read as prompts: the dialogue before the last answer, each
dialogue once, with the file's stem and the row's number as id. Rows of judgements (ratings, thumbs) can be read as
comparisons: pairs within a prompt, made file by file (ayni.formats.pairing).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from ayni.errors import BadInput
from ayni.formats.format import Format
from ayni.formats.known import format_of
from ayni.formats.pairing import PAIRING, Pairing, pairs_of_judgements
from ayni.formats.rows import DOCUMENT_SUFFIXES, ROW_SUFFIXES, Row, Skip, files_of, peek, rows, suffix_of
from ayni.limits import absent
from ayni.records import Comparison, Constraint, Demonstration, Principle, Prompt, Question, Task
from ayni.stage import Kind

TEXT_SUFFIXES = (*DOCUMENT_SUFFIXES, ".jsonl")


def detect(path: Path) -> Format:
    """The format of a file, from its suffix and first sound row; of a directory, of its first file.

    Raises BadInput when no format fits.
    """
    path = Path(path)
    if path.is_dir():
        path = files_of(path, (*ROW_SUFFIXES, *DOCUMENT_SUFFIXES))[0]
    if not path.exists():
        raise absent(path)
    with _opened(path, []) as (found, _):
        return found


@contextmanager
def _opened(file: Path, errors: list[BadInput] | None) -> Iterator[tuple[Format, Iterator[Row]]]:
    """The file's format and its rows, closed whatever is raised; `errors` as of ayni.formats.rows.rows."""
    with closing(rows(file, errors)) as stream:
        if suffix_of(file) in DOCUMENT_SUFFIXES:
            yield format_of(Row(file, 1, 0, {})), stream
            return
        first = next(stream, None)
        if first is None:
            raise errors[0] if errors else BadInput("the file holds no rows", path=file, line=1)
        yield format_of(first), chain([first], stream)


def kinds_of(path: Path) -> tuple[Kind, ...] | None:
    """What a file, or the first file of a directory, can be read as; None where the head of the file does not tell."""
    try:
        if path.is_dir():
            path = files_of(path, (*ROW_SUFFIXES, *DOCUMENT_SUFFIXES))[0]
        value = {} if suffix_of(path) in DOCUMENT_SUFFIXES else peek(path)
        return format_of(Row(path, 1, 0, value)).kinds if isinstance(value, dict) else None
    except BadInput:
        return None


@dataclass(frozen=True, slots=True)
class ScannedRecords:
    """What a file or directory held: records (or documents), what was left out and why, and what was wrong."""

    format: str
    kind: Kind
    records: list[Any]
    lines: list[tuple[Path, int]]  # where each record stood
    skipped: Counter[str] = field(default_factory=Counter)
    errors: list[BadInput] = field(default_factory=list)

    @property
    def left_out(self) -> str:
        """What was left out, in words: "left out: 3 × the answers are the same"; empty when nothing was."""
        return _left_out(self.skipped)


def scan(path: Path, kind: Kind | None = None, *, strict: bool = True, pairing: Pairing = PAIRING) -> ScannedRecords:
    """Read a file, or every file of a directory, as `kind` (default: what its format is made for).

    Raises BadInput at the first error; with `strict=False` errors of rows are collected instead, while a file that
    cannot be read at all still raises. `pairing` says how judgements become comparisons.
    """
    path = Path(path)
    files = files_of(path, TEXT_SUFFIXES if kind == "texts" else (*ROW_SUFFIXES, *DOCUMENT_SUFFIXES))
    if kind not in (None, "texts") and path.is_dir():
        files = files_of(path, ROW_SUFFIXES)
    scanned: ScannedRecords | None = None
    for file in files:
        errors: list[BadInput] | None = None if strict else []
        with _opened(file, errors) as (found, stream):
            wanted = found.made_for if kind is None else kind
            if scanned is None:
                scanned = ScannedRecords(found.name, wanted, [], [])
            if kind is None and wanted != scanned.kind:
                what = f"holds {wanted}, the file before it {scanned.kind}"
                raise BadInput(what, path=file, fix="keep one kind in a directory")
            _must_hold(wanted, found, file)
            if wanted in found.readers:
                _read_rows(stream, found, scanned, errors)
            else:
                _read_as_pairs(stream, found, scanned, errors, pairing)
        scanned.errors.extend(errors or [])
    assert scanned is not None  # files_of never returns an empty list
    if scanned.kind in ("prompts", "constraints", "principles", "questions"):
        _check_ids(scanned)
    if not scanned.records and not scanned.errors:
        raise _holds_none(scanned.kind, scanned.skipped, path)
    return scanned


def _must_hold(kind: Kind, found: Format, file: Path) -> None:
    if kind not in found.kinds:
        raise BadInput(f"expected {kind}, found {found.made_for} (format {found.name})", path=file)


def _holds_none(kind: Kind, skipped: Counter[str], path: Path) -> BadInput:
    why = _left_out(skipped)
    return BadInput(f"holds no {kind}" + (f" ({why})" if why else ""), path=path)


def _left_out(skipped: Counter[str]) -> str:
    return "left out: " + ", ".join(f"{count} × {reason}" for reason, count in skipped.items()) if skipped else ""


def _read_rows(stream: Iterator[Row], format: Format, scanned: ScannedRecords, errors: list[BadInput] | None) -> None:
    for record, row in _records(stream, format, scanned.kind, scanned.skipped, errors):
        scanned.records.append(record)
        scanned.lines.append((row.path, row.line))


def _records(
    stream: Iterator[Row], format: Format, kind: Kind, skipped: Counter[str], errors: list[BadInput] | None
) -> Iterator[tuple[Any, Row]]:
    """Every record as it is read, and the row it stood in."""
    reader, native = format.readers[kind], kind == format.made_for
    seen: set[Any] = set()
    for row in stream:
        try:
            for record in reader(row):
                if isinstance(record, Skip):
                    skipped[str(record)] += 1
                    continue
                if kind == "prompts" and not native:
                    if record.dialog in seen:
                        skipped["the same prompt again"] += 1
                        continue
                    seen.add(record.dialog)
                yield record, row
        except Skip as skip:
            skipped[str(skip)] += 1
        except BadInput as error:
            if errors is None:
                raise
            errors.append(error)


def _read_as_pairs(
    stream: Iterator[Row], format: Format, scanned: ScannedRecords, errors: list[BadInput] | None, pairing: Pairing
) -> None:
    """Judgements of one file as comparisons; a pair stands where its better answer does."""
    judged = ScannedRecords(format.name, "judgements", [], [], scanned.skipped)
    _read_rows(stream, format, judged, errors)
    pairs = pairs_of_judgements(judged.records, pairing)
    scanned.records.extend(pairs.comparisons)
    scanned.lines.extend(judged.lines[origin] for origin in pairs.origins)
    scanned.skipped.update(pairs.skipped)


def _check_ids(scanned: ScannedRecords) -> None:
    """Records that are known by their ids (random numbers depend on them): no two of a file share one."""
    first: dict[str, tuple[Path, int]] = {}
    one = scanned.kind.removesuffix("s")
    for prompt, (file, line) in zip(scanned.records, scanned.lines, strict=True):
        if prompt.id in first:
            other, at = first[prompt.id]
            raise BadInput(
                f"{prompt.id!r} is the id of another {one} too ({other.name}:{at})", path=file, line=line, field="id"
            )
        first[prompt.id] = (file, line)


def read_demonstrations(path: Path) -> list[Demonstration]:
    """Every demonstration of a file or directory; BadInput with path, line and field at the first error."""
    return scan(path, "demonstrations").records


def read_comparisons(
    path: Path, *, task: Task | None = None, say: Callable[[str], None] | None = None
) -> list[Comparison]:
    """Every comparison. `task` is set on all of them when given: hh-rlhf files, for one, do not say theirs.

    `say` is told in one line what was left out, where something was.
    """
    scanned = scan(path, "comparisons")
    if say is not None and scanned.left_out:
        say(f"{path}: {scanned.left_out}")
    records: list[Comparison] = scanned.records
    if task is None:
        return records
    return [replace(record, task=task, prompt=replace(record.prompt, task=task)) for record in records]


def read_prompts(path: Path, *, task: Task | None = None) -> list[Prompt]:
    """Every prompt, with an id that stays the same while the file does. `task` is set on all of them when given."""
    records: list[Prompt] = scan(path, "prompts").records
    return records if task is None else [replace(record, task=task) for record in records]


def read_constraints_of(paths: Iterable[Path]) -> list[Constraint]:
    """The constraints of several files in order, each id once; BadInput with path, line and field."""
    found: dict[str, Constraint] = {}
    for path in map(Path, paths):
        for constraint in scan(path, "constraints").records:
            if found.setdefault(constraint.id, constraint) != constraint:
                raise BadInput(f"{constraint.id!r} is the id of another constraint too", path=path, field="id")
    return list(found.values())


def read_questions_of(paths: Iterable[Path]) -> list[Question]:
    """The questions of several files in order; BadInput where two share an id."""
    found: dict[str, Question] = {}
    for path in map(Path, paths):
        for question in scan(path, "questions").records:
            if found.setdefault(question.id, question) is not question:
                raise BadInput(f"{question.id!r} is the id of another question too", path=path, field="id")
    return list(found.values())


def read_principles(path: Path) -> list[Principle]:
    """Every principle of a file or directory; BadInput with path, line and field at the first error."""
    return scan(path, "principles").records


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
    """Documents, one at a time: chapters of .md, whole .txt files, `{"text"}` rows of .jsonl (.gz too)."""
    for file in files_of(Path(path), TEXT_SUFFIXES):
        with _opened(file, None) as (found, stream):
            _must_hold("texts", found, file)
            skipped, text = Counter[str](), None
            for text, _ in _records(stream, found, "texts", skipped, None):
                yield text
            if text is None:
                raise _holds_none("texts", skipped, file)
