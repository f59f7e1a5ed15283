"""Upkeep: what has to be done for the runs of a loop because time has passed, each method once for all of them.

The clockwork says when.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from dalsegno.core.engine.bodies import Job, too_slow
from dalsegno.core.engine.live import LiveRun
from dalsegno.core.engine.loop import Loop
from dalsegno.core.engine.surroundings import Surroundings
from dalsegno.core.store import DueTimer

DUE_MAX = 1000
"""Timers fired at a time, besides those of others that lie before them."""

OTHERS_US = 50_000
"""How soon timers are looked at again when some that were due are another engine's."""


class Upkeep:
    """Timers, time-outs, results that have waited long enough, runs in trouble, and runs that idle."""

    def __init__(self, around: Surroundings, loop: Loop) -> None:
        self._around, self._loop = around, loop
        self._passed_over = 0  # timers that were due at the last look, and another engine's

    def fire_timers(self, ours: Callable[[Iterable[int]], Collection[int]]) -> None:
        """Deliver every timer that is due and of a run that `ours` says is this engine's; they leave the store with the
        transitions that record them."""
        backend, now_us = self._around.backend, self._around.clock.now_us()
        if self._loop.next_deadline_us is None or self._loop.next_deadline_us > now_us:
            return
        # Timers stay in the store until their transition is through, so the tick may meet one twice: folding it a
        # second time finds nobody waiting.
        found = backend.due(now_us, DUE_MAX + self._passed_over)
        mine = ours(due.run for due in found)
        for due in found:
            if due.run in mine:
                self._due(due)
        self._passed_over = sum(due.run not in mine for due in found)
        deadline_us = backend.next_deadline_us()
        if self._passed_over and deadline_us is not None:  # another engine's, which fires it about now
            deadline_us = max(deadline_us, now_us + OTHERS_US)
        self._loop.next_deadline_us = deadline_us

    def _due(self, due: DueTimer) -> None:
        run = self._loop.live.get(due.run)
        if run is not None:
            act = run.activation
            if due in list(run.inputs) or (act is not None and due in act.inputs):
                return
        if self._loop.observed is not None:
            self._loop.observed.tell("timer_fired", (self._around.clock.now_us() - due.deadline_us) / 1e6)
        self._loop.deliver(due.run, due)

    def expire_attempts(self) -> None:
        """Give up attempts that took longer than their time-out; their threads are replaced."""
        for job in self._loop.timeouts.expired():
            self._expire(job)

    def _expire(self, job: Job) -> None:
        late = Job(job.run, job.id, job.name, job.fn, job.payload, job.options, job.attempt)
        late.error, late.took_us = too_slow(job), self._around.clock.steady_us() - job.beat_us
        job.run.running[job.id] = late  # from here on the old attempt's outcome is nobody's
        if job.cancel is not None:
            job.cancel()
        elif job.thread is not None:
            self._loop.bodies().replace(job.thread)
        self._loop.outcome(late)

    def flush_old(self, *, everything: bool = False) -> None:
        """Record results that have waited as long as their policy lets them."""
        now_us = self._around.clock.steady_us()
        for run in list(self._loop.deferred.values()):
            act = run.activation
            if act is None or run.ahead is not None:
                continue
            if (everything or self._loop.pacing.is_old(run, act, now_us)) and run.seize():
                if run.activation is act and run.ahead is None:
                    self._loop.submit(run, act)
                else:
                    self._loop.pass_turn(run)

    def retry_troubled(self) -> None:
        """Move on the runs that met a store failure."""
        now_us = self._around.clock.steady_us()
        for run in list(self._loop.troubled.values()):
            if run.rests_until_us <= now_us and self._loop.troubled.pop(run.number, None) is not None:
                self._loop.enqueue(run)

    def put_away(self, runs: Iterable[LiveRun], stubborn: list[Any]) -> int:
        """Drop waiting runs from memory; they cost disk only from then on. Answers how many were put away."""
        count = 0
        for run in runs:
            if not run.seize():
                continue
            with self._loop.registry:
                if run.running or run.inputs or run.activation is not None or run.ahead is not None:
                    gone = False
                else:
                    gone = self._loop.live.pop(run.number, None) is run
                    self._loop.idle.pop(run.number, None)
            if not gone:
                self._loop.pass_turn(run)
                continue
            count += 1
            if run.interpreter is not None and not run.interpreter.evict():
                stubborn.append(run.interpreter)
            run.interpreter = None
        return count
