"""Rows that no store of ours would hold: found where they are turned into records, and told in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import Double, Table

from ayni.errors import AyniError, BadInput
from ayni.feedback.entries import ACCOUNT_ROLES, EntryKind, Side
from ayni.records import RATINGS, Task

# What columns of these names hold, and nothing else.
WORDS: dict[str, tuple[str, ...]] = {
    "kind": get_args(EntryKind),
    "preferred": get_args(Side),
    "rating": RATINGS,
    "task": get_args(Task),
    "role": ACCOUNT_ROLES,
}


class Damaged(AyniError):
    """The store itself is wrong, not what was asked of it (exit 2). `what` is wrong; `where`: the store."""

    exit_code = 2

    def __init__(self, what: str, where: str = "") -> None:
        self.what = what
        super().__init__(" ".join(f"{where}{': ' * bool(where)}{what}; take a copy of the store back".split()))


@contextmanager
def intact(what: str) -> Iterator[None]:
    """Damaged, `what` by name, where the body cannot make of a row what it should be."""
    try:
        yield
    except (ValueError, TypeError, LookupError, RecursionError, BadInput) as error:
        raise Damaged(f"{what} is damaged ({type(error).__name__ if not str(error) else error})") from None


def sound(table: Table, values: Mapping[str, Any]) -> None:
    """ValueError where a value is not what its column holds: SQLite takes anything anywhere, and bits flip."""
    for name, value in values.items():
        if (column := table.c.get(name)) is None or (value is None and column.nullable):
            continue
        kinds = (float, int) if isinstance(column.type, Double) else (column.type.python_type,)
        if not isinstance(value, kinds):
            raise ValueError(f"{name} is {type(value).__name__}")
        if value not in WORDS.get(name, (value,)):
            raise ValueError(f"{name} is {value!r}")
        if name.endswith("_at"):
            datetime.fromisoformat(str(value))
