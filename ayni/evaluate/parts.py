"""Parts of what is measured, each large enough for a number of its own: by turns, by length, by source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

LEAST = 30  # of what is measured, in a part


def thirds(lengths: ArrayLike) -> list[str]:
    """`short`, `middle` or `long`, of each of these lengths (N,), by thirds; equal ones are never parted."""
    of = np.asarray(lengths)
    if not of.size:
        return []
    names = ("short", "middle", "long")
    return [names[third] for third in np.searchsorted(np.quantile(of, [1 / 3, 2 / 3]), of).tolist()]


def parts(labels: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, list[int]]]:
    """(`by_KIND:LABEL`, which of them have it), from a label (N,) of every kind; of LEAST or more, and only where there
    are several labels."""
    for kind, of in labels.items():
        names = sorted(set(of))
        for name in names if len(names) > 1 else ():
            at = [i for i, label in enumerate(of) if label == name]
            if len(at) >= LEAST:
                yield f"by_{kind}:{name}", at
