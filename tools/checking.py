"""What has to hold inside one history, whoever stored it: the invariants that `check` and `import` look at.

A store's own `check` verifies checksums and its indexes. This module reads the histories themselves. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from dalsegno.core import events as ev
from dalsegno.core.events import Event
from dalsegno.core.store import Problem, RunRecord, Status
from dalsegno.tools.forms import RunForm

CLOSED_BY: Final[dict[type[Event], Status]] = {
    ev.RunCompleted: Status.COMPLETED,
    ev.RunFailed: Status.FAILED,
    ev.RunTimedOut: Status.FAILED,
    ev.RunCancelled: Status.CANCELLED,
    ev.RunTerminated: Status.TERMINATED,
    ev.RunContinued: Status.CONTINUED,
}
"""The status that each closing event leaves a run in."""


def problems_of(record: RunRecord, events: Sequence[Event]) -> list[Problem]:
    """Everything that does not hold, as the store's own `check` words it."""
    return [Problem(f"run {record.number}", record.run_id, index, what) for index, what in examine(record, events)]


def examine(record: RunRecord | RunForm, events: Sequence[Event]) -> Iterator[tuple[int | None, str]]:
    """What does not hold, and at which event."""
    if not events:
        yield None, "it has no events; every history begins with RunStarted"
        return
    yield from _beginning(record, events[0])
    yield from _end(record, events)
    set_timers: set[str] = set()
    children: set[str] = set()
    for index, event in enumerate(events):
        if index and isinstance(event, ev.RunStarted):
            yield index, "RunStarted stands in the middle"
        elif event.closes and index < len(events) - 1:
            yield index, f"{type(event).__name__} ends the run, and {len(events) - 1 - index} events follow it"
        elif isinstance(event, ev.TimerSet):
            set_timers.add(event.id)
        elif isinstance(event, ev.TimerFired | ev.TimerCancelled) and event.id not in set_timers:
            yield index, f"{type(event).__name__} answers command {event.id}, which set no timer"
        elif isinstance(event, ev.ChildStarted):
            children.add(event.id)
        elif isinstance(event, ev.ChildCompleted | ev.ChildFailed) and event.id not in children:
            yield index, f"{type(event).__name__} answers command {event.id}, which started no child"


def _beginning(record: RunRecord | RunForm, first: Event) -> Iterator[tuple[int, str]]:
    if not isinstance(first, ev.RunStarted):
        yield 0, f"it begins with {type(first).__name__}; every history begins with RunStarted"
        return
    for what in ("workflow_id", "generation", "workflow"):
        if getattr(first, what) != getattr(record, what):
            yield 0, f"RunStarted says {what} {getattr(first, what)!r}, the record {getattr(record, what)!r}"


def _end(record: RunRecord | RunForm, events: Sequence[Event]) -> Iterator[tuple[int, str]]:
    last, index = events[-1], len(events) - 1
    if last.closes and CLOSED_BY[type(last)] is not record.status:
        yield index, f"{type(last).__name__} ends it, and the record says {record.status.value}"
    elif not last.closes and not record.status.open:
        yield index, f"the record says {record.status.value}, and no event ends it"
