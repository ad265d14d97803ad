"""What lies before each annotator: an item stays there until they answer it, whatever others do meanwhile.

The store alone would take an item away when somebody else has judged it, and an item that was taken back too; a gold
check, which everybody answers, would stay. Who waits and loads the page again could tell them apart.
"""

from __future__ import annotations

import threading
from collections import defaultdict


class Desk:
    """Piles of item ids by (annotator, batch), the one that is shown on top. Threads may share it.

    It lives as long as the process: after a restart the store decides anew, as it does for another process's page.
    """

    def __init__(self) -> None:
        self._piles: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self._lock = threading.Lock()

    def top(self, annotator_id: str, batch_id: str) -> str | None:
        with self._lock:
            pile = self._piles[annotator_id, batch_id]
            return pile[-1] if pile else None

    def lay(self, annotator_id: str, batch_id: str, item_id: str) -> None:
        """On top, wherever it lay before."""
        with self._lock:
            pile = self._piles[annotator_id, batch_id]
            pile[:] = [*(each for each in pile if each != item_id), item_id]

    def clear(self, annotator_id: str, batch_id: str, item_id: str) -> None:
        with self._lock:
            pile = self._piles[annotator_id, batch_id]
            pile[:] = [each for each in pile if each != item_id]
