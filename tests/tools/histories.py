"""Histories written by hand, for tools that show them: a store that holds them, without an engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dalsegno.backends.memory import MemoryBackend
from dalsegno.core import events as ev
from dalsegno.core.events import Event
from dalsegno.core.history import encode_event
from dalsegno.core.store import Backend, NewRun, RunRecord, Status
from dalsegno.core.values.codec import Codec

CODEC = Codec()
BEGAN = 1_700_000_000_000_000
"""When the first run began: 2023-11-14 22:13:20 UTC."""

MS = 1_000
S = 1_000_000
ENDS = {
    ev.RunCompleted: Status.COMPLETED,
    ev.RunFailed: Status.FAILED,
    ev.RunCancelled: Status.CANCELLED,
    ev.RunTerminated: Status.TERMINATED,
}


def started(at: int, id: str = "order-1", workflow: str = "fulfil", *args: object, origin: str = "") -> ev.RunStarted:
    """A run begins, so many microseconds after the first."""
    return ev.RunStarted(BEGAN + at, workflow, id, 1, CODEC.encode_call(args, {}), b"seed", origin=origin)


def step(id: str, name: str, began: int, ended: int, result: object = None, attempt: int = 1) -> ev.StepCompleted:
    """A step that came back."""
    return ev.StepCompleted(BEGAN + ended, id, name, b"digest", 7, attempt, ended - began, CODEC.encode(result))


def attempt_failed(id: str, name: str, began: int, ended: int, retry_at: int, attempt: int = 1) -> ev.StepAttemptFailed:
    """An attempt that failed with a `TimeoutError`, and is followed by another."""
    error = CODEC.encode_error(TimeoutError(f"attempt {attempt}: no answer"))
    return ev.StepAttemptFailed(BEGAN + ended, id, name, b"digest", 7, attempt, ended - began, error, BEGAN + retry_at)


def step_failed(id: str, name: str, began: int, ended: int, error: BaseException) -> ev.StepFailed:
    """A step that failed for good."""
    return ev.StepFailed(BEGAN + ended, id, name, b"digest", 7, 1, ended - began, CODEC.encode_error(error))


def timer(id: str, kind: str, at: int, due: int, name: str = "") -> ev.TimerSet:
    """A deadline."""
    return ev.TimerSet(BEGAN + at, id, kind, name, b"digest", 8, BEGAN + due)


def fired(id: str, at: int) -> ev.TimerFired:
    """The deadline passed."""
    return ev.TimerFired(BEGAN + at, id)


def child_started(id: str, name: str, at: int, workflow_id: str) -> ev.ChildStarted:
    """A child begins."""
    return ev.ChildStarted(BEGAN + at, id, name, b"digest", 9, workflow_id)


def child_completed(id: str, at: int, result: object = None) -> ev.ChildCompleted:
    """A child came back."""
    return ev.ChildCompleted(BEGAN + at, 1, id, CODEC.encode(result))


def completed(at: int, result: object = None) -> ev.RunCompleted:
    """The end of a run that came back."""
    return ev.RunCompleted(BEGAN + at, CODEC.encode(result))


def failed(at: int, error: BaseException) -> ev.RunFailed:
    """The end of a run that raised."""
    return ev.RunFailed(BEGAN + at, CODEC.encode_error(error))


def new_run(
    events: Sequence[Event],
    parent: tuple[str, int, str] | tuple[()] = (),
    records: Iterable[bytes] = (),
    **more: object,
) -> NewRun:
    """A run with this history; `records` are stored after it as they are."""
    first = events[0]
    assert isinstance(first, ev.RunStarted)
    status = ENDS.get(type(events[-1]), Status.RUNNING)
    given = {"status": status, "closed_at_us": None if status.open else events[-1].at_us} | more
    return NewRun(
        workflow_id=first.workflow_id,
        workflow=first.workflow,
        events=(*map(encode_event, events), *records),
        created_at_us=first.at_us,
        digest=b"digest",
        parent=parent,
        **given,  # type: ignore[arg-type]
    )


def store_of(*runs: NewRun) -> Backend:
    """A store that holds these runs and is worked on by nobody."""
    store = MemoryBackend.open("")
    for run in runs:
        store.create([run])
    return store


def found(store: Backend, id: str) -> RunRecord:
    """The record of a run that is there."""
    record = store.find(id)
    assert record is not None
    return record
