"""Files as rows, read as they come: JSON, JSON Lines and CSV, plain or gzipped, and texts; with file and line."""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ayni.errors import BadInput
from ayni.files import files_below, lines_of, parse_json, read_text, text_file
from ayni.formats.json_window import MOST_KEYS, ROWS, SPACE, Window
from ayni.formats.markdown import markdown_documents
from ayni.limits import absent, line_limit, too_long, unpacked

ROW_SUFFIXES = (".json", ".jsonl", ".csv")
DOCUMENT_SUFFIXES = (".md", ".txt")
PEEK = 2**20  # characters: a first row longer than this is not looked at


class Skip(Exception):
    """A sound row that a documented policy leaves out; the reason is counted and `ayni inspect` shows it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One object of a file: `index` counts rows from 0, `line` is where it starts. A document of text has one key."""

    path: Path
    line: int
    index: int
    value: dict[str, Any]

    def has(self, *keys: str) -> bool:
        """Whether it has all of these keys."""
        return self.value.keys() >= {*keys}

    def has_any(self, *keys: str) -> bool:
        return not self.value.keys().isdisjoint(keys)

    def saying(self, value: dict[str, Any]) -> Row:
        """Another value in its place, for errors to name the same line."""
        return Row(self.path, self.line, self.index, value)

    @property
    def stem(self) -> str:
        """The file's name without its suffixes, as text also where the system's is none."""
        return self.path.name.partition(".")[0].encode("utf-8", "replace").decode()

    @property
    def name(self) -> str:
        """A stable id: the file's stem and the row's index."""
        return f"{self.stem}-{self.index}"

    def error(self, what: str, field: str | None = None, fix: str | None = None) -> BadInput:
        return BadInput(what, path=self.path, line=self.line, field=field, fix=fix)


def suffix_of(path: Path) -> str:
    """The suffix that says what the file holds, `.gz` aside."""
    name = path.with_suffix("") if path.suffix == ".gz" else path
    return name.suffix.lower()


def _json_lines(path: Path, file: TextIO) -> Iterator[tuple[int, Any]]:
    """(line, value, or what is wrong with it) of every line."""
    for number, line in lines_of(file, path):
        if line.strip():
            yield number, _parsed(line.rstrip("\n"), path, number)


def _json_elements(path: Path, file: TextIO) -> Iterator[tuple[int, Any]]:
    """The same of every element of a top-level list, or of the one object that the file is."""
    window = Window(path, file)
    if window.next() != "[":
        yield window.line, _parsed(window.rest(), path, window.line)
        return
    window.skip()
    mark = window.next()
    while mark != "]":
        line = window.line
        yield line, window.element()
        mark = window.next()
        if mark not in ("]", ","):
            raise window.error("Expecting ',' delimiter")
        if mark == ",":
            window.skip()
            window.next()
    window.skip()
    if window.next():
        raise window.error("Extra data")


def _parsed(text: str, path: Path, line: int) -> Any:
    try:
        return parse_json(text, path=path, line=line, decoder=ROWS)
    except BadInput as error:
        return error


def _csv_rows(path: Path, file: TextIO) -> Iterator[Row]:
    line, held, most = 1, 0, line_limit()

    def lines() -> Iterator[str]:
        nonlocal held
        for _, text in lines_of(file, path):
            held += len(text)  # a row may go over many lines
            if held > most:
                raise too_long(path, line)
            yield text

    reader = csv.DictReader(lines(), strict=True)
    try:
        if reader.fieldnames is None:
            return
        if len(reader.fieldnames) > MOST_KEYS:
            raise BadInput(f"{len(reader.fieldnames)} columns; a row has at most {MOST_KEYS}", path=path, line=1)
        if len(set(reader.fieldnames)) < len(reader.fieldnames):
            raise BadInput("a column name stands twice", path=path, line=1)
        line = reader.line_num + 1
        for index, value in enumerate(reader):
            if None in value or None in value.values():
                raise BadInput(f"the row has not the header's {len(reader.fieldnames)} columns", path=path, line=line)
            yield Row(path, line, index, value)
            line, held = reader.line_num + 1, 0
    except csv.Error as error:
        raise BadInput(f"not CSV: {error}", path=path, line=line) from None


def rows(path: Path, errors: list[BadInput] | None = None) -> Generator[Row, None, None]:
    """Every row of a .json, .jsonl or .csv file (or .gz of one); of .md the chapters and of .txt the whole, as `text`.

    Raises BadInput at the first row that is no JSON object; with `errors` such rows are put there and passed over.
    A file that is not UTF-8, not whole, or empty always raises.
    """
    suffix = suffix_of(path)
    if suffix not in (*ROW_SUFFIXES, *DOCUMENT_SUFFIXES):
        raise BadInput(f"the suffix {path.suffix or '(none)'} is not one of .json, .jsonl, .csv, .gz", path=path)
    with text_file(path) as file:
        if all(block.isspace() for block in iter(lambda: file.read(PEEK), "")):
            raise BadInput("the file is empty", path=path, line=1)
    if suffix in DOCUMENT_SUFFIXES:
        text = read_text(path)
        documents = markdown_documents(text) if suffix == ".md" else [text.strip("\n")]
        yield from (Row(path, 1, index, {"text": document}) for index, document in enumerate(documents))
        return
    # csv has line ends of its own inside quotes, and some that are a lone \r
    with text_file(path, newline="" if suffix == ".csv" else "\n") as file:
        if suffix == ".csv":
            yield from _csv_rows(path, file)
            return
        values = _json_lines(path, file) if suffix == ".jsonl" else _json_elements(path, file)
        for index, (line, value) in enumerate(values):
            if isinstance(value, dict):
                yield Row(path, line, index, value)
                continue
            if not isinstance(value, BadInput):
                value = BadInput(f"a row must be an object, not {type(value).__name__}", path=path, line=line)
            if errors is None:
                raise value
            errors.append(value)


def peek(path: Path) -> Any:
    """The first row as plain values, from the head of the file alone; None where that does not tell."""
    if not path.is_file():  # a pipe, say
        return None
    try:
        with io.TextIOWrapper(unpacked(path), encoding="utf-8-sig", newline="") as file:
            head = file.read(PEEK)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return None
    suffix, text = suffix_of(path), head.lstrip(SPACE)
    if suffix == ".csv":
        try:
            row = next(csv.DictReader(io.StringIO(head, newline=""), strict=True), None)
        except csv.Error:
            return None
        return None if row is None or None in row or None in row.values() else row
    if suffix not in ROW_SUFFIXES:
        return None
    if suffix == ".json" and text.startswith("["):
        text = text[1:].lstrip(SPACE)
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return [] if suffix == ".jsonl" and text.startswith("[[{") else None  # a chunk of samples is longer than that


def files_of(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The file itself, or every file with such a suffix under a directory, in name order; BadInput if none."""
    if not path.exists():
        raise absent(path)
    if not path.is_dir():
        return [path]
    found = [file for file in files_below(path) if not file.name.startswith(".") and suffix_of(file) in suffixes]
    if not found:
        raise BadInput(f"no {', '.join(suffixes)} file in this directory", path=path)
    return found
