"""A history as a timeline: for each event what happened, when, how long it took, and to which command it belongs.

Pure: events in, rows out. A row spans the time it stands for, so that a bar can be drawn to scale: a step's attempt
from its start to its record, with the wait for the next attempt behind it; a timer from being set to firing; a child
from its start to its outcome; a scope and a race from the first thing inside to the end; a pause until the run is
resumed. What lies between two events of one command is found by the command's id; a history of any length is one pass
forth and one back. `drawing` puts these rows on a terminal and `lanes` orders them for the page.

    >>> events = [ev.RunStarted(0, "nap", "nap-1", 1, b"", b""), ev.TimerSet(5, "1", "sleep", "", b"", 3, 9)]
    >>> [(row.what, row.began_us, row.ended_us) for row in timeline(events).rows]
    [('run started', 0, 0), ('timer set', 5, None)]

`as_far_as_readable` decodes stored records up to the first that cannot be read: histories of a later release, or
damaged ones, are shown as far as they go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, Final, Literal

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


class Kind(Enum):
    """What an event is about: the sort of thing whose time a row shows."""

    RUN = "run"
    STEP = "step"
    WAIT = "wait"
    CHILD = "child"
    SCOPE = "scope"
    RACE = "race"
    MESSAGE = "message"
    MARK = "mark"
    PAUSE = "pause"


KINDS: Final[dict[type[Event], Kind]] = {
    ev.RunStarted: Kind.RUN,
    ev.RunCompleted: Kind.RUN,
    ev.RunFailed: Kind.RUN,
    ev.RunCancelled: Kind.RUN,
    ev.RunTerminated: Kind.RUN,
    ev.RunTimedOut: Kind.RUN,
    ev.RunContinued: Kind.RUN,
    ev.CancelRequested: Kind.RUN,
    ev.RunPaused: Kind.PAUSE,
    ev.RunResumed: Kind.PAUSE,
    ev.StepStarted: Kind.STEP,
    ev.StepAttemptFailed: Kind.STEP,
    ev.StepCompleted: Kind.STEP,
    ev.StepFailed: Kind.STEP,
    ev.TimerSet: Kind.WAIT,
    ev.TimerFired: Kind.WAIT,
    ev.TimerCancelled: Kind.WAIT,
    ev.SignalReceived: Kind.MESSAGE,
    ev.SignalSent: Kind.MESSAGE,
    ev.SignalNotSent: Kind.MESSAGE,
    ev.CallbackCompleted: Kind.MESSAGE,
    ev.CallbackFailed: Kind.MESSAGE,
    ev.ChildStarted: Kind.CHILD,
    ev.ChildNotStarted: Kind.CHILD,
    ev.ChildCompleted: Kind.CHILD,
    ev.ChildFailed: Kind.CHILD,
    ev.SideEffectRecorded: Kind.MARK,
    ev.RaceDecided: Kind.RACE,
    ev.ScopeCompleted: Kind.SCOPE,
    ev.CheckpointTaken: Kind.MARK,
    ev.PatchAdopted: Kind.MARK,
}
"""The kind of every event; a test sees that none is left out."""

_WAITS = (ev.TimerSet, ev.ChildStarted, ev.StepStarted, ev.RunPaused)
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
_ATTEMPTS = (ev.StepStarted, ev.StepAttemptFailed, ev.StepCompleted, ev.StepFailed)
_SURROUNDS = (ev.ScopeCompleted, ev.RaceDecided)
"""Events that end what has other commands inside; their rows begin with the first of those."""

_ENDS_WAIT = (
    ev.TimerFired,
    ev.TimerCancelled,
    ev.ChildCompleted,
    ev.ChildFailed,
    ev.StepCompleted,
    ev.StepFailed,
    ev.StepAttemptFailed,
)


@attrs.frozen
class Wait:
    """A stretch of waiting. `ended_us` None: it goes on; `due_us` is when it ends by itself."""

    began_us: int
    ended_us: int | None
    due_us: int


@attrs.frozen(kw_only=True)
class Row:
    """One event of a history. `ended_us` None: what began here has not ended. `backoff` is the wait for the next
    attempt after one that failed. `facts` are what only this kind of event has, by the names of its fields. `payload`
    is None where the event carries none, and may be an error or a call.

    What waits without an event of its own (see `Timeline.pending`) has the index -1.
    """

    index: int
    event: str
    what: str
    kind: Kind
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
    backoff: Wait | None = None
    payload: bytes | None = None
    is_error: bool = False
    is_call: bool = False
    facts: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Timeline:
    """All rows of a history, and the time they span: `stopped_us` is the time of the last event, or now while the run
    is open. `pending` is what waits and has left no event yet, as far as somebody could tell (see `family`)."""

    rows: tuple[Row, ...]
    started_us: int
    stopped_us: int
    pending: tuple[Row, ...] = ()

    @property
    def length_us(self) -> int:
        """How long the history spans."""
        return self.stopped_us - self.started_us

    def around(self, index: int, rows: int = 5) -> Timeline:
        """The rows near an event, on the same scale."""
        return attrs.evolve(self, rows=tuple(row for row in self.rows if abs(row.index - index) <= rows))


How = Literal["unreadable", "missing", "doubtful"]


@attrs.frozen
class Unreadable:
    """From where on a history is not shown, and why: `index` is that of the first event which cannot be read or is
    missing. Where `how` is "doubtful", all is shown, and may not be what was recorded."""

    index: int
    why: str
    how: How = "unreadable"

    @property
    def mark(self) -> str:
        """A word or two, for where the rest would stand."""
        return {"unreadable": "cannot be read", "missing": "is missing", "doubtful": "in doubt"}[self.how]

    @property
    def note(self) -> str:
        """That the history is not whole, without the reason.

        >>> Unreadable(17, "the file was cut short", "missing").note
        'event 17 is missing, so the rest is not shown'
        """
        if self.how == "doubtful":
            return "this may not be what was recorded"
        return f"event {self.index} {self.mark}, so the rest is not shown"

    @property
    def sentence(self) -> str:
        """All of it in a sentence."""
        return f"{self.note}: {self.why}"


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
    begins, ends = _begins_of_surrounds(events), _Ends.of(events)
    rows = tuple(_row(index, event, started, begins, ends) for index, event in enumerate(events))
    open_until = [now_us] if now_us is not None and not events[-1].closes else []
    return Timeline(rows=rows, started_us=started, stopped_us=max([event.at_us for event in events] + open_until))


def _began(event: Event) -> int:
    return event.at_us - int(getattr(event, "took_us", 0))


def _begins_of_surrounds(events: Sequence[Event]) -> dict[str, int]:
    """For each scope and race, by id, when the first thing inside began."""
    wanted: set[str] = {event.id for event in events if isinstance(event, _SURROUNDS)}
    begins: dict[str, int] = {}
    for event in events if wanted else ():
        outer: str = getattr(event, "id", "")
        began = _began(event)
        while outer := outer.rpartition(".")[0]:
            if outer in wanted:
                begins[outer] = min(begins.get(outer, began), began)
    return begins


@attrs.frozen
class _Ends:
    """When what an event began came to its end: waits, and waits for another attempt, by the event's index."""

    waits: dict[int, int]
    backoffs: dict[int, int]

    @classmethod
    def of(cls, events: Sequence[Event]) -> _Ends:
        """One pass from the last event to the first, which remembers what it has seen of each command."""
        waits: dict[int, int] = {}
        backoffs: dict[int, int] = {}
        next_end: dict[str, int] = {}  # of a command's wait
        next_attempt: dict[str, int] = {}
        latest: dict[str, int] = {}  # when a scope ended, and, under "", the run
        resumed: int | None = None
        for index in range(len(events) - 1, -1, -1):
            event = events[index]
            id: str = getattr(event, "id", "")
            if isinstance(event, _WAITS):
                end = resumed if isinstance(event, ev.RunPaused) else next_end.get(id)
                _note(waits, index, end, id, latest)
            elif isinstance(event, ev.StepAttemptFailed):
                _note(backoffs, index, next_attempt.get(id), id, latest)
            elif isinstance(event, ev.RunResumed):
                resumed = event.at_us
            if event.closes:
                latest[""] = event.at_us
            elif isinstance(event, ev.ScopeCompleted):
                latest[id] = event.at_us
            if isinstance(event, _ENDS_WAIT):
                next_end[id] = event.at_us
            if isinstance(event, _ATTEMPTS):
                next_attempt[id] = _began(event)
        return cls(waits, backoffs)


def _note(ends: dict[int, int], index: int, end: int | None, id: str, latest: dict[str, int]) -> None:
    """Its own end, or else that of the innermost scope around it, or else that of the run."""
    while end is None and id:
        id = id.rpartition(".")[0]
        end = latest.get(id)
    end = latest.get("") if end is None else end
    if end is not None:
        ends[index] = end


def _row(index: int, event: Event, started: int, begins: dict[str, int], ends: _Ends) -> Row:
    values = ev.fields(event)
    carried = next((name for name in PAYLOADS if values.get(name)), None)
    took = values.get("took_us")
    waits = isinstance(event, _WAITS)
    began, ended = _began(event), ends.waits.get(index) if waits else event.at_us
    if isinstance(event, _SURROUNDS):
        began = min(begins.get(event.id, event.at_us), event.at_us)
    if waits or (took is None and began < event.at_us):
        took = None if ended is None else ended - began
    backoff = None
    if isinstance(event, ev.StepAttemptFailed):
        backoff = Wait(event.at_us, ends.backoffs.get(index), event.retry_at_us)
    bad = isinstance(event, _BAD) or carried == "error"
    mark = Mark.BAD if bad else Mark.GOOD if isinstance(event, _GOOD) else Mark.WAIT if waits else Mark.PLAIN
    return Row(
        index=index,
        event=type(event).__name__,
        what=words(type(event).__name__),
        kind=KINDS[type(event)],
        at_us=event.at_us,
        since_us=event.at_us - started,
        began_us=began,
        ended_us=ended,
        mark=mark,
        id=values.get("id", ""),
        name=_name(event, values),
        line=values.get("line"),
        attempt=values.get("attempt"),
        took_us=took,
        backoff=backoff,
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
