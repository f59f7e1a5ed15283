"""The engine's parts without threads: what threads would do is done one piece at a time, in an order drawn by lot.

A piece is: advance one run, run one body, or flush. A body runs at once and takes no virtual time, unless it was said
how long it takes: then it begins in one piece and its function is called in another, when that time has passed, as a
body does that works first and has its effect at the end. Meanwhile its time-out may pass, or its run be cancelled; it
then ends unheard, as a thread would.
"""

from __future__ import annotations

import functools
import heapq
import inspect
import itertools
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from math import inf
from typing import Any, Generic, TypeVar

import attrs

from dalsegno.core.engine.bodies import Job, run_async_body, run_body, too_slow
from dalsegno.core.engine.live import LiveRun
from dalsegno.core.engine.works import CommonOptions, Works
from dalsegno.core.errors import StoreError
from dalsegno.core.policies import seconds
from dalsegno.testing.clock import VirtualClock
from dalsegno.testing.faults import Body
from dalsegno.testing.faulty_store import FaultyStore
from dalsegno.testing.virtual_loop import run_coroutine
from dalsegno.testing.witness import Witness

J = TypeVar("J")

SLOW_BODY_S = 3600.0

STUBBORN: list[Any] = []
"""Generators that would not be put away. They live on, so that none of their code runs when they are collected."""

Duration = float | timedelta | Callable[[int], float | timedelta]
"""How long a step takes: a number of seconds, a timedelta, or a function of the attempt's number that answers one."""


class Queue(Generic[J]):
    """Hands that only remember what they were given."""

    def __init__(self) -> None:
        self.jobs: list[J] = []

    def put(self, jobs: Iterable[J], expected_us: int) -> None:
        self.jobs.extend(jobs)

    def nudge(self) -> None:
        """Nothing sleeps here."""

    @property
    def waiting(self) -> float:
        """A flush is a piece of its own, whose turn is drawn by lot."""
        return inf

    def replace(self, thread: threading.Thread) -> None:
        """No thread is ever stuck here."""


class Agenda:
    """What is to be done at which virtual time; what was entered first goes first."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, Callable[[], object]]] = []
        self._count = itertools.count()

    def add(self, at_us: int, do: Callable[[], object]) -> None:
        heapq.heappush(self._entries, (at_us, next(self._count), do))

    @property
    def next_us(self) -> int | None:
        """When the first of it is due."""
        return self._entries[0][0] if self._entries else None

    def pop_due(self, now_us: int) -> Callable[[], object] | None:
        """The first of what is due, taken off the list."""
        if self._entries and self._entries[0][0] <= now_us:
            return heapq.heappop(self._entries)[2]
        return None


@attrs.frozen
class Stage:
    """What a simulation keeps over all lives of its process, and each life's works need."""

    clock: VirtualClock
    scheduler: random.Random
    witness: Witness
    cold: bool = False
    fakes: dict[Any, Callable[..., Any]] = attrs.field(factory=dict)
    durations: dict[Any, tuple[Duration, float | None]] = attrs.field(factory=dict)

    @staticmethod
    def look_up(table: Mapping[Any, Any], job: Job) -> Any:
        """What was said about a step, by its function or its name."""
        found = table.get(id(job.fn))
        return table.get(job.name) if found is None else found


class SimulatedWorks(Works):
    """The engine's parts, driven one piece at a time. One life of the process."""

    def __init__(self, store: FaultyStore, stage: Stage, options: CommonOptions) -> None:
        super().__init__(store, **options)
        self.store, self.stage, self.agenda = store, stage, Agenda()
        self.pieces = 0
        self.tick_failed = False
        self.durable = self._runs = Queue[LiveRun]()
        self.steps = self._bodies = Queue[Job]()

    def piece(self) -> bool:
        """Do one piece of what there is to do; false if there is nothing."""
        due = self.agenda.pop_due(self.stage.clock.steady_us())
        if due is not None:
            self.pieces += 1
            due()
            return True
        runs, bodies, scheduler = self._runs.jobs, self._bodies.jobs, self.stage.scheduler
        flush = self.committer.stalled is None and len(self.committer) > 0
        choices = len(runs) + len(bodies) + flush
        if not choices:
            return False
        self.pieces += 1
        if self.stage.cold:
            self.forget()
        chosen = scheduler.randrange(choices)
        if chosen < len(runs):
            self.loop.advance(runs.pop(chosen))
        elif chosen < len(runs) + len(bodies):
            self._begin(bodies.pop(chosen - len(runs)))
        else:
            self.committer.lead()
        return True

    # --- bodies ----------------------------------------------------------------------------------------------------

    def _begin(self, job: Job) -> None:
        if not job.waited_for:
            return  # cancelled before it began
        if not self.loop.leased():
            self.loop.work(job)  # lays it by until the lease is renewed: it does not begin yet
            return
        stage, options = self.stage, job.options
        if stage.look_up(stage.fakes, job) is not None:
            job.transaction = None  # a fake writes to no database
        retries = job.attempt < options.retry.max_attempts and not options.once
        retries = retries and options.retry.retries(ConnectionError())
        way = self.store.faults.body(job.name, retries, options.timeout)
        if way == "crash-before":
            self.store.die(f"just before the body of step {job.name!r}")
        took_us, beat_us = self._duration(job, way)
        at_once = took_us == 0 and not inspect.iscoroutinefunction(self._function(job))

        def begins() -> None:
            stage.witness.began(job, stage.clock.now_us())

        # The loop flushes before it begins a body, and the store may keep it so long that no body may begin any more.
        plain, job.fn = job.fn, self._dressed(job, way, begins if at_once else lambda: None)
        if at_once:
            self.loop.work(job)
            if job.result is None and job.error is None:
                job.fn = plain  # it was laid by, and comes here once more
            self._stop_if_dead(job)
            return
        if way != "error-before":
            begins()
        if options.timeout is not None:
            self.loop.timeouts.watch(job)
        begun_us = stage.clock.steady_us()
        if took_us is not None:
            self.agenda.add(begun_us + took_us, lambda: self._finish(job, begun_us))
        if beat_us:
            self.agenda.add(begun_us + beat_us, lambda: self._beat(job, beat_us))

    def _finish(self, job: Job, begun_us: int) -> None:
        """The time a body takes has passed: its function is called, though nobody may be waiting any more."""
        if inspect.iscoroutinefunction(job.fn):
            run_coroutine(
                run_async_body(job, self.around.codec, self.around.clock, self.around.observed), self.stage.clock
            )
        else:
            run_body(job, self.around.codec, self.around.clock, self.around.observed, self.store)
        self._stop_if_dead(job)
        job.took_us = self.stage.clock.steady_us() - begun_us
        self.loop.finished(job)

    def _beat(self, job: Job, every_us: int) -> None:
        if job.waited_for and job.result is None and job.error is None:
            now_us = job.beat_us = self.stage.clock.steady_us()
            self.agenda.add(now_us + every_us, lambda: self._beat(job, every_us))

    def _stop_if_dead(self, job: Job) -> None:
        if self.store.dead:  # whatever raised it, the body's runner took it for the body's outcome
            self.store.die(f"in the body of step {job.name!r}")

    def _duration(self, job: Job, way: Body | None) -> tuple[int | None, int]:
        """How long a body takes, and how often it says that it is alive; None: it never comes back."""
        if way == "timeout" and job.options.timeout is not None:
            return round((job.options.timeout + 1) * 1e6), 0
        if way == "slow":
            return round(SLOW_BODY_S * self.store.faults.amount("step.slow") * 1e6), 0
        said = self.stage.look_up(self.stage.durations, job)
        if said is None:
            return 0, 0
        duration, beat = said
        took = seconds(duration(job.attempt) if callable(duration) else duration)
        return (None if took == float("inf") else round(took * 1e6)), round((beat or 0) * 1e6)

    def _function(self, job: Job) -> Callable[..., Any]:
        """The step's own function, or its fake."""
        fake = self.stage.look_up(self.stage.fakes, job)
        fn: Callable[..., Any] = job.fn if fake is None else fake
        return fn

    def _dressed(self, job: Job, way: Body | None, begins: Callable[[], None]) -> Callable[..., Any]:
        """The function to be called for a body, with what is to go wrong around it; `begins` is told when it is."""
        fn = self._function(job)
        clock = self.stage.clock
        begun_us = clock.steady_us()

        def after() -> None:
            if way == "crash-after":
                self.store.die(f"between the effect of step {job.name!r} and its record")
            if way == "error-after":
                raise ConnectionError(f"injected: step {job.name!r} ran, and failed after its effect")
            timeout = job.options.timeout
            if timeout is not None and clock.steady_us() - max(begun_us, job.beat_us) > timeout * 1e6:
                raise too_slow(job)  # the body itself moved the clock

        if inspect.iscoroutinefunction(fn):

            @functools.wraps(fn)
            async def dressed_async(*args: Any, **kwargs: Any) -> Any:
                if way == "error-before":
                    raise ConnectionError(f"injected: step {job.name!r} failed before its effect")
                result = await fn(*args, **kwargs)
                after()
                return result

            return dressed_async

        @functools.wraps(fn)
        def dressed(*args: Any, **kwargs: Any) -> Any:
            if way == "error-before":
                raise ConnectionError(f"injected: step {job.name!r} failed before its effect")
            begins()
            result = fn(*args, **kwargs)
            after()
            return result

        return dressed

    # --- time ------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """What the clockwork's thread does, once."""
        self.tick_failed = False
        try:
            self.clockwork.tick()
        except StoreError:
            self.tick_failed = True  # the worker's clockwork logs it and looks again with the next tick

    def waits_us(self) -> Iterable[int]:
        """How long it is, from now, until the things that happen by themselves in this process."""
        steady_us, loop = self.stage.clock.steady_us(), self.loop
        if self.agenda.next_us is not None:
            yield self.agenda.next_us - steady_us
        if loop.timeouts.next_us is not None:
            yield loop.timeouts.next_us - steady_us
        if loop.tasks.next_us is not None:
            yield loop.tasks.next_us - self.stage.clock.now_us()
        for run in loop.deferred.values():
            if run.activation is not None:
                yield run.activation.since_us + loop.pacing.limit_us(run) - steady_us

    @property
    def ticks_again(self) -> bool:
        """Whether the next tick has something to look at that no moment is known for."""
        sweeper = self.clockwork.sweeper
        sweeping = sweeper is not None and sweeper.sweeping
        return self.tick_failed or self.store.late or bool(self.clockwork.suspects) or sweeping

    # --- memory ----------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Put away the code of every run that has recorded all it knows; its next activation is a replay."""
        for run in self.loop.live.values():
            if run.activation is None and run.interpreter is not None:
                run.interpreter.evict()
                STUBBORN.extend(run.interpreter.stubborn)
                run.forget()

    def stop(self) -> None:
        """End in good order: nothing more is begun, what has happened is recorded, the runs are given back."""
        self.loop.draining = self.claims.draining = True
        try:
            for _ in range(2):  # a checkpoint that is on its way, and what gathered behind it
                self.upkeep.flush_old(everything=True)
                self.committer.retry()
            self.around.backend.release([*self.loop.live], self.around.owner)
            self.loop.tasks.stop()
            self.leases.end()
        except StoreError:
            pass  # as at the worker's stop: the runs go on when the store is opened again
        self.bury()

    def lose_lease(self) -> None:
        """Others end this engine's lease: as they do at once when a process has ended on their machine."""
        store = self.store.inner
        for lease in store.leases():
            if lease.owner == self.around.owner:
                store.expire(lease)

    def bury(self) -> None:
        """The process is dead: nothing it holds acts any more, and its generators are put away without clean-up."""
        self.store.dead = True
        self.lose_lease()
        for run in list(self.loop.live.values()):
            if run.interpreter is not None:
                run.interpreter.evict()
                STUBBORN.extend(run.interpreter.stubborn)
