"""The signal, inside the engine, that a run is to be ended without asking its code."""

from __future__ import annotations

from dalsegno.core.store import Status


class Ended(Exception):
    """The run ends here without its code being asked: terminated, or out of time."""

    def __init__(self, status: Status, reason: str, deadline_us: int = 0) -> None:
        super().__init__(reason)
        self.status, self.reason, self.deadline_us = status, reason, deadline_us
