"""A JSON file seen through a window that moves: one element at a time, however long the file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TextIO

from ayni.errors import BadInput
from ayni.files import TOO_DEEP, no_constant, no_duplicates
from ayni.limits import line_limit, too_long

SPACE = " \t\r\n"
BLOCK = 1 << 20  # characters read at a time
MOST_KEYS = 1000  # of one object in a row
_BLANK = re.compile(f"[{SPACE}]*")
_TOKEN = 16  # characters before the window's end in which an error may only mean that the window ends


def _row_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MOST_KEYS:
        raise ValueError(f"an object with {len(pairs)} keys; in a row one has at most {MOST_KEYS}")
    return no_duplicates(pairs)


ROWS = json.JSONDecoder(object_pairs_hook=_row_object, parse_constant=no_constant)
_ENDS = json.JSONDecoder(parse_int=len)  # where a value ends that ROWS refuses; the digits of a number have no limit


class Window:
    """Stands at a character of the file and knows its line. What lies behind is forgotten."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path, self.line, self._column = path, 1, 1
        self._file, self._text, self._at, self._most = file, "", 0, line_limit()

    def next(self) -> str:
        """The character after the white space from here on; empty at the end of the file."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            assert blank is not None  # it may be empty
            self._move(blank.end())
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def skip(self) -> None:
        """Over one character."""
        self._move(self._at + 1)

    def rest(self) -> str:
        """All from here on, which is one value."""
        text = self._text[self._at :] + self._file.read(self._most)
        if len(text) > self._most:
            raise too_long(self.path, self.line)
        return text

    def element(self) -> Any:
        """The JSON value that begins here, or what is wrong with it where it ends all the same (a key twice, NaN).

        Raises BadInput where it is no JSON, or too long.
        """
        while True:
            try:
                value, end = self._value()
            except json.JSONDecodeError as error:
                if self._cut_off(error) and self._more():
                    continue
                self._move(error.pos)
                raise self.error(error.msg) from None
            except RecursionError:
                raise BadInput(TOO_DEEP, path=self.path, line=self.line) from None
            if end == len(self._text) and self._more():
                continue  # of a number, more digits may follow
            if end - self._at > self._most:
                raise too_long(self.path, self.line)
            self._move(end)
            return value

    def _value(self) -> tuple[Any, int]:
        try:
            return ROWS.raw_decode(self._text, self._at)
        except json.JSONDecodeError:
            raise
        except ValueError as refused:
            _, end = _ENDS.raw_decode(self._text, self._at)
            return BadInput(str(refused), path=self.path, line=self.line), end

    def error(self, what: str) -> BadInput:
        return BadInput(f"not JSON: {what} at column {self._column}", path=self.path, line=self.line)

    def _cut_off(self, error: json.JSONDecodeError) -> bool:
        # a string that does not end is reported where it begins
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _TOKEN

    def _more(self) -> bool:
        """Reads on; at least as much as is kept, so that an element over many blocks is not parsed once a block."""
        kept = len(self._text) - self._at
        if kept > self._most:
            raise too_long(self.path, self.line)
        block = self._file.read(max(BLOCK, kept))
        if block:  # at the end of the file all stays where it is, for the error that names it
            self._text, self._at = self._text[self._at :] + block, 0
        return bool(block)

    def _move(self, to: int) -> None:
        if lines := self._text.count("\n", self._at, to):
            self.line += lines
            self._column = to - self._text.rindex("\n", self._at, to)
        else:
            self._column += to - self._at
        self._at = to
