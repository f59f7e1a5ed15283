"""A history as a timeline: for each event what happened, when, how long it took, and to which command it belongs.

Pure: events in, rows out. A row spans the time it stands for (a step's attempt from its start to its record, a timer
from being set to firing, a child from its start to its outcome), so that a bar can be drawn to scale. What lies between
two events of one command is found by the command's id; a history of any length is one pass forth and one back.

    >>> events = [RunStarted(0, "nap", "nap-1", 1, b"", b""), TimerSet(5, "1", "sleep", "", b"", 3, 9)]
    >>> [(row.what, row.began_us, row.ended_us) for row in timeline(events).rows]
    [('run started', 0, 0), ('timer set', 5, None)]

`as_far_as_readable` decodes stored records up to the first that cannot be read: histories of a later release, or
damaged ones, are shown as far as they go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, Final

import attrs

from dalsegno.core import events as ev
from dalsegno.core.errors import DecodeError
from dalsegno.core.events import Event
from dalsegno.core.forms import PAYLOADS as PAYLOADS
from dalsegno.core.history import decode_event


class Mark(Enum):
    """How an event looks to somebody who scans a column for trouble."""

    GOOD = "good"
    BAD = "bad"
    WAIT = "wait"
    PLAIN = "plain"


_WAITS = (ev.TimerSet, ev.ChildStarted, ev.StepStarted)
_BAD = (
    ev.RunFailed,
    ev.RunCancelled,
    ev.RunTerminated,
    ev.RunTimedOut,
    ev.StepAttemptFailed,
    ev.StepFailed,
    ev.SignalNotSent,
    ev.CallbackFailed,
    ev.ChildNotStarted,
    ev.ChildFailed,
    ev.CancelRequested,
)
_GOOD = (ev.RunCompleted, ev.StepCompleted, ev.ChildCompleted, ev.CallbackCompleted, ev.TimerFired)
_ENDS_WAIT = (
    ev.TimerFired,
    ev.TimerCancelled,
    ev.ChildCompleted,
    ev.ChildFailed,
    ev.StepCompleted,
    ev.StepFailed,
    ev.StepAttemptFailed,
)


@attrs.frozen(kw_only=True)
class Row:
    """One event of a history. `ended_us` None: what began here has not ended. `facts` are what only this kind of event
    has, by the names of its fields. `payload` is None where the event carries none, and may be an error or a call."""

    index: int
    event: str
    what: str
    at_us: int
    since_us: int
    began_us: int
    ended_us: int | None
    mark: Mark
    id: str = ""
    name: str = ""
    line: int | None = None
    attempt: int | None = None
    took_us: int | None = None
    payload: bytes | None = None
    is_error: bool = False
    is_call: bool = False
    facts: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Timeline:
    """All rows of a history, and the time they span. `stopped_us` is when the last known thing happened or is due."""

    rows: tuple[Row, ...]
    started_us: int
    stopped_us: int

    @property
    def length_us(self) -> int:
        """How long the history spans."""
        return self.stopped_us - self.started_us

    def around(self, index: int, rows: int = 5) -> Timeline:
        """The rows near an event, on the same scale."""
        return attrs.evolve(self, rows=tuple(row for row in self.rows if abs(row.index - index) <= rows))


@attrs.frozen
class Unreadable:
    """The first record that could not be read, and why."""

    index: int
    why: str


def as_far_as_readable(records: Iterable[bytes]) -> tuple[list[Event], Unreadable | None]:
    """The events up to the first record that cannot be decoded."""
    events: list[Event] = []
    for data in records:
        try:
            events.append(decode_event(data))
        except DecodeError as error:
            return events, Unreadable(len(events), str(error))
    return events, None


def timeline(events: Sequence[Event], now_us: int | None = None) -> Timeline:
    """The timeline of a history. `now_us` is where things still open reach to; without it, the last event."""
    if not events:
        return Timeline(rows=(), started_us=0, stopped_us=0)
    started = events[0].at_us
    ends = _ends_of_waits(events)
    rows = tuple(_row(index, event, started, ends.get(index)) for index, event in enumerate(events))
    open_until = [now_us] if now_us is not None and not events[-1].closes else []
    return Timeline(rows=rows, started_us=started, stopped_us=max([event.at_us for event in events] + open_until))


def _ends_of_waits(events: Sequence[Event]) -> dict[int, int]:
    """For each event that begins a wait, by index, when the wait ended."""
    ends: dict[int, int] = {}
    next_end: dict[str, int] = {}
    for index in range(len(events) - 1, -1, -1):
        event = events[index]
        if event.closes:
            next_end = {"": event.at_us}
        elif isinstance(event, _WAITS):
            end = next_end.get(event.id, next_end.get(""))
            if end is not None:
                ends[index] = end
        elif isinstance(event, _ENDS_WAIT):
            next_end[event.id] = event.at_us
    return ends


def _row(index: int, event: Event, started: int, ended: int | None) -> Row:
    values = ev.fields(event)
    carried = next((name for name in PAYLOADS if values.get(name)), None)
    took = values.get("took_us")
    waits = isinstance(event, _WAITS)
    bad = isinstance(event, _BAD) or carried == "error"
    mark = Mark.BAD if bad else Mark.GOOD if isinstance(event, _GOOD) else Mark.WAIT if waits else Mark.PLAIN
    return Row(
        index=index,
        event=type(event).__name__,
        what=words(type(event).__name__),
        at_us=event.at_us,
        since_us=event.at_us - started,
        began_us=event.at_us - (took or 0),
        ended_us=ended if waits else event.at_us,
        mark=mark,
        id=values.get("id", ""),
        name=_name(event, values),
        line=values.get("line"),
        attempt=values.get("attempt"),
        took_us=ended - event.at_us if waits and ended is not None else took,
        payload=values[carried] if carried else None,
        is_error=carried == "error",
        is_call=carried == "arguments",
        facts={
            name: value for name, value in values.items() if name not in _COMMON and value not in (None, (), {}, "")
        },
    )


_COMMON: Final = frozenset({"at_us", "id", "name", "digest", "line", "attempt", "took_us", "seed", *PAYLOADS})


def _name(event: Event, values: dict[str, Any]) -> str:
    if isinstance(event, ev.TimerSet):
        return f"{event.kind} {event.name}".strip()
    return str(values.get("name") or values.get("workflow") or values.get("change") or "")


def words(name: str) -> str:
    """The name of an event class as words: `StepCompleted` is `step completed`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def bar(began_us: int, ended_us: int | None, line: Timeline, width: int) -> tuple[int, int, bool]:
    """Where the bar of a row lies in `width` cells: (first cell, cells, whether it is still open).

    >>> bar(50, 75, Timeline(rows=(), started_us=0, stopped_us=100), 20)
    (10, 5, False)
    """
    scale = width / max(line.length_us, 1)
    end = line.stopped_us if ended_us is None else ended_us
    first = min(max(int((began_us - line.started_us) * scale), 0), width - 1)
    last = min(max(int((end - line.started_us) * scale), first), width)
    return first, max(last - first, 1), ended_us is None
