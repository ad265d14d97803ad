"""What a format is: how its rows are known, and what they can be read as."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ayni.formats.rows import Row, Skip
from ayni.records import Comparison, Judgement
from ayni.stage import Kind

Reader = Callable[[Row], Iterable[Any]]


@dataclass(frozen=True)
class Format:
    """`matches(row)` knows a row of this format, where none before it in ayni.formats.known does.

    `readers`: what its rows can be read as; the first is what the format is made for. A reader yields records, and Skip
    for a part that a documented policy leaves out; it raises Skip for a whole row, and BadInput for what is wrong.
    """

    name: str
    matches: Callable[[Row], bool]
    readers: Mapping[Kind, Reader]

    @property
    def made_for(self) -> Kind:
        return next(iter(self.readers))

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What files of it can be read as; judgements give comparisons too (see ayni.formats.pairing)."""
        return (*self.readers, "comparisons") if "judgements" in self.readers else (*self.readers,)


def with_prompts(kind: Kind, reader: Callable[[Row], Iterable[Comparison | Judgement | Skip]]) -> dict[Kind, Reader]:
    """The readers of a format whose records hold prompts: as they are, and as their prompts."""
    return {
        kind: reader,
        "prompts": lambda row: (record if isinstance(record, Skip) else record.prompt for record in reader(row)),
    }
