"""The real engine on a virtual clock and a seeded scheduler, in one thread.

What a worker's threads would do, `Simulation` does one piece at a time, in an order drawn from its seed: advance a run,
run a body, flush. When nothing is left to do, time skips to the next deadline. A workflow that sleeps for a month takes
milliseconds, and the same seed gives the same histories, byte for byte.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Generic, Self, TypeVar

from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.definitions import Definition
from dalsegno.core.engine.bodies import Job, run_async_body
from dalsegno.core.engine.engine import Engine
from dalsegno.core.engine.live import LiveRun
from dalsegno.core.engine.run import Run
from dalsegno.core.engine.works import CommonOptions, Works
from dalsegno.core.store import Backend
from dalsegno.testing.clock import VirtualClock

J = TypeVar("J")


STUBBORN: list[Any] = []
"""Generators that would not be put away. They live on, so that none of their code runs when they are collected."""


class Queue(Generic[J]):
    """Hands that only remember what they were given."""

    def __init__(self) -> None:
        self.jobs: list[J] = []

    def put(self, jobs: Iterable[J], expected_us: int) -> None:
        self.jobs.extend(jobs)

    def nudge(self) -> None:
        """Nothing sleeps here."""

    def replace(self, thread: threading.Thread) -> None:
        """No thread is ever stuck here."""


class SimulatedWorks(Works):
    """The engine's parts, driven one piece at a time."""

    def __init__(self, backend: Backend, scheduler: random.Random, options: CommonOptions, cold: bool) -> None:
        super().__init__(backend, **options)
        self._scheduler, self._cold = scheduler, cold
        self.pieces = 0
        self.durable = self._runs = Queue[LiveRun]()
        self.steps = self._bodies = Queue[Job]()

    def piece(self) -> bool:
        """Do one piece of what there is to do; false if there is nothing."""
        runs, bodies, scheduler = self._runs.jobs, self._bodies.jobs, self._scheduler
        choices = len(runs) + len(bodies) + bool(len(self.committer))
        if not choices:
            return False
        self.pieces += 1
        if self._cold:
            self.forget()
        chosen = scheduler.randrange(choices)
        if chosen < len(runs):
            self.loop.advance(runs.pop(chosen))
        elif chosen < len(runs) + len(bodies):
            self._body(bodies.pop(chosen - len(runs)))
        else:
            self.committer.lead()
        return True

    def forget(self) -> None:
        """Put away the code of every run that has recorded all it knows; its next activation is a replay."""
        for run in self.loop.live.values():
            if run.activation is None and run.interpreter is not None:
                run.interpreter.evict()
                STUBBORN.extend(run.interpreter.stubborn)
                run.forget()

    def stop(self) -> None:
        """Record what is done, and give the runs back."""
        self.loop.draining = True
        self.loop.flush_old(everything=True)
        self.committer.retry()
        self.around.backend.release([*self.loop.live], self.around.owner)
        self.forget()

    def _body(self, job: Job) -> None:
        if not inspect.iscoroutinefunction(job.fn):
            self.loop.work(job)
        elif job.waited_for:
            asyncio.run(run_async_body(job, self.around.codec, self.around.clock))
            self.loop.finished(job)


class Simulation(Engine):
    """An engine for tests: `Simulation([fulfil], seed=7)`, then everything `Engine` offers.

    `store` defaults to a fresh memory store; give one to go on where another simulation stopped. `result()` and `run()`
    drive it; nothing moves in between. With `cold`, nothing stays in memory: whatever arrives for a run is met by a
    replay of its history.

    >>> from datetime import timedelta
    >>> from dalsegno import Sleep, workflow
    >>> @workflow
    ... def patience():
    ...     yield Sleep(timedelta(days=30))
    ...     return "a month later"
    >>> with Simulation([patience]) as simulation:
    ...     simulation.start(patience).result()
    'a month later'
    """

    def __init__(
        self,
        workflows: Iterable[Definition] = (),
        *,
        seed: int = 0,
        store: Backend | None = None,
        clock: VirtualClock | None = None,
        cold: bool = False,
        **options: Any,
    ) -> None:
        self.seed = seed
        self._scheduler = random.Random(seed)
        self.clock = clock or VirtualClock()
        entropy = random.Random(seed + 1)
        given: CommonOptions = {
            "workflows": workflows,
            "clock": self.clock,
            "entropy": entropy.randbytes,
            **options,  # type: ignore[typeddict-item]  # checked by Works, which takes them
        }
        backend = store if store is not None else MemoryBackend()
        self.works = SimulatedWorks(backend, self._scheduler, given, cold)
        self._serve(self.works)
        self.works.open()

    @property
    def pieces(self) -> int:
        """How many pieces of work were done: what a crash test counts."""
        return self.works.pieces

    def run(self, until: Callable[[], bool] = lambda: False, *, timeout: float | None = None) -> bool:
        """Go on until `until()` holds (true), nothing more can happen by itself, or `timeout` virtual seconds have
        passed (false)."""
        clock, loop = self.clock, self.works.loop
        last_us = None if timeout is None else clock.steady_us() + round(timeout * 1e6)
        while not until():
            if self.works.piece():
                continue
            self.works.clockwork.tick()
            if self.works.piece():
                continue
            if loop.deferred:
                loop.flush_old(everything=True)
                continue
            deadline_us = self.backend.next_deadline_us()
            if deadline_us is None:
                return until()
            wait_us = max(0, deadline_us - clock.now_us())
            if last_us is not None and clock.steady_us() + wait_us > last_us:
                clock.advance_us(max(0, last_us - clock.steady_us()))
                return until()
            clock.advance_us(wait_us)
            loop.expect_timer(deadline_us)
        return True

    def wait_for_end(self, run: Run[Any], timeout: float | None) -> bool:
        """Drive the simulation until the run has ended."""
        return self.run(lambda: run.ended, timeout=timeout)

    def call_at_end(self, run: Run[Any], ended: Future[None]) -> bool:
        """Awaiting a run drives the simulation, too."""
        if self.run(lambda: run.ended):
            ended.set_result(None)
        return True

    def close(self) -> None:
        """End the simulation as a good shutdown would: nothing more is started, what is done is recorded."""
        if not self._closed:
            self._closed = True
            self.works.stop()

    def crash(self) -> Backend:
        """Stop as a killed process does: nothing more is recorded. Answers the store, for the next simulation."""
        self._closed = True
        for run in self.works.loop.live.values():
            if run.interpreter is not None:
                run.interpreter.evict()  # a killed process runs no clean-up either
                STUBBORN.extend(run.interpreter.stubborn)
        return self.backend

    def __enter__(self) -> Self:
        return self
