"""What has to hold inside one recorded history, whoever stored it. Pure: events in, violations out.

In the manner of Elle, which judges a database by the histories it left and not by how it works: nothing here asks the
engine or the interpreter, so that a fault they share is not shared by the check. `RULES` lists each promise in a
sentence; `check_history` reads one history against all of them. What has to hold between runs, and between a history
and what the store keeps beside it, is in `dalsegno.core.crosschecks`.

    >>> from dalsegno.core.events import RunStarted, TimerFired, TimerSet
    >>> early = [RunStarted(0, "nap", "n", 1, b"", b""), TimerSet(5, "1", "sleep", "", b"", 3, 90), TimerFired(80, "1")]
    >>> [str(found) for found in check_history(early)]
    ['event 2: TimerFired answers command 1 at 80, and its deadline is 90 [timers]']
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

import attrs

from dalsegno.core import events as ev
from dalsegno.core.events import Event

CLOSED_BY: Final[dict[type[Event], str]] = {
    ev.RunCompleted: "completed",
    ev.RunFailed: "failed",
    ev.RunTimedOut: "failed",
    ev.RunCancelled: "cancelled",
    ev.RunTerminated: "terminated",
    ev.RunContinued: "continued",
}
"""The status that each closing event leaves a run in."""

OPEN: Final = frozenset({"running", "paused", "blocked"})

Found = Iterator[tuple[int | None, str]]


class Named(Protocol):
    """A status: an enumeration whose values are the words of `CLOSED_BY` and `OPEN`."""

    @property
    def value(self) -> Any: ...


class Record(Protocol):
    """What a record of a run says that its history says as well."""

    @property
    def workflow_id(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def workflow(self) -> str: ...
    @property
    def status(self) -> Named: ...
    @property
    def closed_at_us(self) -> int | None: ...


@attrs.frozen
class Violation:
    """Something that does not hold: which rule, at which event (None: the history as a whole), what, in which run; and
    at which line of a ledger, where one was compared and says so."""

    rule: str
    event: int | None
    what: str
    run: str = ""
    line: int | None = None

    def __str__(self) -> str:
        where = f"event {self.event}" if self.event is not None else "the history"
        return f"{self.run + ', ' if self.run else ''}{where}: {self.what} [{self.rule}]"


def check_history(
    events: Sequence[Event], record: Record | None = None, *, steady_clock: bool = False
) -> list[Violation]:
    """Everything that does not hold in a history, and between it and the run's record where that is given.

    `steady_clock` says that no clock was set back while it was recorded: then times never go back, either.

    >>> from dalsegno.core.events import CheckpointTaken
    >>> str(check_history([CheckpointTaken(1, "1", 7)])[0])
    'event 0: it begins with CheckpointTaken; every history begins with RunStarted [beginning]'
    """
    run = f"{record.workflow_id}#{record.generation}" if record is not None else ""
    found = [
        Violation(rule.name, index, what, run)
        for rule in RULES
        if not (rule.needs_steady_clock and not steady_clock)
        for index, what in rule.look(events)
    ]
    if record is not None:
        found += [Violation("record", index, what, run) for index, what in _record(events, record)]
    return sorted(found, key=lambda one: -1 if one.event is None else one.event)


# --- the run -------------------------------------------------------------------------------------------------------


def _beginning(events: Sequence[Event]) -> Found:
    if not events:
        yield None, "it has no events; every history begins with RunStarted"
        return
    if not isinstance(events[0], ev.RunStarted):
        yield 0, f"it begins with {_kind(events[0])}; every history begins with RunStarted"
    for index, event in enumerate(events):
        if index and isinstance(event, ev.RunStarted):
            yield index, "RunStarted stands in the middle"


def _closing(events: Sequence[Event]) -> Found:
    asked = False
    for index, event in enumerate(events):
        after = len(events) - 1 - index
        if event.closes and after:
            yield index, f"{_kind(event)} ends the run, and {after} events follow it"
        if isinstance(event, ev.RunCancelled) and not asked:
            yield index, "RunCancelled, and nobody asked the run to end itself"
        if isinstance(event, ev.CancelRequested):
            if asked:
                yield index, "CancelRequested a second time"
            asked = True


def _deadline(events: Sequence[Event]) -> Found:
    deadline = getattr(events[0], "deadline_us", None) if events else None
    for index, event in enumerate(events):
        if isinstance(event, ev.RunTimedOut):
            if event.deadline_us != deadline:
                yield index, f"RunTimedOut names the deadline {event.deadline_us}, and the run started with {deadline}"
            elif event.at_us < event.deadline_us:
                yield index, f"RunTimedOut at {event.at_us}, and the deadline is {event.deadline_us}"


def _pauses(events: Sequence[Event]) -> Found:
    paused = False
    for index, event in enumerate(events):
        if isinstance(event, ev.RunPaused | ev.RunResumed):
            pauses = isinstance(event, ev.RunPaused)
            if pauses is paused:
                yield index, f"{_kind(event)}, and the run was {'paused' if paused else 'not paused'} already"
            paused = pauses


def _times(events: Sequence[Event]) -> Found:
    for index, event in enumerate(events):
        if event.at_us < 0 or getattr(event, "took_us", 0) < 0:
            yield index, f"{_kind(event)} has a time below zero"


def _order(events: Sequence[Event]) -> Found:
    latest = 0
    for index, event in enumerate(events):
        if event.at_us < latest:
            yield index, f"{_kind(event)} is {latest - event.at_us} µs older than an event before it"
        latest = max(latest, event.at_us)


def _record(events: Sequence[Event], record: Record) -> Found:
    if not events:
        return
    first, last, index = events[0], events[-1], len(events) - 1
    if isinstance(first, ev.RunStarted):
        for what in ("workflow_id", "generation", "workflow"):
            if getattr(first, what) != getattr(record, what):
                yield 0, f"RunStarted says {what} {getattr(first, what)!r}, the record {getattr(record, what)!r}"
    status = record.status.value
    if last.closes and CLOSED_BY[type(last)] != status:
        yield index, f"{_kind(last)} ends it, and the record says {status}"
    elif not last.closes and status not in OPEN:
        yield index, f"the record says {status}, and no event ends it"
    elif last.closes and record.closed_at_us != last.at_us:
        yield index, f"{_kind(last)} at {last.at_us}, and the record says closed at {record.closed_at_us}"
    elif status in OPEN and record.closed_at_us is not None:
        yield index, f"the record says {status}, and closed at {record.closed_at_us}"
    pauses = [event for event in events if isinstance(event, ev.RunPaused | ev.RunResumed)]
    paused = bool(pauses) and isinstance(pauses[-1], ev.RunPaused)
    if not last.closes and status in ("running", "paused") and paused is not (status == "paused"):
        yield index, f"the history leaves it {'paused' if paused else 'going'}, and the record says {status}"


# --- commands ------------------------------------------------------------------------------------------------------

_FAMILY: Final[dict[type[Event], tuple[str, bool]]] = {
    ev.StepStarted: ("step", False),
    ev.StepAttemptFailed: ("step", False),
    ev.StepCompleted: ("step", True),
    ev.StepFailed: ("step", True),
    ev.TimerSet: ("timer", False),
    ev.TimerFired: ("timer", True),
    ev.TimerCancelled: ("timer", True),
    ev.SignalSent: ("send", True),
    ev.SignalNotSent: ("send", True),
    ev.ChildStarted: ("child", False),
    ev.ChildNotStarted: ("child", True),
    ev.ChildCompleted: ("child", True),
    ev.ChildFailed: ("child", True),
    ev.CallbackCompleted: ("callback", True),
    ev.CallbackFailed: ("callback", True),
    ev.SideEffectRecorded: ("side effect", True),
    ev.RaceDecided: ("race", True),
    ev.ScopeCompleted: ("scope", True),
    ev.CheckpointTaken: ("checkpoint", True),
}
"""What kind of command each event speaks of, and whether it is that command's outcome."""

_BEGINS: Final = {"timer": (ev.TimerSet, "set no timer"), "child": (ev.ChildStarted, "started no child")}
_LATE: Final = (ev.CallbackCompleted, ev.CallbackFailed, ev.ChildCompleted, ev.ChildFailed)
"""What may still come in for a command inside a scope that has ended: it was asked for outside of this run."""


_NUMBERED: Final = (ev.SignalReceived, *_LATE)


def _outcomes(events: Sequence[Event]) -> Found:
    family: dict[str, str] = {}
    outcome: dict[str, Event] = {}
    bounded = _bounded(events)
    for index, event in enumerate(events):
        if type(event) not in _FAMILY:
            continue
        id, (kind, ends) = _id(event), _FAMILY[type(event)]
        if kind == "timer" and id in bounded:  # the bound on all of a step: it ends the step if it fires
            kind, ends = "step", type(event) is ev.TimerFired
            if type(event) is ev.TimerCancelled:
                continue
        if family.setdefault(id, kind) != kind:
            yield index, f"{_kind(event)} answers command {id}, which is a {family[id]}"
        elif id in outcome:
            how = "again" if type(event) is type(outcome[id]) else f"after {_kind(outcome[id])}"
            yield index, f"{_kind(event)} answers command {id} {how}"
        if ends:
            outcome.setdefault(id, event)


def _bounded(events: Sequence[Event]) -> frozenset[str]:
    """The steps whose waiting and attempts are bounded as a whole."""
    return frozenset(_id(event) for event in events if isinstance(event, ev.TimerSet) and event.kind == "step")


def _begun(events: Sequence[Event]) -> Found:
    begun: set[str] = set()
    for index, event in enumerate(events):
        kind, ends = _FAMILY.get(type(event), ("", False))
        if kind not in _BEGINS:
            continue
        first, what = _BEGINS[kind]
        if isinstance(event, first):
            if _id(event) in begun:
                yield index, f"{_kind(event)} answers command {_id(event)} a second time"
            begun.add(_id(event))
        elif ends and not isinstance(event, ev.ChildNotStarted) and _id(event) not in begun:
            yield index, f"{_kind(event)} answers command {_id(event)}, which {what}"


def _attempts(events: Sequence[Event]) -> Found:
    last: dict[str, Any] = {}
    for index, event in enumerate(events):
        if not isinstance(event, ev.StepStarted | ev.StepAttemptFailed | ev.StepCompleted | ev.StepFailed):
            continue
        before = last.get(event.id)
        last[event.id] = event
        goes_on = isinstance(before, ev.StepStarted)  # the attempt that was announced
        expected = 1 if before is None else before.attempt if goes_on else before.attempt + 1
        if event.attempt != expected:
            yield index, f"{_kind(event)} of command {event.id} is attempt {event.attempt}; {expected} was expected"
        if before is not None and event.name != before.name:
            yield index, f"{_kind(event)} of command {event.id} names step {event.name!r}, before it {before.name!r}"
        if goes_on and isinstance(event, ev.StepStarted):
            yield index, f"StepStarted of command {event.id}, which may run once, a second time"
        if isinstance(event, ev.StepAttemptFailed) and event.retry_at_us < event.at_us:
            yield index, f"StepAttemptFailed of command {event.id} is to be tried again before it failed"


def _retries(events: Sequence[Event]) -> Found:
    due: dict[str, int] = {}
    for index, event in enumerate(events):
        if isinstance(event, ev.StepStarted | ev.StepAttemptFailed | ev.StepCompleted | ev.StepFailed):
            if event.at_us < due.get(event.id, 0):
                yield index, f"{_kind(event)} of command {event.id} at {event.at_us}, to be tried at {due[event.id]}"
            due[event.id] = getattr(event, "retry_at_us", 0)


def _timers(events: Sequence[Event]) -> Found:
    deadlines: dict[str, int] = {}
    for index, event in enumerate(events):
        if isinstance(event, ev.TimerSet):
            deadlines[event.id] = event.deadline_us
        elif isinstance(event, ev.TimerFired) and event.at_us < deadlines.get(event.id, 0):
            deadline = deadlines[event.id]
            yield index, f"TimerFired answers command {event.id} at {event.at_us}, and its deadline is {deadline}"


# --- messages, scopes, marks ---------------------------------------------------------------------------------------


def _inbox(events: Sequence[Event]) -> Found:
    first = events[0] if events else None
    carried = [signal.seq for signal in first.carried] if isinstance(first, ev.RunStarted) else []
    if carried != sorted(set(carried)):
        yield 0, f"carried signals are numbered {carried}; the store numbers them upwards, each once"
    latest = max(carried, default=0)
    for index, event in enumerate(events):
        if isinstance(event, _NUMBERED):
            if event.seq <= latest:
                how = "again" if event.seq == latest else f"after number {latest}"
                yield index, f"{_kind(event)} is message number {event.seq}, {how}"
            latest = max(latest, event.seq)


def _unread(events: Sequence[Event]) -> Found:
    received: Counter[str] = Counter()
    for index, event in enumerate(events):
        if isinstance(event, ev.RunStarted):
            received.update(signal.name for signal in event.carried)
        elif isinstance(event, ev.SignalReceived):
            received[event.name] += 1
        elif isinstance(event, ev.RunCompleted | ev.RunFailed):
            for name, count in event.unread.items():
                if count > received[name]:
                    yield index, f"{count} signals {name!r} were left unread, and {received[name]} came"


def _scopes(events: Sequence[Event]) -> Found:
    ended: set[str] = set()
    received: set[int] = set()
    consumed: dict[int, str] = {}
    for index, event in enumerate(events):
        if isinstance(event, ev.RunStarted):
            received.update(signal.seq for signal in event.carried)
        elif isinstance(event, ev.SignalReceived):
            received.add(event.seq)
        id = _id(event)
        around = _around(id, ended)
        if around and not isinstance(event, _LATE):
            yield index, f"{_kind(event)} answers command {id} inside of scope {around}, which has ended"
        if isinstance(event, ev.ScopeCompleted):
            ended.add(id)
            for seq in event.consumed:
                other = consumed.setdefault(seq, id)
                if seq not in received:
                    yield index, f"scope {id} consumed message {seq}, which had not come"
                elif other != id and not (other.startswith(f"{id}.") or id.startswith(f"{other}.")):
                    yield index, f"scope {id} consumed message {seq}, and so did scope {other}"


def _around(id: str, scopes: set[str]) -> str:
    """The outermost of these scopes that the id lies inside of, or nothing."""
    dot = id.find(".")
    while dot > 0:
        if id[:dot] in scopes:
            return id[:dot]
        dot = id.find(".", dot + 1)
    return ""


def _marks(events: Sequence[Event]) -> Found:
    adopted: set[str] = set()
    for index, event in enumerate(events):
        if isinstance(event, ev.PatchAdopted):
            if event.change in adopted:
                yield index, f"PatchAdopted for {event.change!r} a second time"
            adopted.add(event.change)
        elif isinstance(event, ev.RaceDecided) and event.winner < 0:
            yield index, f"RaceDecided of command {event.id} for branch {event.winner}"


def _kind(event: Event) -> str:
    return type(event).__name__


def _id(event: Event) -> str:
    return getattr(event, "id", "")


@attrs.frozen
class Rule:
    """A promise, and what looks whether a history keeps it."""

    name: str
    promise: str
    look: Callable[[Sequence[Event]], Found] = attrs.field(repr=False)
    needs_steady_clock: bool = False


RULES: Final = (
    Rule("beginning", "A history begins with RunStarted, and has one.", _beginning),
    Rule("closing", "One event closes a run, and is the last; a run ends itself only when asked to.", _closing),
    Rule("deadline", "A run is out of time at the deadline it started with, not before.", _deadline),
    Rule("pauses", "A run is paused when it goes and resumed when it is paused.", _pauses),
    Rule("times", "No event was before 1970 or took less than no time.", _times),
    Rule("order", "Under a steady clock no event is older than one before it.", _order, True),
    Rule("outcomes", "A command has one outcome, and nothing is recorded of it afterwards.", _outcomes),
    Rule("begun", "A timer is set before it ends, a child started before it reports; each once.", _begun),
    Rule("attempts", "Attempts are numbered from 1 without a gap; a step run at most once starts once.", _attempts),
    Rule("retries", "Under a steady clock no attempt is made before it was due.", _retries, True),
    Rule("timers", "A timer never fires before its deadline.", _timers),
    Rule("inbox", "Messages enter a history in the order the store accepted them, each once.", _inbox),
    Rule("unread", "No more signals are left unread than came.", _unread),
    Rule("scopes", "Nothing happens in a scope that has ended; it consumed signals that came, alone.", _scopes),
    Rule("marks", "A change is adopted once; a race is won by a branch.", _marks),
)
"""Every rule of a single history. `record` is a further one: history and record of a run say the same."""
