"""Time-outs of attempts: which of the bodies that run now have taken longer than they may."""

from __future__ import annotations

import heapq
import itertools
import threading

from dalsegno.core.engine.bodies import Job
from dalsegno.core.engine.edge import Clock

AGAIN_US = 100_000
"""How soon an attempt is looked at again whose thread was just deciding what becomes of it."""

SWEEP_FROM = 1000
"""Below so many entries it is not worth looking for attempts that ended long before their time was up."""


class Timeouts:
    """A heap of attempts by the moment their time is up. Watched from many threads, asked by one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[int, int, Job]] = []
        self._most = SWEEP_FROM
        self._order = itertools.count()  # entries of one moment are never compared by their jobs
        self._lock = threading.Lock()

    def watch(self, job: Job) -> None:
        """An attempt with a time-out begins now."""
        job.beat_us = self._clock.steady_us()
        with self._lock:
            self._push(job)
            if len(self._heap) > self._most:
                # Most attempts end early: forget those, so that the heap grows with what runs, not with what has run.
                self._heap = [entry for entry in self._heap if entry[2].waited_for]
                heapq.heapify(self._heap)
                self._most = max(SWEEP_FROM, 2 * len(self._heap))

    @property
    def next_us(self) -> int | None:
        """Not before this moment (of the steady clock) will an attempt run out of time; None: none is watched."""
        with self._lock:
            return self._heap[0][0] if self._heap else None

    def expired(self) -> list[Job]:
        """The attempts whose time is up, each told of once. A heartbeat gives an attempt its whole time again."""
        now_us = self._clock.steady_us()
        late: list[Job] = []
        with self._lock:
            while self._heap and self._heap[0][0] <= now_us:
                _, _, job = heapq.heappop(self._heap)
                if not job.waited_for or job.result is not None or job.error is not None:
                    continue
                if self._due_us(job) > now_us:
                    self._push(job)
                elif job.transaction is None or job.transaction.fate.acquire(blocking=False):
                    late.append(job)
                else:  # looked up, or being committed: that decides, and it is looked at again should it not
                    heapq.heappush(self._heap, (now_us + AGAIN_US, next(self._order), job))
        return late

    def _push(self, job: Job) -> None:
        heapq.heappush(self._heap, (self._due_us(job), next(self._order), job))

    @staticmethod
    def _due_us(job: Job) -> int:
        assert job.options.timeout is not None
        return job.beat_us + round(job.options.timeout * 1e6)
