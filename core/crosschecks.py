"""What has to hold between runs, and between a history and what the store keeps beside it: inbox, timers, children.

A store may hold more history than fits in memory. So each run is read once and boiled down to a `Summary`, and what
has to hold between runs is told from the summaries. Pure: whoever has a store (`dalsegno.testing.histories`,
`replay check`) reads it and hands over what it read.

    for every run:  violations += check_history(events, record);  summaries.append(summarise(record, events, inbox))
    at the end:     violations += check_together(summaries, timers)

Runs that are not there are no violation: they may have been purged. Forked and imported runs share children with where
they came from, so a child's parent may be another run than the one that waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import attrs

from dalsegno.core import events as ev
from dalsegno.core.checks import OPEN, Record, Violation
from dalsegno.core.events import CarriedSignal, Event

Place = tuple[str, int]
"""A run: workflow id and generation."""


class StoredRun(Record, Protocol):
    """What a store's record says besides what the history says."""

    @property
    def number(self) -> int: ...
    @property
    def active(self) -> bool: ...
    @property
    def restore(self) -> bool: ...
    @property
    def parent(self) -> tuple[str, int, str] | tuple[()]: ...


class Waiting(Protocol):
    """A message in an inbox."""

    @property
    def seq(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def payload(self) -> bytes: ...


@attrs.frozen
class Child:
    """A child as its parent's history tells of it: what it answered, or None while it has not."""

    workflow_id: str
    started: int
    ended: int | None = None
    answer: Event | None = None


@attrs.frozen(kw_only=True)
class Summary:
    """What of a run matters to other runs and to the store."""

    record: StoredRun
    first: ev.RunStarted
    last: Event
    children: Mapping[str, Child]
    signals: Mapping[int, tuple[str, bytes]]
    timers: frozenset[tuple[int, str]]
    retries: frozenset[tuple[int, str]]
    inbox: Sequence[Waiting] = ()

    @property
    def place(self) -> Place:
        """Workflow id and generation."""
        return self.record.workflow_id, self.record.generation

    @property
    def run(self) -> str:
        """The same, as people write it."""
        return f"{self.record.workflow_id}#{self.record.generation}"


RULES: Final = {
    "waiting": "A message that is in the history has left the inbox; the inbox of a closed run is empty.",
    "timers kept": "The store keeps the timers that the history leaves open, and no others.",
    "child": "A parent hears once of a child, what the child's own history says; an ended child is not forgotten.",
    "continued": "A run that continued as new is followed by the next one, with its arguments and unread signals.",
}
"""Every rule of `check_together`."""


def summarise(record: StoredRun, events: Sequence[Event], inbox: Sequence[Waiting] = ()) -> Summary | None:
    """The summary of a run; None of a history that does not even begin."""
    if not events or not isinstance(events[0], ev.RunStarted):
        return None
    first = events[0]
    children: dict[str, Child] = {}
    signals = {signal.seq: (signal.name, signal.payload) for signal in first.carried}
    timers = {} if first.deadline_us is None else {"run": first.deadline_us}
    retries: dict[str, int] = {}
    for index, event in enumerate(events):
        match event:
            case ev.ChildStarted():
                children[event.id] = Child(event.workflow_id, index)
            case ev.ChildCompleted() | ev.ChildFailed() if event.id in children:
                children[event.id] = attrs.evolve(children[event.id], ended=index, answer=event)
            case ev.SignalReceived():
                signals[event.seq] = (event.name, event.payload)
            case ev.TimerSet():
                timers[f"t:{event.id}"] = event.deadline_us
            case ev.TimerFired() | ev.TimerCancelled():
                timers.pop(f"t:{event.id}", None)
            case ev.StepAttemptFailed():
                retries[f"r:{event.id}"] = event.retry_at_us
            case ev.StepCompleted() | ev.StepFailed():
                retries.pop(f"r:{event.id}", None)
    return Summary(
        record=record,
        first=first,
        last=events[-1],
        children=children,
        signals=signals,
        timers=frozenset((at_us, key) for key, at_us in timers.items()),
        retries=frozenset((at_us, key) for key, at_us in retries.items()),
        inbox=tuple(inbox),
    )


def check_together(
    summaries: Iterable[Summary | None], timers: Iterable[tuple[int, int, str]] | None = None
) -> list[Violation]:
    """Everything that does not hold between runs. `timers` are (deadline, run number, key) of all the store keeps."""
    runs = {summary.place: summary for summary in summaries if summary is not None}
    kept: dict[int, set[tuple[int, str]]] | None = None
    if timers is not None:
        kept = {}
        for deadline_us, number, key in timers:
            kept.setdefault(number, set()).add((deadline_us, key))
    found: list[Violation] = []
    for summary in runs.values():
        found += [Violation("waiting", None, what, summary.run) for what in _waiting(summary)]
        if kept is not None:
            held = frozenset(kept.get(summary.record.number, ()))
            found += [Violation("timers kept", None, what, summary.run) for what in _timers(summary, held)]
        found += [Violation("child", index, what, summary.run) for index, what in _children(summary, runs)]
        found += [Violation("continued", None, what, summary.run) for what in _continued(summary, runs)]
    return found


# --- a run and what is kept beside it ------------------------------------------------------------------------------


def _waiting(run: Summary) -> Iterator[str]:
    status = run.record.status.value
    for message in run.inbox:
        # By content as well: an imported run brings numbers of another store.
        if message.kind == "signal" and run.signals.get(message.seq) == (message.name, message.payload):
            yield f"signal {message.name!r}, message {message.seq}, is in the history and waits in the inbox as well"
        elif status not in OPEN:
            yield f"{message.kind} {message.name!r}, message {message.seq}, waits for a run that is {status}"


def _timers(run: Summary, kept: frozenset[tuple[int, str]]) -> Iterator[str]:
    status = run.record.status.value
    wanted = run.timers if status == "running" else frozenset[tuple[int, str]]()  # those of a paused run are put by
    may_be = run.timers | run.retries if status in ("running", "paused") else wanted
    for at_us, key in sorted(kept - may_be):
        if key.startswith("s:") and status in ("running", "paused"):
            continue  # until when a task has to begin: kept with the task, and passed over once it has
        yield f"the store keeps timer {key} for {at_us}, and the history of this {status} run has no such timer open"
    if not run.record.restore:  # else whoever activates it first makes them
        for at_us, key in sorted(wanted - kept):
            yield f"timer {key} for {at_us} is open in the history, and the store does not keep it"


# --- children ------------------------------------------------------------------------------------------------------


def _children(run: Summary, runs: Mapping[Place, Summary]) -> Iterator[tuple[int | None, str]]:
    for id, child in run.children.items():
        ids = dict.fromkeys((child.workflow_id, _started_anew(run.place[0], id)))
        ended = next(filter(None, (_last_generation(name, (*run.place, id), runs) for name in ids)), None)
        if ended is None:
            continue
        status = ended.record.status.value
        told = any(message.kind == "child" and message.name == id for message in run.inbox)
        if child.answer is None:
            if status not in OPEN and status != "continued" and not told and run.record.status.value in OPEN:
                yield child.started, f"child {ended.run} is {status}, and its parent neither knows nor will hear of it"
        elif status in OPEN or (status == "completed") is not isinstance(child.answer, ev.ChildCompleted):
            yield child.ended, f"{type(child.answer).__name__}, and child {ended.run} is {status}"
        elif getattr(child.answer, "result", None) != getattr(ended.last, "result", None):
            yield child.ended, f"ChildCompleted brings another result than child {ended.run} recorded"
    if run.record.parent and run.record.generation == 1:
        parent, generation, id = run.record.parent
        other = runs.get((parent, generation))
        names = (other.children[id].workflow_id, _started_anew(parent, id)) if other and id in other.children else ()
        if other is not None and run.place[0] not in names:
            yield None, f"it says that command {id} of {other.run} started it, and that history does not"


def _started_anew(parent: str, command: str) -> str:
    """What a child is called that a forked or imported run has started again: the history names that of its origin."""
    return f"{parent}/{command}"


def _last_generation(workflow_id: str, parent: tuple[str, int, str], runs: Mapping[Place, Summary]) -> Summary | None:
    """The newest run of a child that is this parent's own; None where it is not there."""
    found, generation = None, 1
    while (next_one := runs.get((workflow_id, generation))) is not None:
        if next_one.record.parent == parent:
            found = next_one
        generation += 1
    return found


# --- continuing as new ---------------------------------------------------------------------------------------------


def _continued(run: Summary, runs: Mapping[Place, Summary]) -> Iterator[str]:
    workflow_id, generation = run.place
    following = runs.get((workflow_id, generation + 1))
    if isinstance(run.last, ev.RunContinued):
        if following is None:
            if not any(place[0] == workflow_id and place[1] > generation for place in runs):
                yield "it continued as new, and there is no run after it"
            return
        if following.first.arguments != run.last.arguments:
            yield f"it continued as new, and {following.run} began with other arguments"
        yield from _carried(run, following)
    elif following is not None and following.first.at_us < run.last.at_us and not run.last.closes:
        yield f"it is {run.record.status.value}, and {following.run} was begun beside it"


def _carried(run: Summary, following: Summary) -> Iterator[str]:
    for signal in following.first.carried:
        if run.signals.get(signal.seq) != (signal.name, signal.payload):
            yield f"{following.run} was handed signal {signal.name!r}, message {signal.seq}, which never came here"


def check_delivery(
    accepted: Sequence[tuple[str, bytes]], events: Sequence[Event], inbox: Sequence[Waiting] = ()
) -> list[Violation]:
    """Whether the signals one sender saw accepted, as (name, payload) in that order, entered the history exactly once
    and in that order, those that still wait aside. For senders that made each payload unlike all others.

    >>> [str(violation) for violation in check_delivery([("paid", b"1")], [])]
    ["the history: signal 'paid' b'1' was accepted and never came [delivery]"]
    """
    came = [(signal.name, signal.payload) for signal in _signals(events)]
    waiting = {(message.name, message.payload) for message in inbox if message.kind == "signal"}
    found: list[Violation] = []
    position = -1
    for sent in accepted:
        count = came.count(sent)
        if count > 1 or (count and sent in waiting):
            found.append(Violation("delivery", None, f"signal {sent[0]!r} {sent[1]!r:.60} came more than once"))
        elif not count and sent not in waiting:
            found.append(Violation("delivery", None, f"signal {sent[0]!r} {sent[1]!r:.60} was accepted and never came"))
        elif count:
            at = came.index(sent)
            if at < position:
                what = f"signal {sent[0]!r} {sent[1]!r:.60} came before one that was accepted earlier"
                found.append(Violation("delivery", None, what))
            position = max(position, at)
    return found


def _signals(events: Sequence[Event]) -> Iterator[CarriedSignal]:
    for event in events:
        if isinstance(event, ev.RunStarted):
            yield from event.carried
        elif isinstance(event, ev.SignalReceived):
            yield CarriedSignal(seq=event.seq, name=event.name, payload=event.payload)
