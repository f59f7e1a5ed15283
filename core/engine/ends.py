"""What runs came to, kept for those who ask soon after: a result is then not read back from the store.

Only of runs that completed, small ones, and so many of them; whoever finds none here reads the store, which knows all.
"""

from __future__ import annotations

import threading

KEPT_MAX = 10_000
KEPT_BYTES_MAX = 1_024
"""So that all of it takes some 10 MB at most."""


class Ends:
    """The closing events of the runs that completed last, by workflow id."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}
        self._changing = threading.Lock()
        self.get = self._kept.get

    def keep(self, workflow_id: str, completed: bytes) -> None:
        """A run completed, with this event."""
        if len(completed) <= KEPT_BYTES_MAX:
            with self._changing:
                self._kept[workflow_id] = completed
                if len(self._kept) > KEPT_MAX:
                    del self._kept[next(iter(self._kept))]

    def forget(self, workflow_id: str) -> None:
        """The id has a newer run."""
        if self._kept:
            with self._changing:
                self._kept.pop(workflow_id, None)
