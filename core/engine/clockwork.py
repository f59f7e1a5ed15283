"""The clockwork: everything that happens because time has passed. `tick()` does it once; a worker ticks on a thread,
a simulator whenever its clock has moved.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from dalsegno.core.engine.arrivals import MAIL
from dalsegno.core.engine.claims import Claims
from dalsegno.core.engine.committer import Committer
from dalsegno.core.engine.leases import Leases
from dalsegno.core.engine.live import STUBBORN, LiveRun
from dalsegno.core.engine.loop import Loop
from dalsegno.core.engine.surroundings import Surroundings
from dalsegno.core.engine.suspects import Suspects
from dalsegno.core.engine.upkeep import Upkeep
from dalsegno.core.engine.watchdog import Watchdog
from dalsegno.core.errors import StoreFull

TICK_S = 0.05
"""How long a message from another process waits at most, and how often time-outs are looked at."""

AFTER_FIRING_S = 0.002
"""Between two looks at timers that are due but whose transitions are still on their way."""

log = logging.getLogger("dalsegno.engine")


class Sweeps(Protocol):
    """What deletes closed runs in time (`dalsegno.core.engine.sweeping`, loaded only where a policy asks for it)."""

    @property
    def sweeping(self) -> bool: ...
    def tick(self, full: bool) -> None: ...
    def stop(self) -> None: ...


class Clockwork:
    """Fires timers, reads news from other processes, expires attempts, flushes what is old, puts idle runs away."""

    def __init__(
        self,
        around: Surroundings,
        loop: Loop,
        upkeep: Upkeep,
        committer: Committer,
        *,
        leases: Leases,
        room: Callable[[], int],
        put_away_after: float,
        live_max: int,
    ) -> None:
        self._around, self._loop, self._upkeep, self._committer = around, loop, upkeep, committer
        self._put_away_after_us, self._live_max = round(put_away_after * 1e6), live_max
        self.suspects = Suspects(around, loop)
        self.leases = leases
        self.claims = Claims(around, loop, leases, self.suspects, room)
        self.sweeper: Sweeps | None = None
        self.watchdog: Watchdog | None = None
        self.moves_runs = True  # false where only steps are to be run
        self._news_seen = 0
        self._changes: object = None
        self._lost = self._gone = False  # whether our lease was lost, or others have gone, and it is not yet seen to

    def recover(self) -> None:
        """Go on with what is unfinished and nobody else's."""
        self._loop.tasks.declare()
        if self.moves_runs:
            self.claims.take_over(opening=True)
            self._loop.next_deadline_us = self._around.backend.next_deadline_us()

    def tick(self) -> None:
        """Look at everything once. Cheap in a calm: one read of the store's change counter."""
        loop, upkeep = self._loop, self._upkeep
        if self.watchdog is not None:
            self.watchdog.look()
        stalled = self._committer.stalled
        if stalled is not None:
            self._committer.retry()
        self._look_at_leases()
        if loop.troubled:
            upkeep.retry_troubled()
        loop.tasks.tick()
        if self.moves_runs:
            self._read_news()
            if self.claims.waiting:
                self.claims.take_waiting()
            upkeep.fire_timers(self.claims.ours)
        if loop.notes.due():
            loop.notes.keep()
        upkeep.expire_attempts()
        if self.suspects:
            self.suspects.try_next()
        if loop.deferred:
            upkeep.flush_old()
        if loop.idle:
            self._put_away()
        if len(self._committer):
            self._committer.lead()
        if self.sweeper is not None:
            self.sweeper.tick(isinstance(stalled, StoreFull))

    def pause_s(self) -> float:
        """How long nothing will happen by itself, as far as is known."""
        due_us = self._loop.next_deadline_us
        if due_us is None:
            return TICK_S
        return min(TICK_S, max(AFTER_FIRING_S, (due_us - self._around.clock.now_us()) / 1e6))

    def _look_at_leases(self) -> None:
        """Renew ours, see to what we have lost meanwhile, and to what others have left."""
        if not self.leases.keep():
            self._lost = True
            if self._around.observed is not None:
                self._around.observed.tell("lease_lost")
        if self._lost:
            self.claims.let_go_of_lost()
            self._lost = False
        self._gone |= bool(self.leases.look_when_due())
        if self._gone and self.moves_runs:
            self.claims.take_over()
            self._news_seen, self._changes = 0, None  # their messages and timers were left to them
            self._loop.next_deadline_us = self._around.backend.next_deadline_us()
        self._gone = False
        self._loop.start_ready()  # bodies that waited for our lease

    def _read_news(self) -> None:
        backend = self._around.backend
        changes = backend.changes()
        if changes == self._changes:
            return
        while news := backend.news(self._news_seen):
            numbers = dict.fromkeys(run for _, run in news)
            ours = self.claims.ours(numbers, begun_only=True)
            for number in numbers:
                if number in ours:
                    self._loop.deliver(number, MAIL)
            self._news_seen = news[-1][0]
        deadline_us = backend.next_deadline_us()
        if deadline_us is not None:
            self._loop.expect_timer(deadline_us)
        self._changes = changes  # not before: if the store fails in between, the next tick reads it again

    def _put_away(self) -> None:
        now_us, idle = self._around.clock.steady_us(), self._loop.idle
        crowd = len(idle) - self._live_max
        chosen: list[LiveRun] = []
        for run in list(idle.values()):
            if len(chosen) >= crowd and now_us - run.idle_since_us <= self._put_away_after_us:
                break  # the rest has been idle for a shorter time
            chosen.append(run)
        if chosen:
            self._upkeep.put_away(chosen, STUBBORN)
