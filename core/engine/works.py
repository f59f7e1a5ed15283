"""The works: a loop and everything it needs, put together, without threads. `Worker` adds threads; a simulator drives
the same object from one thread, in an order of its own choosing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from datetime import timedelta
from typing import TypedDict

from dalsegno.core.definitions import Definition, StepDefinition, WorkflowDefinition, by_name, listed
from dalsegno.core.engine.bodies import Job
from dalsegno.core.engine.clockwork import Clockwork
from dalsegno.core.engine.committer import Committer
from dalsegno.core.engine.crew import Hands
from dalsegno.core.engine.edge import Clock, Entropy, clock_or_own, entropy_or_own
from dalsegno.core.engine.leases import LENGTH_S, Leases
from dalsegno.core.engine.live import LiveRun
from dalsegno.core.engine.loop import Loop
from dalsegno.core.engine.observing import Observer, Observers
from dalsegno.core.engine.sampling import vitals_of
from dalsegno.core.engine.surroundings import Surroundings
from dalsegno.core.engine.tasks import limits_given, names_given
from dalsegno.core.engine.upkeep import Upkeep
from dalsegno.core.errors import BadOption
from dalsegno.core.options import duration, flag, given_or_default, whole
from dalsegno.core.policies import CheckpointPolicy, Retention
from dalsegno.core.queues import DEFAULT, Queue
from dalsegno.core.store import Backend, opened
from dalsegno.core.values.codec import Codec

PUT_AWAY_AFTER_S = 30.0
LIVE_MAX = 10_000
"""Waiting runs stay in memory so long, and so many of them, a few KiB each."""

LEAST_US = 500_000
"""The shortest lease: a third of it is as long as a slow flush takes."""

TASKS = 16
"""How many tasks these works have at a time."""

ROOM = 64
"""How many runs that nobody has begun these works take at a time."""


class CommonOptions(TypedDict, total=False):
    """What every way of running an engine takes besides the store; `Worker` explains each."""

    workflows: Iterable[Definition]
    steps: Iterable[Definition]
    codec: Codec | None
    checkpoint: CheckpointPolicy | None
    put_away_after: float | timedelta
    live_max: int
    lease: float | timedelta
    alone: bool
    queues: Iterable[Queue]
    serve: Iterable[str] | None
    clock: Clock | None
    entropy: Entropy | None
    observers: Iterable[Observer]


class WorkerOptions(CommonOptions, total=False):
    """And what those with threads take."""

    durable: int
    step_threads: int
    executor: Executor | Callable[[], Executor] | None
    grace: float | timedelta
    watchdog: float | timedelta | None
    retention: Retention | None


class Works:
    """One engine's parts. A subclass says whose hands advance runs (`durable`) and run bodies (`steps`)."""

    durable: Hands[LiveRun]
    steps: Hands[Job]
    runs_steps = True
    """Whether the bodies of its runs' steps run here; otherwise those that name no queue go to the default one."""

    def __init__(
        self,
        store: str | Backend,
        *,
        workflows: Iterable[Definition] = (),
        steps: Iterable[Definition] = (),
        codec: Codec | None = None,
        checkpoint: CheckpointPolicy | None = None,
        put_away_after: float | timedelta = PUT_AWAY_AFTER_S,
        live_max: int = LIVE_MAX,
        lease: float | timedelta = LENGTH_S,
        alone: bool = False,
        queues: Iterable[Queue] = (),
        serve: Iterable[str] | None = None,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
        observers: Iterable[Observer] = (),
    ) -> None:
        away_s, length_us = duration("put_away_after", put_away_after), _lease_us(lease)
        live_max, alone = whole("live_max", live_max), flag("alone", alone)
        limits, serves = limits_given(queues), names_given(serve)
        self.owns_backend = isinstance(store, str)
        definitions = [*listed(workflows, "workflows"), *listed(steps, "steps")]
        self._transactional = [
            d.name for d in definitions if isinstance(d, StepDefinition) and d.step_options.transactional
        ]
        self.around = _surroundings(store, definitions, self.runs_steps, codec, checkpoint, clock, entropy, observers)
        self.committer = Committer(self.around.backend, self.around.clock, lambda: self.loop.start_ready())
        self.committer.observed = self.around.observed
        self._watchers: dict[int, list[Callable[[], object]]] = {}
        self._watching = threading.Lock()
        self.loop = Loop(
            self.around,
            self.committer,
            lambda: self.durable,
            lambda: self.steps,
            self.goes_elsewhere,
            self._closed,
            self.hurry,
            self.wake,
        )
        tasks = self.loop.tasks
        tasks.declared, tasks.serves, tasks.room, tasks.run_room = limits, serves, self.task_room, self.room
        self.upkeep = Upkeep(self.around, self.loop)
        self.leases = Leases(self.around, length_us, alone)
        self.loop.leased = self.leases.valid
        self.clockwork = Clockwork(
            self.around,
            self.loop,
            self.upkeep,
            self.committer,
            leases=self.leases,
            room=self.room,
            put_away_after=away_s,
            live_max=live_max,
        )
        self.claims = self.clockwork.claims
        self.loop.loader.may_take = self.claims.may_take

    def open(self) -> None:
        """Become an engine of the store and take on what is unfinished. Raises `StoreInUse`."""
        try:
            self._refuse_without_transactions()
            self.leases.begin()
            self._show()
            self.clockwork.recover()
        except BaseException:
            if self.owns_backend:
                self.around.backend.close()
            raise

    def _refuse_without_transactions(self) -> None:
        backend = self.around.backend
        for name in [] if backend.transactional else self._transactional:
            raise BadOption(
                f"step {name!r} has transactional=True, and a {type(backend).__name__} has no transactions for steps: "
                "that needs 'postgresql://…'"
            )

    def _show(self) -> None:
        """Let observers see these works."""
        observed = self.around.observed
        if observed is not None:
            vitals = vitals_of(
                self.loop, self.committer, observed, self.elsewhere, durable=self.durable, step=self.steps
            )
            observed.opened(vitals)

    def elsewhere(self) -> dict[str, int]:
        """How many bodies are at work outside of the step crew, by where they are."""
        return {}

    def goes_elsewhere(self, job: Job) -> bool:
        """Start a body that is not for the step crew; false if it is."""
        return False

    def room(self) -> int:
        """For how many more runs, not begun by anybody yet, there is room."""
        return ROOM

    def task_room(self) -> int:
        """For how many more tasks there are hands."""
        return max(0, TASKS - len(self.loop.tasks.held))

    @property
    def has_much_room(self) -> bool:
        """Whether so many of its runs have ended that others are to be claimed at once."""
        return self.room() > 0

    def wake(self) -> None:
        """Have the clockwork look at once."""

    def hurry(self, deadline_us: int) -> None:
        """A timer was set that is due before all others."""

    def stop(self) -> None:
        """Stop in good order."""

    # --- those who wait for ends -----------------------------------------------------------------------------------

    def watch(self, number: int, watcher: Callable[[], object]) -> None:
        """Have `watcher()` called once when the run ends or is blocked."""
        with self._watching:
            self._watchers.setdefault(number, []).append(watcher)

    def unwatch(self, number: int, watcher: Callable[[], object]) -> None:
        """Take that back."""
        with self._watching:
            watchers = self._watchers.get(number, [])
            if watcher in watchers:
                watchers.remove(watcher)
            if not watchers:
                self._watchers.pop(number, None)

    def _closed(self, number: int) -> None:
        if self.claims.waiting and self.has_much_room:
            self.wake()
        if self._watchers:
            with self._watching:
                watchers = self._watchers.pop(number, [])
            for watcher in watchers:
                watcher()


def _lease_us(lease: float | timedelta) -> int:
    """How long a lease is, in microseconds. Raises `BadOption`."""
    length_us = round(duration("lease", lease) * 1e6)
    if length_us < LEAST_US:
        raise BadOption(f"lease={lease!r}: a lease is half a second at least, and is renewed three times in it")
    return length_us


def _surroundings(
    store: str | Backend,
    definitions: Iterable[Definition],
    runs_steps: bool,
    codec: Codec | None,
    checkpoint: CheckpointPolicy | None,
    clock: Clock | None,
    entropy: Entropy | None,
    observers: Iterable[Observer],
) -> Surroundings:
    """What the works were given, each looked at before the store is opened. Raises `BadOption`, `DefinitionError`."""
    named = by_name(definitions)
    clock, entropy = clock_or_own(clock), entropy_or_own(entropy)
    codec = given_or_default("codec", codec, Codec, "a Codec, like Codec(max_bytes=10_000_000)")
    checkpoint = given_or_default(
        "checkpoint", checkpoint, CheckpointPolicy, "a CheckpointPolicy, like CheckpointPolicy(every_steps=50)"
    )
    observed = Observers.of(observers, clock)
    return Surroundings(
        backend=opened(store),
        codec=codec,
        clock=clock,
        entropy=entropy,
        owner=f"{os.uname().nodename}:{os.getpid()}:{entropy(4).hex()}",
        workflows={n: d for n, d in named.items() if isinstance(d, WorkflowDefinition)},
        checkpoint=checkpoint,
        steps={n: d.fn for n, d in named.items() if isinstance(d, StepDefinition)},
        steps_queue="" if runs_steps else DEFAULT,
        observed=observed,
    )
