"""What a handle knows of the runs it wrote to last, so that a run's next step is put without looking anything up.

To append a step's event a store has to know the run's epoch and where its history ends. Whoever wrote them in the
commit before knows it, as long as nobody else has committed in between; the number of the commit tells.
"""

from __future__ import annotations

KNOWN_MAX = 50_000
"""Runs with steps in flight; a few MiB."""

Known = dict[int, tuple[int, int, bool]]
"""For the number of a run that is RUNNING: its epoch, the length of its history, and whether it is active."""


class Heads:
    """The runs known from the last commit of this handle."""

    __slots__ = ("_known", "_next")

    def __init__(self) -> None:
        self._known: Known = {}
        self._next: int | None = None

    def before(self, serial: int) -> Known:
        """What is known when the commit of this number begins. If it is never `kept`, nothing is from then on."""
        if serial != self._next or len(self._known) > KNOWN_MAX:
            self._known.clear()
        self._next = None
        return self._known

    def kept(self, serial: int) -> None:
        """That commit is through, with what it has noted."""
        self._next = serial + 1
