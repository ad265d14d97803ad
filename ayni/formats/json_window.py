"""A JSON file seen through a window that moves: one element at a time, however long the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from ayni.errors import BadInput
from ayni.files import STRICT

SPACE = " \t\r\n"
BLOCK = 1 << 20  # characters read at a time
_TOKEN = 16  # characters before the window's end in which an error may only mean that the window ends


class Window:
    """Stands at a character of the file and knows its line. What lies behind is forgotten."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path, self.line, self._column = path, 1, 1
        self._file, self._text, self._at = file, "", 0

    def next(self) -> str:
        """The character after the white space from here on; empty at the end of the file."""
        while True:
            at = self._at
            while at < len(self._text) and self._text[at] in SPACE:
                at += 1
            self._move(at)
            if at < len(self._text):
                return self._text[at]
            if not self._more():
                return ""

    def skip(self) -> None:
        """Over one character."""
        self._move(self._at + 1)

    def rest(self) -> str:
        return self._text[self._at :] + self._file.read()

    def element(self) -> Any:
        """The JSON value that begins here, or what is wrong with it where it ends all the same (a key twice, NaN).

        Raises BadInput where it is no JSON.
        """
        while True:
            try:
                value, end = self._value()
            except json.JSONDecodeError as error:
                if self._cut_off(error) and self._more():
                    continue
                self._move(error.pos)
                raise self.error(error.msg) from None
            except RecursionError as error:
                raise BadInput(str(error), path=self.path, line=self.line) from None
            if end == len(self._text) and self._more():
                continue  # of a number, more digits may follow
            self._move(end)
            return value

    def _value(self) -> tuple[Any, int]:
        try:
            return STRICT.raw_decode(self._text, self._at)
        except json.JSONDecodeError:
            raise
        except ValueError as refused:
            _, end = json.JSONDecoder().raw_decode(self._text, self._at)
            return BadInput(str(refused), path=self.path, line=self.line), end

    def error(self, what: str) -> BadInput:
        return BadInput(f"not JSON: {what} at column {self._column}", path=self.path, line=self.line)

    def _cut_off(self, error: json.JSONDecodeError) -> bool:
        # a string that does not end is reported where it begins
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _TOKEN

    def _more(self) -> bool:
        """Reads on; at least as much as is kept, so that an element over many blocks is not parsed once a block."""
        block = self._file.read(max(BLOCK, len(self._text) - self._at))
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
