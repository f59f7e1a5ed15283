"""Observing: what an engine tells those who watch it.

An `Observer` hears of what happens as it happens: a run came into memory, a body began, a flush is through. What it
hears of outcomes is told when they are durable, from the very events that were recorded, so each is told once: a replay
records nothing and tells nothing, and an outcome that a crash took away is told when the body has run again. The other
side of it: whoever dies between the commit and the telling has told nothing, and nobody tells it later. Observers count
and trace; they keep no books.

An observer that raises is logged, once for each of its methods, and harms no run. Without observers the engine asks one
attribute in a few places. With them, what they do is done on the threads that move the runs: they should be quick.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import attrs

from dalsegno.core.engine.bodies import Job
from dalsegno.core.engine.committer import Write
from dalsegno.core.engine.edge import Clock
from dalsegno.core.engine.live import Activation, LiveRun
from dalsegno.core.engine.vitals import Vitals
from dalsegno.core.errors import BadOption, DalsegnoError
from dalsegno.core.events import Event, StepAttemptFailed, StepCompleted, StepFailed
from dalsegno.core.history import decode_event
from dalsegno.core.options import several
from dalsegno.core.queues import Task
from dalsegno.core.store import Backend, Message, NewRun, RunRecord, Status

log = logging.getLogger("dalsegno.engine")


@attrs.frozen(slots=True, kw_only=True)
class Attempt:
    """One attempt of one step, begun at `at_us`. `id` is the command's id in the history; attempts count from 1.

    With `queue`, it waited there for a worker since `queued_us`, by the clock of whoever put it there, and its run may
    be another worker's: that one hears of the outcome.
    """

    run: RunRecord = attrs.field(eq=False)
    run_id: str
    id: str
    step: str
    attempt: int
    at_us: int = attrs.field(eq=False)
    queue: str = ""
    queued_us: int | None = attrs.field(default=None, eq=False)


@attrs.frozen(slots=True, kw_only=True)
class Outcome:
    """How an attempt ended: "completed", "retried" (another attempt follows at `retry_at_us`), or "failed"."""

    run: RunRecord
    id: str
    step: str
    attempt: int
    outcome: str
    at_us: int
    took_us: int
    error: bytes = b""
    retry_at_us: int | None = None


class Observer:
    """Subclass it, override what you want to hear of, and give it to the engine: `Engine(…, observers=[mine])`.

    Called from any thread of the engine, several at a time. Durations are seconds; `run` is the run's record as it was
    when this engine took it on, so that its status may be older than what is told.

    >>> from dalsegno import Engine, Observer, workflow
    >>> class Ends(Observer):
    ...     def run_closed(self, run, status, seconds):
    ...         print(run.workflow_id, status.value)
    >>> @workflow
    ... def nothing():
    ...     return
    ...     yield
    >>> with Engine("memory:", workflows=[nothing], observers=[Ends()]) as engine:
    ...     engine.start(nothing, id="first").result(timeout=10)
    first completed
    """

    def opened(self, vitals: Vitals) -> None:
        """An engine begins to work; `vitals` shows its store, queues and threads from now on. A simulation that
        restarts opens anew: nothing of before is there any more."""

    def closed(self) -> None:
        """The engine has stopped in good order."""

    def run_started(self, run: RunRecord) -> None:
        """A run has come into memory of which nothing but its start is recorded."""

    def run_recovered(self, run: RunRecord, events: int, seconds: float) -> None:
        """A run was read back and replayed: after a restart, a take-over, or because it had waited for long."""

    def recorded(self, run: RunRecord, events: Sequence[Event], size: int) -> None:
        """These events are durable; `size` is their bytes as they are stored."""

    def run_closed(self, run: RunRecord, status: Status, seconds: float) -> None:
        """The run has ended, `seconds` after it was created."""

    def run_blocked(self, run: RunRecord, reason: str) -> None:
        """The run cannot go on with this code."""

    def run_taken_over(self, run: RunRecord, owner: str) -> None:
        """This engine has claimed a run that `owner` had, an engine that died, is silent, or did not give it back."""

    def watchdog_struck(self, run: RunRecord, reason: str) -> None:
        """The run's code has run for too long without a yield, and is interrupted. Told once, however often that has to
        be tried; that the run is blocked for it is told when it is durable."""

    def lease_lost(self) -> None:
        """This engine did not renew its lease in time, and begins anew: others may have its runs."""

    def step_started(self, attempt: Attempt, waited: float) -> None:
        """A body begins, after it has waited for a thread for so long. Called where it runs, if that is here."""

    def around_body(self, attempt: Attempt) -> AbstractContextManager[object] | None:
        """What to hold around the body, in its thread or asyncio task. Not called for bodies that run elsewhere."""

    def step_ended(self, outcome: Outcome) -> None:
        """The outcome of an attempt is durable."""

    def written(self, what: str, seconds: float) -> None:
        """A "transition", "creation" or "message" is durable, so long after it was queued."""

    def flushed(self, writes: int, size: int, seconds: float) -> None:
        """The store has taken so many writes, with so many bytes of events and payloads, in one commit."""

    def store_failed(self, error: Exception) -> None:
        """The store refused a commit; what was in it waits, and is tried again."""

    def timer_fired(self, late: float) -> None:
        """A timer came due so long before it was looked at."""


HOOKS = tuple(name for name in vars(Observer) if not name.startswith("_"))


class Observers:
    """All observers of one engine, as the engine sees them: whatever they do, it comes back."""

    def __init__(self, observers: Sequence[Observer], clock: Clock) -> None:
        self._clock = clock
        self._told = {
            hook: tuple(
                (f"{type(each).__qualname__}.{hook}", getattr(each, hook))
                for each in observers
                if getattr(type(each), hook) is not getattr(Observer, hook)
            )
            for hook in HOOKS
        }
        self._complained: set[str] = set()
        self._store: Backend | None = None
        self._wants_outcomes = bool(self._told["step_ended"])
        self._wants_events = self._wants_outcomes or bool(self._told["recorded"])
        self._jobs: dict[Job, int] = {}  # since when each waits; in the order they came
        self._runs: dict[LiveRun, int] = {}
        self._begun: set[int] = set()  # runs that were told of as started, and have not ended

    @classmethod
    def of(cls, observers: Iterable[Observer], clock: Clock) -> Observers | None:
        """None for none: that is what makes not observing free."""
        given = several("observers", observers, "a list of them, like observers=[mine]")
        for each in given:
            if not isinstance(each, Observer):
                raise BadOption(f"observers=[…] takes objects whose class derives from dalsegno.Observer, not {each!r}")
        return cls(tuple(given), clock) if given else None

    def opened(self, vitals: Vitals) -> None:
        """An engine begins."""
        self._store = vitals.store
        self.tell("opened", vitals)

    def tell(self, hook: str, *facts: Any) -> None:
        """Call a method of every observer."""
        for name, method in self._told[hook]:
            try:
                method(*facts)
            except Exception:
                self._complain(name)

    def _complain(self, name: str) -> None:
        if name not in self._complained:
            self._complained.add(name)
            log.exception(
                "an observer failed at %s: it harms no run, is told of what follows, and is not complained of again",
                name,
            )

    # --- queues ----------------------------------------------------------------------------------------------------

    def run_queued(self, run: LiveRun) -> None:
        self._runs[run] = self._clock.steady_us()

    def run_taken(self, run: LiveRun) -> None:
        self._runs.pop(run, None)

    def jobs_queued(self, jobs: Iterable[Job]) -> None:
        self._jobs.update(dict.fromkeys(jobs, self._clock.steady_us()))

    def job_dropped(self, job: Job) -> None:
        self._jobs.pop(job, None)

    def runs_waiting(self) -> tuple[int, int | None]:
        """How many runs wait to be advanced, and since when the first of them does."""
        return len(self._runs), _first(self._runs)

    def jobs_waiting(self) -> tuple[int, int | None]:
        """How many bodies wait for a thread, and since when the first of them does."""
        return len(self._jobs), _first(self._jobs)

    # --- runs ------------------------------------------------------------------------------------------------------

    def loaded(self, run: LiveRun, just_created: bool, begun_us: int) -> None:
        """A run has come into memory."""
        record = run.record
        if record is None:
            return
        if run.number not in self._begun and (just_created or (run.head == 1 and record.epoch <= 1)):
            self._begun.add(run.number)
            self.tell("run_started", record)
        else:
            self.tell("run_recovered", record, run.head, (self._clock.steady_us() - begun_us) / 1e6)

    def committed(self, run: LiveRun, act: Activation) -> None:
        """A transition is durable."""
        record, more = run.record, act.more
        if record is None:
            return
        if self._wants_events and act.events:
            events = [decode_event(data) for data in act.events]
            self.tell("recorded", record, events, sum(map(len, act.events)))
            if self._wants_outcomes:
                for event in events:
                    if isinstance(event, StepCompleted | StepAttemptFailed | StepFailed):
                        self.tell("step_ended", outcome_of(record, event))
        if more is None or more.status is None:
            return
        if more.closed_at_us is not None:
            self._begun.discard(run.number)
            self.tell("run_closed", record, more.status, (more.closed_at_us - record.created_at_us) / 1e6)
        elif more.status is Status.BLOCKED:
            self.tell("run_blocked", record, more.reason or "")

    def claimed(self, before: Iterable[RunRecord], records: Iterable[RunRecord]) -> None:
        """Runs were claimed; `before` is how they stood when they were looked at."""
        owners = {record.number: record.owner for record in before}
        for record in records:
            if owners.get(record.number):
                self.tell("run_taken_over", record, owners[record.number])

    def struck(self, run: LiveRun, reason: str) -> None:
        """The watchdog has interrupted a run's code."""
        if run.record is not None:
            self.tell("watchdog_struck", run.record, reason)

    # --- bodies ----------------------------------------------------------------------------------------------------

    def begin(self, job: Job) -> Callable[[], None]:
        """A body is about to run on this thread or in this task; what comes back is to be called there after it."""
        attempt = self.started(job)
        held = list[AbstractContextManager[object]]()
        for name, method in self._told["around_body"]:
            try:
                around = method(attempt)
                if around is not None:
                    around.__enter__()
                    held.append(around)
            except Exception:
                self._complain(name)
        return lambda: self._end(held)

    def started(self, job: Job) -> Attempt:
        """A body begins, here or elsewhere."""
        now_us = self._clock.steady_us()
        task: Task | None = getattr(job.run, "task", None)
        attempt = Attempt(
            run=job.run.record if task is None else self._run_of(task),
            run_id=job.run.run_id,
            id=job.id,
            step=job.name,
            attempt=job.attempt,
            at_us=self._clock.now_us(),
            queue="" if task is None else task.queue,
            queued_us=None if task is None else task.at_us,
        )
        self.tell("step_started", attempt, (now_us - self._jobs.pop(job, now_us)) / 1e6)
        return attempt

    def _run_of(self, task: Task) -> RunRecord:
        """The run of a task, which may be another worker's, from the store; as far as the task knows it, if the store
        does not answer or has purged it meanwhile."""
        try:
            found = None if self._store is None else self._store.record(task.run)
        except DalsegnoError:
            found = None
        return found or RunRecord(
            number=task.run,
            workflow_id=task.workflow_id,
            generation=task.generation,
            workflow="",
            status=Status.RUNNING,
            active=False,
            created_at_us=task.at_us,
            digest=b"",
        )

    def _end(self, held: list[AbstractContextManager[object]]) -> None:
        for around in reversed(held):
            try:
                around.__exit__(None, None, None)
            except Exception:
                self._complain(f"{type(around).__qualname__}.__exit__")

    # --- the store -------------------------------------------------------------------------------------------------

    def flushed(self, batch: Sequence[Write], took_us: int) -> None:
        """The store has taken a batch."""
        size, now_us = 0, self._clock.steady_us()
        for write in batch:
            what: Any = write.what
            if isinstance(what, Message):
                kind, size = "message", size + len(what.payload)
            else:
                kind = "creation" if isinstance(what, NewRun) else "transition"
                size += sum(map(len, what.events))
            self.tell("written", kind, (now_us - write.queued_us) / 1e6)
        self.tell("flushed", len(batch), size, took_us / 1e6)


def _first(waiting: Mapping[Any, int]) -> int | None:
    try:
        return next(iter(waiting.values()), None)
    except RuntimeError:  # another thread changed it in this very moment
        return None


def outcome_of(run: RunRecord, event: StepCompleted | StepAttemptFailed | StepFailed) -> Outcome:
    """What a recorded event says about an attempt."""
    outcome, error, retry_at_us = "completed", b"", None
    if isinstance(event, StepAttemptFailed):
        outcome, error, retry_at_us = "retried", event.error, event.retry_at_us
    elif isinstance(event, StepFailed):
        outcome, error = "failed", event.error
    return Outcome(
        run=run,
        id=event.id,
        step=event.name,
        attempt=event.attempt,
        outcome=outcome,
        at_us=event.at_us,
        took_us=event.took_us,
        error=error,
        retry_at_us=retry_at_us,
    )
