"""Plain text: documents as rows, Markdown by chapters, text files whole."""

from __future__ import annotations

from collections.abc import Iterator

from ayni.formats.fields import text_field
from ayni.formats.format import Format
from ayni.formats.rows import Row, suffix_of


def texts(row: Row) -> Iterator[str]:
    yield text_field(row, "text")


MARKDOWN = Format("markdown", lambda row: suffix_of(row.path) == ".md", {"texts": texts})
TEXT = Format("text", lambda row: suffix_of(row.path) == ".txt", {"texts": texts})
TEXT_ROWS = Format("text_rows", lambda row: row.has("text"), {"texts": texts})
