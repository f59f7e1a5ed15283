"""Runs of the past, put into a store as an engine would have left them: with parents, children, chains and ages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dalsegno.core.events import (
    CancelRequested,
    ChildStarted,
    Event,
    RunCancelled,
    RunCompleted,
    RunContinued,
    RunFailed,
    RunStarted,
    RunTerminated,
)
from dalsegno.core.history import encode_event
from dalsegno.core.store import Backend, NewRun, RunRecord, Status
from dalsegno.core.values.codec import Codec

DAY_S = 86_400
DAY_US = DAY_S * 1_000_000
NOW_US = 1_780_000_000_000_000

CODEC = Codec()
NOTHING = CODEC.encode(None)
WRONG = CODEC.encode_error(ValueError("wrong"))

Parent = tuple[str, int, str] | tuple[()]


def _end(status: Status, at_us: int) -> list[Event]:
    """The events that a status closes a history with."""
    ends: dict[Status, list[Event]] = {
        Status.COMPLETED: [RunCompleted(at_us, NOTHING, {}, ())],
        Status.FAILED: [RunFailed(at_us, WRONG, {})],
        Status.CANCELLED: [CancelRequested(at_us, "enough"), RunCancelled(at_us, WRONG)],
        Status.TERMINATED: [RunTerminated(at_us, "enough")],
        Status.CONTINUED: [RunContinued(at_us, "90", NOTHING)],
    }
    return ends.get(status, [])


def bygone(
    workflow_id: str,
    status: Status = Status.COMPLETED,
    days: float = 40,
    *,
    generation: int = 1,
    parent: Parent = (),
    children: Iterable[str] = (),
    created_days: float | None = None,
    workflow: str = "fulfil",
) -> NewRun:
    """A run that closed so many days ago, having started these children; an open one was created then."""
    at_us = NOW_US - round(days * DAY_US)
    begun_us = at_us - 60_000_000 if created_days is None else NOW_US - round(created_days * DAY_US)
    seed = f"{workflow_id}#{generation} {begun_us}".encode()[-16:].rjust(16)
    origin = f"continued from {workflow_id}#{generation - 1}" if generation > 1 else ""
    events: list[Event] = [
        RunStarted(
            begun_us, workflow, workflow_id, generation, CODEC.encode_call((), {}), seed, parent=parent, origin=origin
        )
    ]
    for at, child in enumerate(children, 1):
        events.append(ChildStarted(begun_us, str(at), "fulfil", b"", 1, child, "abandon"))
    return NewRun(
        workflow_id=workflow_id,
        workflow=workflow,
        events=tuple(encode_event(event) for event in [*events, *_end(status, at_us)]),
        created_at_us=begun_us,
        digest=f"{workflow_id}#{generation}".encode(),
        parent=parent,
        status=status,
        closed_at_us=None if status.open else at_us,
        on_conflict="restart_closed",
        generation=generation,
    )


def grow(store: Backend, runs: Sequence[NewRun]) -> dict[str, RunRecord]:
    """Create them one after another; answers them by run id."""
    return {made.record.run_id: made.record for one in runs for made in store.create([one])}


def left(store: Backend) -> set[str]:
    """The run ids of all that is there."""
    found: set[str] = set()
    before: int | None = None
    while page := store.runs(before=before):
        found |= {record.run_id for record in page}
        before = page[-1].number
    return found
