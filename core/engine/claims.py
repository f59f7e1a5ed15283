"""Claims: which runs of a store this engine takes, where others work on it too.

* A run of this engine, or of one that lives, is left where it is: its owner sees to its messages and timers.
* A run that was at work when its owner died or left, or that has something to do now and no owner, is taken at once.
* A run that nobody has begun yet (a `Client` created it) is taken when there is room: as many as keep this engine's
  threads busy, so that two workers share what there is, and one that joins later still finds something.
* A run whose workflow this engine does not have is left to others as long as there are any. An engine alone takes it
  as well, and blocks it, which tells people what is missing.

Runs are claimed in batches of one commit each. Who comes second gets nothing of a batch, and loses no time by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from dalsegno.core.engine.arrivals import MAIL
from dalsegno.core.engine.leases import Leases
from dalsegno.core.engine.loop import Loop
from dalsegno.core.engine.surroundings import Surroundings
from dalsegno.core.engine.suspects import Suspects
from dalsegno.core.store import RunRecord, Status

BATCH = 200
"""Runs claimed in one commit at a take-over: several survivors then share what one has left."""


class Claims:
    """What this engine may take, and what waits until it has room. `room()` answers for how many more."""

    def __init__(
        self, around: Surroundings, loop: Loop, leases: Leases, suspects: Suspects, room: Callable[[], int]
    ) -> None:
        self._around, self._loop, self._leases, self._suspects = around, loop, leases, suspects
        self._room = room
        self.waiting: dict[int, None] = {}  # nobody's, and not begun: a set that keeps the order in which they came
        self.draining = False

    def ours(self, numbers: Iterable[int], *, begun_only: bool = False) -> set[int]:
        """Those of these runs that this engine is to move now; it has claimed them if they were free. With
        `begun_only`, runs that nobody has begun wait for room."""
        asked = list(dict.fromkeys(numbers))
        mine = {number for number in asked if number in self._loop.live}
        free: list[RunRecord] = []
        for record in self._around.backend.look_up([number for number in asked if number not in mine]):
            if record.owner == self._around.owner:
                mine.add(record.number)
            elif not self.may_take(record):
                self._loop.ends.forget(record.workflow_id)
            elif begun_only and not record.epoch:
                self.waiting[record.number] = None
            else:
                free.append(record)
        if free:
            mine |= {record.number for record in self._claim(free)}
        return mine

    def _claim(self, records: Sequence[RunRecord]) -> list[RunRecord]:
        """Claim runs that were looked up; answers those that are ours now."""
        claimed = self._around.backend.claim([record.number for record in records], self._around.owner)
        if self._around.observed is not None:
            self._around.observed.claimed(records, claimed)
        return claimed

    def may_take(self, record: RunRecord) -> bool:
        """Whether a run of another owner, or of none, is for this engine."""
        if self.draining or not record.status.open or self._leases.lives(record.owner):
            return False
        return record.workflow in self._around.workflows or not self._leases.others

    def take_over(self, *, opening: bool = False) -> None:
        """Claim every run with work to do that is nobody's or a dead owner's; have the blocked ones, for which the
        code may have been mended, tried again. When `opening`, what carries our name is of an earlier life."""
        backend, after, me = self._around.backend, 0, self._around.owner
        mine = "" if opening else me
        found: dict[int, RunRecord] = {}
        while numbers := backend.active(after):
            for record in backend.look_up(numbers):
                if record.owner == mine != "" or record.number in self._loop.live or not self.may_take(record):
                    continue
                if record.epoch:
                    found[record.number] = record
                else:
                    self.waiting[record.number] = None
            after = numbers[-1]
        free = [found[number] for number in self._suspects.hold_back(list(found))]
        for start in range(0, len(free), BATCH):
            for record in self._claim(free[start : start + BATCH]):
                self._loop.adopt(record)
        before: int | None = None
        while blocked := backend.runs(status=[Status.BLOCKED], before=before):
            for record in blocked:
                if record.owner == mine != "" or record.reason.startswith("quarantined"):
                    continue
                if self.may_take(record):
                    self._loop.deliver(record.number, MAIL)
            before = blocked[-1].number

    def take_waiting(self) -> None:
        """Claim runs that nobody has begun, as many as there is room for."""
        while self.waiting and not self.draining and (room := self._room()) > 0:
            batch = list(islice(self.waiting, room))
            claimed = self._around.backend.claim(batch, self._around.owner)
            for number in batch:  # not before: if the store fails, they wait for the next tick
                del self.waiting[number]
            for record in claimed:
                self._loop.deliver(record.number, MAIL)

    def let_go_of_lost(self) -> None:
        """Forget the runs that others have taken while this engine had no lease. One that is just being moved finds it
        out by itself, when its transition is refused."""
        live = {number: run for number, run in list(self._loop.live.items()) if run.record is not None}
        still = {record.number: record for record in self._around.backend.look_up(list(live))}
        for number, run in live.items():
            record = still.get(number)
            if record is None or (record.owner, record.epoch) != (self._around.owner, run.epoch):
                self._loop.lose(run)
