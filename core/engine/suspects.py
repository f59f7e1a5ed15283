"""Suspects: after a second death, the runs that were at work each time are begun one at a time.

A process that was killed does not say by whom. Each claim of a run that was active when its engine died counts one
death for it, and after `DEATHS_MAX` of them it is set aside. If all that was active were claimed at once every time,
one killer would take with it whoever got nothing done before it struck. So those that were there at two deaths and
have recorded nothing since are held back and claimed singly; the next death then counts for one of them only.
"""

from __future__ import annotations

from collections.abc import Sequence

from dalsegno.core.engine.arrivals import MAIL
from dalsegno.core.engine.loop import Loop
from dalsegno.core.engine.surroundings import Surroundings
from dalsegno.core.store import Status

SUSPECT_FROM = 2
"""Deaths; one may be anything, and to begin everything singly after each would make every restart slow."""

PATIENCE_US = 2_000_000
"""A suspect that is at work for so long without recording anything no longer holds up the next."""


class Suspects:
    """Runs that wait for their turn to be claimed, and the one whose turn it is."""

    def __init__(self, around: Surroundings, loop: Loop) -> None:
        self._around, self._loop = around, loop
        self._waiting: dict[int, None] = {}
        self._tried: int | None = None
        self._since_us = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def hold_back(self, numbers: Sequence[int]) -> list[int]:
        """Keep those that are suspected for later; answers the others."""
        others: list[int] = []
        for number in numbers:
            record = self._around.backend.record(number)
            if record is not None and record.deaths >= SUSPECT_FROM:
                self._waiting[number] = None
            else:
                others.append(number)
        return others

    def try_next(self) -> None:
        """Claim the next one, unless the one before it has yet to show that it does no harm."""
        if self._tried is not None and self._on_trial(self._tried):
            return
        number = next(iter(self._waiting))
        del self._waiting[number]
        self._tried, self._since_us = number, self._around.clock.steady_us()
        self._loop.deliver(number, MAIL)  # it is claimed in its own turn: then never twice

    def _on_trial(self, number: int) -> bool:
        if self._around.clock.steady_us() - self._since_us > PATIENCE_US:
            return False
        record = self._around.backend.record(number)
        return record is not None and record.status is Status.RUNNING and record.active and record.deaths > 0
