"""Walking a workflow on in memory, with outcomes that are known from elsewhere: what `fork --dry-run` shows.

No step runs, nothing is sent, no child is started and no time passes. What the code asks for is answered, in this
order, from what is known:

    the history   the recorded outcome of the same command: same kind, name and arguments; the one with the same id
                  first, then any that was not used yet, so that a step which moved still finds its result
    a file        {"charge": {"result": 5}, "2.1": {"raise": "OSError:down"}, "approval": [{"result": true}]}: by the id
                  of a command, or the name of a step, workflow or signal; a list is used up one by one
    a person      who is asked, where there is one
    the clock     a sleep or a time-out ends in virtual time when nothing else can happen

What is answered first follows the order of the history, so that branches end in the order they did. Where nothing is
known the rehearsal stops and says what it waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from dalsegno.core import events as ev
from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.errors import BadOption, DalsegnoError
from dalsegno.core.events import Event
from dalsegno.core.interpreter import CancelledOut, Continued, Finished, Interpreter, Raised, Waiting
from dalsegno.core.values.codec import Codec
from dalsegno.tools.forking import Instead

EVENTS_MAX: Final = 100_000
Known = Callable[[Waiting], Instead | None]
"""Asked for the outcome of a command: what it should be, or None where it is not known."""


@attrs.frozen(kw_only=True)
class Rehearsal:
    """What came of it: the history as it would be, how many outcomes came from where, and why it stopped, if it did."""

    events: tuple[Event, ...]
    kept: int
    sources: Mapping[str, int]
    stopped: str = ""

    @property
    def ended(self) -> bool:
        """Whether the run ends."""
        return bool(self.events) and self.events[-1].closes


@attrs.frozen
class Outcome:
    """A recorded outcome, and where it stands."""

    index: int
    event: Event


Call = tuple[str, str, bytes]


@attrs.define
class Recorded:
    """Outcomes of the original history: by what was asked, in their order, each to be used once."""

    by_call: dict[Call, list[tuple[str, Outcome]]] = attrs.field(factory=dict)
    signals: dict[str, list[Outcome]] = attrs.field(factory=dict)
    ends: dict[str, Outcome] = attrs.field(factory=dict)
    calls: dict[str, Call] = attrs.field(factory=dict)

    @classmethod
    def of(cls, events: Sequence[Event], kept: int) -> Recorded:
        """Those that are not in the prefix; a child's or timer's outcome is found by what its start said of it."""
        found = cls()
        for index, event in enumerate(events):
            if isinstance(event, ev.SignalReceived):
                if index >= kept:
                    found.signals.setdefault(event.name, []).append(Outcome(index, event))
                continue
            if (id := getattr(event, "id", None)) is None or event.closes:
                continue
            if (digest := getattr(event, "digest", None)) is not None:
                kind = _KIND_OF.get(type(event)) or getattr(event, "kind", "")
                found.calls[str(id)] = (str(kind), str(getattr(event, "name", "")), digest)
            if isinstance(event, _ENDS) and index >= kept:
                found.ends[id] = Outcome(index, event)
                if id in found.calls:
                    found.by_call.setdefault(found.calls[id], []).append((id, Outcome(index, event)))
        return found

    def of_waiting(self, waiting: Waiting) -> Outcome | None:
        """The outcome for a command, and where it stands; it stays until it is used."""
        if waiting.kind == "callback":
            return self.ends.get(waiting.id)
        fitting = self.by_call.get((waiting.kind, waiting.name, waiting.digest), [])
        found = next((one for id, one in fitting if id == waiting.id), fitting[0][1] if fitting else None)
        came = self.signals.get(waiting.name) if waiting.kind == "receive" else None
        return found if not came or (found is not None and found.index < came[0].index) else came[0]

    def use(self, outcome: Outcome) -> None:
        """Take an outcome away."""
        for signals in self.signals.values():
            signals[:] = [one for one in signals if one.index != outcome.index]
        for fitting in self.by_call.values():
            fitting[:] = [(id, one) for id, one in fitting if one.index != outcome.index]


_KIND_OF: Final[dict[type[Event], str]] = {
    ev.StepCompleted: "step",
    ev.StepFailed: "step",
    ev.SideEffectRecorded: "side effect",
    ev.ChildStarted: "child",
    ev.ChildNotStarted: "child",
    ev.SignalSent: "send",
    ev.SignalNotSent: "send",
}
_ENDS: Final = (
    ev.StepCompleted,
    ev.StepFailed,
    ev.SideEffectRecorded,
    ev.ChildCompleted,
    ev.ChildFailed,
    ev.ChildNotStarted,
    ev.CallbackCompleted,
    ev.CallbackFailed,
    ev.SignalNotSent,
    ev.TimerFired,
)


class Stage:
    """One rehearsal while it goes on."""

    def __init__(self, definition: WorkflowDefinition[Any, Any], codec: Codec, original: Sequence[Event], kept: int):
        self.codec = codec
        self.kept = kept
        self.recorded = Recorded.of(original, kept)
        self.interpreter = Interpreter(definition, codec)
        self.events: list[Event] = []
        self.sources = {"history": 0, "file": 0, "asked": 0, "clock": 0}
        self.now_us = 0
        self.seq = max((getattr(event, "seq", 0) for event in original), default=0)

    def begin(self, events: Sequence[Event]) -> None:
        """Replay the prefix. Raises what a replay raises."""
        self.events = list(events)
        self.interpreter.replay(self.events, skip_scopes=False)
        self.now_us = self.interpreter.now_us

    def record(self, event: Event) -> None:
        """Fold what has happened."""
        self.events.append(event)
        self.now_us = max(self.now_us, event.at_us)
        self.interpreter.apply(event)

    def mark(self, waiting: Waiting) -> tuple[int, str, str, bytes, int]:
        """What events that answer a command have in common."""
        return (self.now_us, waiting.id, waiting.name, waiting.digest, waiting.line)

    def settle(self) -> None:
        """Answer what needs no outcome from anywhere: decisions, deadlines, children and signals on their way."""
        while True:
            advance = self.interpreter.take()
            for given in advance.withdrawn:
                if given.deadline_us is not None:
                    self.record(ev.TimerCancelled(self.now_us, given.id))
            for waiting in advance.issued:
                if self.interpreter.outcome is None and self.interpreter.waiting.get(waiting.id) is waiting:
                    self.open(waiting)
            if not (advance.issued or advance.withdrawn):
                return

    def open(self, waiting: Waiting) -> None:
        """What the engine records as soon as it is asked."""
        command: Any = waiting.command
        match waiting.kind:
            case "patched":
                self.record(ev.PatchAdopted(self.now_us, waiting.name))
            case "race":
                self.record(ev.RaceDecided(*self.mark(waiting), waiting.winner))
            case "scope":
                ended = (waiting.result, waiting.error, waiting.consumed)
                self.record(ev.ScopeCompleted(self.now_us, waiting.id, waiting.line, *ended))
            case "checkpoint":
                self.record(ev.CheckpointTaken(self.now_us, waiting.id, waiting.line))
            case "send":
                failed = self.recorded.of_waiting(waiting)
                if failed is not None and isinstance(failed.event, ev.SignalNotSent):
                    self.record(ev.SignalNotSent(*self.mark(waiting), failed.event.error))
                else:
                    self.record(ev.SignalSent(*self.mark(waiting), command.workflow_id))
            case "child" if waiting.child_id is None:
                self.record(ev.ChildStarted(*self.mark(waiting), f"(rehearsed {waiting.id})"))
            case "sleep" | "sleep until" | "receive" | "step" if waiting.deadline_us is None:
                self.set_timer(waiting)

    def set_timer(self, waiting: Waiting) -> None:
        """Fix a deadline, in virtual time."""
        command: Any = waiting.command
        if waiting.kind == "sleep until":
            deadline = round(command.moment.timestamp() * 1e6)
        elif (seconds := _bound(waiting)) is None:
            return
        else:
            deadline = self.now_us + round(seconds * 1e6)
        kind, (at_us, id, name, digest, line) = waiting.kind, self.mark(waiting)
        self.record(ev.TimerSet(at_us, id, kind, name, digest, line, deadline))

    def answer(self, waiting: Waiting, instead: Instead) -> None:
        """Let a command end so."""
        self.seq += 1
        failed, what = instead.how == "raise", instead.what
        mark, numbered = self.mark(waiting), (self.now_us, self.seq, waiting.id, what)
        match waiting.kind:
            case "step":
                make = ev.StepFailed if failed else ev.StepCompleted
                self.record(make(*mark, waiting.attempt + 1, 0, what))
            case "side effect":
                self.record(ev.SideEffectRecorded(*mark, b"" if failed else what, what if failed else b""))
            case "child":
                self.record((ev.ChildFailed if failed else ev.ChildCompleted)(*numbered))
            case "callback":
                self.record((ev.CallbackFailed if failed else ev.CallbackCompleted)(*numbered))
            case "receive":
                self.record(ev.SignalReceived(self.now_us, self.seq, waiting.name, what))

    def answer_as(self, waiting: Waiting, outcome: Outcome) -> None:
        """Let a command end as it did."""
        event = outcome.event
        self.recorded.use(outcome)
        self.now_us = max(self.now_us, event.at_us)
        if isinstance(event, ev.TimerFired):
            self.record(ev.TimerFired(self.now_us, waiting.id))
        elif error := getattr(event, "error", b""):
            self.answer(waiting, Instead("raise", error))
        else:
            what = event.payload if isinstance(event, ev.SignalReceived) else getattr(event, "result", b"")
            self.answer(waiting, Instead("set", what))

    def close(self) -> None:
        """Record how the run ends."""
        now, unread = self.now_us, self.interpreter.unread()
        match self.interpreter.outcome:
            case Finished() as end:
                self.record(ev.RunCompleted(now, end.payload, unread, end.unawaited))
            case Raised() as end:
                self.record(ev.RunFailed(now, end.payload, unread))
            case CancelledOut() as end:
                self.record(ev.RunCancelled(now, end.payload))
            case Continued() as end:
                self.record(ev.RunContinued(now, end.id, end.payload))


def _bound(waiting: Waiting) -> float | None:
    """After how many seconds a command ends by itself."""
    command: Any = waiting.command
    if waiting.kind == "step":
        seconds = command.options.total_timeout
    else:
        seconds = command.duration if waiting.kind == "sleep" else command.timeout
    return None if seconds is None else float(seconds)


def _ends_by_itself(waiting: Waiting) -> bool:
    """Whether only its time is waited for. A step or a signal that has a deadline is to have an outcome before."""
    return waiting.deadline_us is not None and waiting.kind not in ("receive", "step")


def rehearse(
    definition: WorkflowDefinition[Any, Any],
    codec: Codec,
    prefix: Sequence[Event],
    original: Sequence[Event],
    kept: int,
    known: Mapping[str, Known] | None = None,
) -> Rehearsal:
    """Walk on from a prefix. `original` is the history outcomes are taken from, of which `kept` events are used up;
    `known` are further sources by name ("file", "asked"), tried in their order. Raises what replaying the prefix does.
    """
    stage = Stage(definition, codec, original, kept)
    try:
        stage.begin(prefix)
        stopped = _walk(stage, known or {})
        return Rehearsal(events=tuple(stage.events), kept=len(prefix), sources=stage.sources, stopped=stopped)
    finally:
        stage.interpreter.evict()


def _walk(stage: Stage, known: Mapping[str, Known]) -> str:
    """Go on until the run ends or nothing is known; answers why it stopped, in words."""
    while len(stage.events) < EVENTS_MAX:
        try:
            stage.settle()
            if stage.interpreter.outcome is not None:
                stage.close()
                return ""
            if not _next(stage, known):
                return _waits(stage.interpreter.waiting.values())
        except BadOption:
            raise  # an answer in the file that makes no sense
        except DalsegnoError as error:
            return str(error)
    return f"it went on for {EVENTS_MAX:,} events; is there a loop that never ends?"


def _next(stage: Stage, known: Mapping[str, Known]) -> bool:
    """Let one more thing happen."""
    waiting = list(stage.interpreter.waiting.values())
    found = [
        (outcome.index, one, outcome) for one in waiting if (outcome := stage.recorded.of_waiting(one)) is not None
    ]
    if found:
        _, one, outcome = min(found, key=lambda each: each[0])
        stage.answer_as(one, outcome)
        stage.sources["history"] += 1
        return True
    for name, ask in known.items():
        if name == "asked" and any(map(_ends_by_itself, waiting)):
            continue  # what ends by itself need not be asked for first
        for one in waiting:
            if _ends_by_itself(one):
                continue
            if (instead := ask(one)) is not None:
                stage.answer(one, instead)
                stage.sources[name] += 1
                return True
    timers = [one for one in waiting if one.deadline_us is not None and one.kind != "step"]
    if not timers:
        return False
    first = min(timers, key=lambda one: one.deadline_us or 0)
    stage.record(ev.TimerFired(max(stage.now_us, first.deadline_us or 0), first.id))
    stage.sources["clock"] += 1
    return True


def _waits(waiting: Iterable[Waiting]) -> str:
    said = ", ".join(f"{one.describe()} (id {one.id}, line {one.line})" for one in waiting)
    return f"no outcome is known for {said}" if said else "nothing waits for anything"
