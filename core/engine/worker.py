"""The worker: the threads around a loop. It only works; `Engine` adds a client.

Two crews that never wait for each other: the *durable* crew advances runs that something has arrived for, the *step*
crew runs bodies (and moves on the run whose body it ran). An event loop for `async def` steps is started when the first
one comes. One more thread keeps the clockwork going.
"""

from __future__ import annotations

import inspect
import logging
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import timedelta
from functools import lru_cache, partial
from operator import attrgetter
from types import FrameType
from typing import TYPE_CHECKING, Self, Unpack

from dalsegno.core.engine.bodies import Job
from dalsegno.core.engine.clockwork import TICK_S
from dalsegno.core.engine.crew import Crew
from dalsegno.core.engine.live import STUBBORN, LiveRun, is_loaded
from dalsegno.core.engine.loop import Loop
from dalsegno.core.engine.surroundings import Surroundings
from dalsegno.core.engine.watchdog import WATCHDOG_S, Watchdog
from dalsegno.core.engine.works import CommonOptions, WorkerOptions, Works
from dalsegno.core.errors import BadOption, StoreError
from dalsegno.core.options import duration, instance, only, whole
from dalsegno.core.policies import Retention
from dalsegno.core.store import Backend

if TYPE_CHECKING:
    from dalsegno.core.engine.async_bodies import AsyncBodies
    from dalsegno.core.engine.executors import ExecutorBodies

GRACE_S = 10.0
STEP_THREADS = 16
DURABLE_THREADS = 2
"""Advancing workflows is short work under one interpreter lock: two threads keep it going while one commits."""
WATCHDOG_LEAST_S = 0.001
"""No code is interrupted earlier: a shorter one would take every workflow for one that hangs."""
CAPACITY_LEAST = 8
"""So many bodies may wait for a step thread, twice as many as there are threads at least: then one that has run out of
work need not wait for the store, and another worker finds something as well."""

log = logging.getLogger("dalsegno.engine")

is_async = lru_cache(inspect.iscoroutinefunction)
"""Asked for every body; looking takes twenty times as long as remembering."""


class Worker(Works):
    """Moves the runs of one store. `Worker("lmdb:./orders", workflows=collect(app)).run()` works until it is stopped.

    `store` is a URL or an opened `Backend`. `workflows` and `steps` take definitions, or what `collect(module)` finds.
    `checkpoint` says how long results of idempotent steps may wait to be durable. `durable` and `step_threads` size the
    two crews; with `executor`, plain step bodies run there instead: a `concurrent.futures.Executor`, or a function that
    makes one, which the worker then replaces when it breaks. After `put_away_after` seconds of waiting, or when more
    than `live_max` runs wait, a run leaves memory. `grace`: how long stopping waits for running bodies. `observers`
    hear of what happens; see `dalsegno.Observer`.

    Several workers, in processes of their own, may share a store: runs that a `Client` created go to whoever has room,
    and those of a worker that has died, or that has not renewed its `lease` (seconds) in time, to the others. With
    `alone`, this one has the store to itself. Workflow code that runs for `watchdog` seconds without a yield is
    interrupted and its run blocked (None: never); code that is being debugged is not. `retention` says how long closed
    runs are kept; without it nothing is ever deleted.

    Raises `StoreUnusable`, `DefinitionError`, `BadOption`; starting raises `StoreInUse` when another engine has the
    store to itself, or with `alone` when there is any other, and for stores that only one engine can work on.

    >>> from dalsegno import Client, Flow, step, workflow
    >>> from dalsegno.backends.memory import MemoryBackend
    >>> @step
    ... def greet(name: str) -> str:
    ...     return f"hello {name}"
    >>> @workflow
    ... def hello(name: str) -> Flow[str]:
    ...     return (yield from greet(name))
    >>> with MemoryBackend() as store, Client(store) as client, Worker(store, workflows=[hello], step_threads=2):
    ...     client.start(hello, "world").result(timeout=10)
    'hello world'
    """

    def __init__(
        self,
        store: str | Backend,
        *,
        durable: int = DURABLE_THREADS,
        step_threads: int = STEP_THREADS,
        executor: Executor | Callable[[], Executor] | None = None,
        grace: float | timedelta = GRACE_S,
        watchdog: float | timedelta | None = WATCHDOG_S,
        retention: Retention | None = None,
        **options: Unpack[CommonOptions],
    ) -> None:
        only("Worker", options, sorted(WorkerOptions.__optional_keys__))
        retention_or_none(retention)
        whole("durable", durable, least=0)
        whole("step_threads", step_threads, least=0)
        makes_elsewhere = None if executor is None else _bodies_on(executor)  # looked at before a store is opened
        limit_s = None if watchdog is None else duration("watchdog", watchdog, least=WATCHDOG_LEAST_S)
        self._grace, self._capacity = duration("grace", grace), max(CAPACITY_LEAST, 2 * step_threads)
        if not durable + step_threads:
            raise BadOption(f"durable={durable}, step_threads={step_threads}: one of the two crews needs a thread")
        self._hands = step_threads
        self.runs_steps = step_threads > 0
        super().__init__(store, **options)
        if not ((durable and step_threads) or self.around.backend.shared):
            if self.owns_backend:
                self.around.backend.close()
            one = "durable=0" if not durable else "step_threads=0"
            raise BadOption(f"{one} leaves work to other workers, and no other process can open this store")
        self.clockwork.moves_runs = durable > 0
        if retention is not None:
            self._sweep_by(retention)
        self._durable = self.durable = Crew("durable", durable, self.loop.advance, self.committer.idle, is_loaded)
        self._steps = self.steps = Crew("step", step_threads, self.loop.work, self.committer.idle, attrgetter("brief"))
        self.around.backend.about_to_wait = self._leave_to_others
        if limit_s is not None:
            observed = self.around.observed
            told = () if observed is None else (observed.struck,)
            dog = Watchdog(self.around.clock, limit_s, self._give_up, *told)
            self.loop.watchdog = self.clockwork.watchdog = dog
        self._async: AsyncBodies | None = None
        self._starting_async = threading.Lock()
        self._executor = makes_elsewhere and makes_elsewhere(self.around, self.loop)
        self._alarm = threading.Event()
        self._stop_listening: Callable[[], object] | None = None
        self._stopping = False
        self._ticking = threading.Thread(target=self._tick, name="dalsegno-clockwork", daemon=True)

    # --- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Claim what is unfinished and begin to work. Raises `StoreInUse`."""
        self.open()
        self._ticking.start()
        self._stop_listening = self.around.backend.listen(self.wake)

    def run(self) -> None:
        """Start, and work until SIGTERM or SIGINT (Ctrl-C) comes; then stop in good order."""
        asked = threading.Event()

        def ask(number: int, frame: FrameType | None) -> None:
            asked.set()

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with self:
                while not asked.wait(1.0):
                    pass
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, grace: float | timedelta | None = None) -> None:
        """Stop in good order: no new bodies, running ones get `grace`, everything is recorded, the runs are given
        back and the store is released. Runs that are not finished go on when the store is opened again. Stopping twice
        is fine."""
        if self._stopping:
            return
        allowed = self._grace if grace is None else duration("grace", grace)
        if self.clockwork.sweeper is not None:
            self.clockwork.sweeper.stop()
        self.loop.draining = self.claims.draining = True
        self._hand_over()
        self._steps.stop()
        finished = self._steps.join_all(allowed)
        if self._async is not None:
            finished = self._async.stop(allowed) and finished
        if self._executor is not None:
            finished = self._executor.stop(allowed) and finished
        self._stopping = True
        self._alarm.set()
        if self._stop_listening is not None:
            self._stop_listening()
        if self._ticking.ident is not None:
            self._ticking.join(5)
        self._rest()
        if not finished:
            log.warning("some step bodies still run after %g s; their outcomes will not be recorded", allowed)
        if self.around.observed is not None:
            self.around.observed.tell("closed")
        if self.owns_backend:
            self.around.backend.close()

    def _sweep_by(self, retention: Retention) -> None:
        """Have closed runs deleted in time, besides all else."""
        from dalsegno.core.engine.sweeping import BackgroundSweeper

        try:
            self.clockwork.sweeper = BackgroundSweeper(self.around.backend, self.around.clock, retention)
        except BaseException:  # an archive that cannot be used here
            if self.owns_backend:
                self.around.backend.close()
            raise

    def _give_up(self, run: LiveRun, thread: int, reason: str) -> None:
        """Count out a thread that will not come back from a workflow's code, and set its run aside."""
        for one in threading.enumerate():
            if one.ident == thread:
                self._durable.replace(one)
                self._steps.replace(one)
        verdict = self.around.backend.commit([self.loop.set_aside(run, reason)])
        log.warning("run %s is set aside: %s", run.number, verdict[0])
        self._closed(run.number)

    def _hand_over(self) -> None:
        """Give back the runs that only wait, so that others see to them while bodies have their grace."""
        idle = list(self.loop.idle.values())
        self.upkeep.put_away(idle, STUBBORN)
        away = [run.number for run in idle if run.number not in self.loop.live]
        try:
            self.around.backend.release(away, self.around.owner)
            self.loop.tasks.stop()
        except StoreError as error:
            log.warning("closing: waiting runs and tasks are given back later: %s", error)

    def _leave_to_others(self) -> None:
        """The thread that leads a flush is about to wait for it: what it has left lying is for others. They are woken
        not before, because they would take the interpreter lock from it and have the flush begin later."""
        self._steps.leave()
        self._durable.leave()

    def _rest(self) -> None:
        """Let the durable crew finish what has arrived, record what is left, give the runs back."""
        deadline = time.monotonic() + 5
        while self._durable.busy and time.monotonic() < deadline:
            time.sleep(0.001)
        self._durable.stop()
        self._durable.join_all(5)
        try:
            for _ in range(2):  # a checkpoint that is on its way, and what gathered behind it
                self.upkeep.flush_old(everything=True)
                self.committer.retry()
            held = [number for number, run in list(self.loop.live.items()) if run.record is not None]
            self.around.backend.release(held, self.around.owner)
            self.leases.end()
        except StoreError as error:
            log.warning("closing: the store refused the last writes: %s", error)
        self.committer.stalled = StoreError("the engine is closed")  # what a dropped body still says goes nowhere
        for run in list(self.loop.live.values()):
            run.drop_code()

    # --- the clockwork's thread ------------------------------------------------------------------------------------

    def room(self) -> int:
        if not self.clockwork.moves_runs:
            return 0
        return max(0, self._capacity - len(self._durable) - len(self._steps))

    def task_room(self) -> int:
        return self._hands - len(self.loop.tasks.held)

    @property
    def has_much_room(self) -> bool:
        return 2 * self.room() >= self._capacity

    def wake(self) -> None:
        """Have the clockwork look at once."""
        self._alarm.set()

    def hurry(self, deadline_us: int) -> None:
        """Have the clockwork sleep shorter, if it would sleep beyond this deadline."""
        if deadline_us < self.around.clock.now_us() + round(TICK_S * 1e6):
            self._alarm.set()

    def _tick(self) -> None:
        while not self._stopping:
            try:
                self.clockwork.tick()
                self._steps.nudge()
                self._durable.nudge()
            except StoreError as error:
                log.warning("the store did not answer: %s", error)
            except Exception:
                log.exception("the clockwork met a bug in dalsegno; it goes on")
            self._alarm.wait(self.clockwork.pause_s())
            self._alarm.clear()

    def elsewhere(self) -> dict[str, int]:
        others = {"async": self._async, "executor": self._executor}
        return {name: len(bodies) for name, bodies in others.items() if bodies is not None}

    def goes_elsewhere(self, job: Job) -> bool:
        """Start an `async def` body on the event loop, or any body on the executor that was given."""
        if is_async(job.fn):
            self._event_loop().put(job)
        elif self._executor is not None and job.transaction is None:  # which has a connection of this process
            self._executor.put(job)
        else:
            return False
        return True

    def _event_loop(self) -> AsyncBodies:
        """The event loop, started with the first `async def` step."""
        with self._starting_async:
            if self._async is None:
                from dalsegno.core.engine.async_bodies import AsyncBodies as Started

                self._async = Started(self.around, self.loop)
            return self._async


def retention_or_none(given: Retention | None) -> Retention | None:
    """What says how long runs are kept, if anything does. Raises `BadOption`."""
    takes = "a Retention, like retention=Retention(completed=timedelta(days=7))"
    return None if given is None else instance("retention", given, Retention, takes)


def _bodies_on(executor: Executor | Callable[[], Executor]) -> Callable[[Surroundings, Loop], ExecutorBodies]:
    """What has bodies run on an executor that was given. Raises `BadOption` for what is none."""
    from dalsegno.core.engine.executors import ExecutorBodies as On
    from dalsegno.core.engine.executors import told_apart

    told_apart(executor)
    return partial(On, executor)
