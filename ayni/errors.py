"""The three ways a command can fail, each with its exit code and one line that says what to do."""

from __future__ import annotations

from pathlib import Path

LONGEST = 500  # characters of what a file may have put into an error


class AyniError(Exception):
    """A failure the user can act on: printed as one line, never as a traceback."""

    exit_code = 1


class BadInput(AyniError):
    """Bad data or config (exit 2), printed as `path:line: field: what is wrong; how to fix it`."""

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        path: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
        fix: str | None = None,
    ) -> None:
        what, field = _short(what), None if field is None else _short(field)
        self.what, self.path, self.line, self.field, self.fix = what, path, line, field, fix
        place = f"{path}:{line}" if path is not None and line is not None else path
        head = ": ".join(str(part) for part in (place, field) if part is not None)
        text = f"{head}: {what}" if head else what
        super().__init__(" ".join(f"{text}; {fix}".split() if fix else text.split()))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"


class NoRoom(AyniError):
    """Not enough disk or memory (exit 3)."""

    exit_code = 3


class BadNumbers(AyniError):
    """Numbers went bad: NaN, infinity, or the KL budget is spent (exit 4)."""

    exit_code = 4
