"""Whereabouts: how code finds out in which run it is called, and whether it is called to replay what is recorded.

Workflow code runs in a `contextvars.Context` of its run's own, which is copied when its interpreter is made. The engine
puts a `Place` into it just before; the interpreter knows nothing of it. That is what lets a logger keep silent while a
history is replayed, by the engine or by anybody else: without a place there is no engine that runs the code.

**What a line of workflow code promises.** It is logged when its code goes on for the first time after something has
happened, which is before that is recorded. Afterwards it is silent: whenever the history is read again, everything up
to its end has been said. So each line is said at least once, and once only where no process dies: a crash (or a commit
that the store refused) between saying and recording has it said again by the next life, when the same thing happens
again. Three cases where a whole stretch may be said twice: code before the first recorded event, when the process died
there; the last stretch of a run that was blocked, which mended code goes through again; and that of a fork or an
import, which is another run's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, overload

from dalsegno.core.engine.bodies import current_job
from dalsegno.core.events import Event
from dalsegno.core.queues import Task
from dalsegno.core.store import RunRecord, Status


class Place:
    """The run whose code is called here."""

    __slots__ = ("record", "replaying")

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.replaying = False

    @contextmanager
    def around(self) -> Iterator[None]:
        """Contexts that are copied inside of this are of this run."""
        token = _here.set(self)
        try:
            yield
        finally:
            _here.reset(token)

    def recalled(self, events: Sequence[Event], just_created: bool) -> Sequence[Event]:
        """The history as it is to be replayed: in silence, as far as its lines have been said. `replaying` is to be put
        back to False afterwards."""
        record = self.record
        unsure = record.status is Status.BLOCKED or record.restore
        if len(events) == 1 and (just_created or record.active or unsure):
            return events  # perhaps nobody has gone through it yet
        self.replaying = True
        return Recalled(events, self) if unsure else events


class Recalled(Sequence[Event]):
    """Events that break the silence when, after the first, the last of them is asked for."""

    def __init__(self, events: Sequence[Event], place: Place) -> None:
        self._events, self._place = events, place
        self._begun = False  # before that they are looked at, and not replayed

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    @overload
    def __getitem__(self, at: int) -> Event: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Event]: ...
    def __getitem__(self, at: int | slice) -> Event | Sequence[Event]:
        if at == 0:
            self._begun = True
        if self._begun and at == len(self._events) - 1:
            self._place.replaying = False
        return self._events[at]


_here: ContextVar[Place] = ContextVar("dalsegno_place")


def identities() -> dict[str, Any]:
    """The run, and in a step's body the step and the attempt, that the calling code belongs to; empty outside of both.

    The keys are `workflow_id`, `run_id`, `workflow`, `step` and `attempt`; of a step that came out of a queue, `queue`
    and `task`, its number there, and no `workflow`, which its run's worker knows.
    """
    job = current_job()
    if job is not None:
        about = {"step": job.name, "attempt": job.attempt}
        task: Task | None = getattr(job.run, "task", None)
        if task is None:
            return {**named(job.run.record), **about}
        run = {"workflow_id": task.workflow_id, "run_id": job.run.run_id}
        return {**run, **about, "queue": task.queue, "task": task.number}
    place = _here.get(None)
    return {} if place is None else named(place.record)


def named(record: RunRecord | None) -> dict[str, Any]:
    """What log records of a run carry."""
    if record is None:
        return {}
    return {"workflow_id": record.workflow_id, "run_id": record.run_id, "workflow": record.workflow}


class WorkflowLogger(logging.LoggerAdapter[logging.Logger]):
    """What `workflow_logger` gives."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        """False also where nobody should hear: during a replay, and where no engine runs the code."""
        place = _here.get(None)
        if place.replaying if place is not None else current_job() is None:
            return False
        return super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add what names the run."""
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **identities()}
        return msg, kwargs


def workflow_logger(name: str) -> WorkflowLogger:
    """A logger for workflow code: silent while a history is replayed, so that each line is said once and not again at
    every restart. Its records go to the ordinary logger `name`, and carry `workflow_id`, `run_id` and `workflow`, in a
    step's body also `step` and `attempt`, as attributes.

    A line is said before what led to it is recorded. A process that dies in between says it again in its next life: at
    least once, therefore, and just once without a crash. Where no engine runs the code (a test that drives the plain
    generator, `replay verify`, any replay of a debugger's) the logger is silent.

    >>> import logging, sys
    >>> from dalsegno import Engine, step, workflow, workflow_logger
    >>> log = workflow_logger("shop")
    >>> log.logger.setLevel(logging.INFO)
    >>> handler = logging.StreamHandler(sys.stdout)
    >>> handler.setFormatter(logging.Formatter("%(run_id)s: %(message)s"))
    >>> log.logger.addHandler(handler)
    >>> @step
    ... def charge(amount: int) -> str:
    ...     return f"receipt over {amount}"
    >>> @workflow
    ... def fulfil(amount: int):
    ...     receipt = yield from charge(amount)
    ...     log.info("has its %s", receipt)
    >>> with Engine("memory:", workflows=[fulfil]) as engine:
    ...     engine.start(fulfil, 5, id="order-42").result(timeout=10)
    order-42#1: has its receipt over 5
    >>> log.logger.removeHandler(handler)
    """
    return WorkflowLogger(logging.getLogger(name))
