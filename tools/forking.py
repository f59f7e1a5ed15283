"""A new run from a prefix of another one's history, and what should have happened next.

*At event N* means, as for `step` and `debug`: the events before N are kept, and the workflow waits for what N says. The
outcome of the command that N speaks of can be replaced:

    --set result=JSON   it answered this (a step, a child, a callback, a side effect; a signal brought this payload)
    --raise Type:text   it failed so (a step, a child, a callback, a side effect, a Send)
    --skip              it is passed over: a step or child answers None, a time-out or sleep is over at once, a signal
                        never came

What is not replaced happens anew when an engine next works on the store. A fork stands beside the run it came from and
shares nothing with it (`Client.fork` and the engine's recovery do the same for a plain prefix):

    steps     those in the prefix are not run again; one that was open when the prefix ends runs from its next attempt
    timers    open ones are set anew, for the moment they were set for: one that is past fires at once
    children  one that was started and has not answered within the prefix is started again, as a child of the fork,
              unless it was the outcome of that child that was replaced
    signals   those that entered the prefix are there; what waits in the other run's inbox, or came after, is not
    sends     those in the prefix were sent, once, by the other run
    parent    a fork has none, and its end is told to nobody; tags and the deadline of the run are the same

`RunStarted.origin` remembers where it came from. Pure but for `put`, which writes one run.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any, Final, get_type_hints

import attrs

from dalsegno.core import events as ev
from dalsegno.core.errors import BadOption, DalsegnoError, RemoteError, RunConflict
from dalsegno.core.events import Event, RunStarted
from dalsegno.core.history import encode_event
from dalsegno.core.interpreter import Waiting
from dalsegno.core.store import Backend, NewRun, RunRecord
from dalsegno.core.values.codec import Codec
from dalsegno.tools.app import App
from dalsegno.tools.timeline import words


@attrs.frozen
class Instead:
    """What should have happened: `how` is "set", "raise" or "skip"; `what` the payload, or the encoded error."""

    how: str
    what: bytes = b""


@attrs.frozen(kw_only=True)
class Command:
    """The command an event answers, as far as a new outcome needs it."""

    kind: str
    id: str
    name: str
    digest: bytes
    line: int
    attempt: int
    at_us: int
    seq: int

    @property
    def mark(self) -> tuple[int, str, str, bytes, int]:
        """What every event that answers a command has in common."""
        return (self.at_us, self.id, self.name, self.digest, self.line)


_KINDS: Final[dict[type[Event], str]] = {
    ev.StepStarted: "step",
    ev.StepAttemptFailed: "step",
    ev.StepCompleted: "step",
    ev.StepFailed: "step",
    ev.SideEffectRecorded: "side effect",
    ev.ChildCompleted: "child",
    ev.ChildFailed: "child",
    ev.CallbackCompleted: "callback",
    ev.CallbackFailed: "callback",
    ev.SignalReceived: "signal",
    ev.SignalSent: "send",
    ev.SignalNotSent: "send",
    ev.TimerSet: "timer",
    ev.TimerFired: "fired",
}

Maker = Callable[[Command, bytes], list[Event]]

_OUTCOMES: Final[dict[tuple[str, str], Maker]] = {
    ("step", "set"): lambda c, value: [ev.StepCompleted(*c.mark, c.attempt, 0, value)],
    ("step", "raise"): lambda c, error: [ev.StepFailed(*c.mark, c.attempt, 0, error)],
    ("side effect", "set"): lambda c, value: [ev.SideEffectRecorded(*c.mark, value)],
    ("side effect", "raise"): lambda c, error: [ev.SideEffectRecorded(*c.mark, b"", error)],
    ("child", "set"): lambda c, value: [ev.ChildCompleted(c.at_us, c.seq, c.id, value)],
    ("child", "raise"): lambda c, error: [ev.ChildFailed(c.at_us, c.seq, c.id, error)],
    ("callback", "set"): lambda c, value: [ev.CallbackCompleted(c.at_us, c.seq, c.id, value)],
    ("callback", "raise"): lambda c, error: [ev.CallbackFailed(c.at_us, c.seq, c.id, error)],
    ("signal", "set"): lambda c, value: [ev.SignalReceived(c.at_us, c.seq, c.name, value)],
    ("signal", "skip"): lambda c, value: [],
    ("send", "raise"): lambda c, error: [ev.SignalNotSent(*c.mark, error)],
    ("fired", "skip"): lambda c, value: [ev.TimerFired(c.at_us, c.id)],
}
_ANSWER_NONE: Final = frozenset({"step", "side effect", "child", "callback"})


def forked(
    events: Sequence[Event], at: int, instead: Instead | None, codec: Codec, waiting: Waiting | None
) -> list[Event]:
    """The history of the fork: the prefix, and the replaced outcome after it. `waiting` is the command meant where `at`
    is the end of the history. Raises `BadOption` for what cannot be so."""
    most = len(events) - (events[-1].closes if events else 0)
    if not 1 <= at <= most:
        raise BadOption(f"--at {at}: this history can be forked at 1 to {most}; the events before that one are kept")
    if instead is None:
        return list(events[:at])
    next_seq = max((getattr(event, "seq", 0) for event in events), default=0) + 1
    if at < len(events):
        command, event = _command_of(events[at], next_seq, at), events[at]
        if isinstance(event, ev.TimerSet) and event.kind == "step":
            command = attrs.evolve(command, kind="step")  # it bounds all of a step, which can have any outcome
        elif isinstance(event, ev.TimerSet) and instead.how == "skip":
            return [*events[:at], attrs.evolve(event, deadline_us=event.at_us), ev.TimerFired(event.at_us, event.id)]
    elif waiting is not None:
        command = _command_waiting(waiting, next_seq, max(event.at_us for event in events))
        if waiting.deadline_us is not None and waiting.kind != "step" and instead.how == "skip":
            return [*events, ev.TimerFired(command.at_us, waiting.id)]
    else:
        raise BadOption(
            f"--at {at} is the end of this history; to say what happens there, say with --app whose code waits"
        )
    return [*events[:at], *_outcome(command, instead, codec, at)]


def _outcome(command: Command, instead: Instead, codec: Codec, at: int) -> list[Event]:
    how, value = instead.how, instead.what
    if how == "skip" and command.kind in _ANSWER_NONE:
        how, value = "set", codec.encode(None)
    make = _OUTCOMES.get((command.kind, how))
    if make is None:
        can = sorted({f"--{way}" for kind, way in _OUTCOMES if kind == command.kind})
        named = f"a {command.kind} {command.name!r}" if command.name else f"a {command.kind}"
        what = "the deadline passed" if command.kind == "fired" else named
        raise BadOption(
            f"--{how} does not fit event {at}: there {what}, for which there is {' or '.join(can) or 'none'}"
        )
    return make(command, value)


def _command_of(event: Event, seq: int, at: int) -> Command:
    kind = _KINDS.get(type(event))
    if kind is None:
        raise BadOption(
            f"event {at} is {words(type(event).__name__)!r}, which no outcome can replace; name the event with the "
            "outcome of a step, child, callback, side effect, timer or signal, or leave out --set, --raise and --skip"
        )
    return Command(
        kind=kind,
        id=getattr(event, "id", ""),
        name=getattr(event, "name", ""),
        digest=getattr(event, "digest", b""),
        line=getattr(event, "line", 0),
        attempt=getattr(event, "attempt", 1),
        at_us=event.at_us,
        seq=getattr(event, "seq", seq),
    )


def _command_waiting(waiting: Waiting, seq: int, at_us: int) -> Command:
    return Command(
        kind="signal" if waiting.kind == "receive" else waiting.kind,
        id=waiting.id,
        name=waiting.name,
        digest=waiting.digest,
        line=waiting.line,
        attempt=waiting.attempt + 1,
        at_us=at_us,
        seq=seq,
    )


def the_one_waiting(waiting: Sequence[Waiting], wanted: str | None) -> Waiting:
    """What waits at the end of a history: the command with the id that is wanted, or the only one."""
    found = [one for one in waiting if wanted in (None, one.id)]
    if len(found) != 1:
        there = ", ".join(f"{one.id} ({one.describe()})" for one in waiting) or "nothing"
        raise BadOption(f"which command is meant? What waits there is {there}; say --command ID")
    return found[0]


# --- values and errors out of words ----------------------------------------------------------------------------------


def value_payload(value: object, name: str, app: App | None, codec: Codec) -> bytes:
    """JSON as the payload of an outcome: made into what the step or workflow of this name says it returns, where the
    app is known; else as plain data."""
    definition = None if app is None else app.steps.get(name) or app.workflows.get(name)
    if definition is None:
        return codec.encode(value)
    try:
        hint = get_type_hints(definition.fn).get("return", Any)
    except Exception:  # an annotation that names what is not there
        hint = Any
    if name in (app.workflows if app else ()):
        hint = (getattr(hint, "__args__", None) or (Any,))[-1]
    return codec.encode(codec.structure(value, hint))


def error_payload(said: str, app: App | None, codec: Codec) -> bytes:
    """`Type:message` as an encoded error: a built-in type, or one that the app's modules know by this name."""
    kind, _, message = said.partition(":")
    found = getattr(builtins, kind, None)
    for definition in app.definitions if app is not None else ():
        found = found or definition.fn.__globals__.get(kind)
    if isinstance(found, type) and issubclass(found, Exception):
        try:
            return codec.encode_error(found(message.strip()))
        except (TypeError, DalsegnoError):  # a constructor that wants something else
            pass
    if not kind.replace(".", "").isidentifier():
        raise BadOption(f"--raise {said!r}: write Type:message, as in --raise 'ValueError:no such order'")
    return codec.encode_error(RemoteError(f"{kind}: {message.strip()}", type_name=kind, details={}, traceback_text=""))


# --- writing ---------------------------------------------------------------------------------------------------------


def put(store: Backend, record: RunRecord, events: Sequence[Event], at: int, new_id: str, now_us: int) -> RunRecord:
    """Create the fork. Raises `RunConflict` when the id is taken."""
    started = events[0]
    assert isinstance(started, RunStarted)
    origin = f"forked from {record.run_id} at {at}"
    first = attrs.evolve(started, workflow_id=new_id, generation=1, parent=(), origin=origin)
    new = NewRun(
        workflow_id=new_id,
        workflow=record.workflow,
        events=tuple(encode_event(event) for event in (first, *events[1:])),
        created_at_us=now_us,
        digest=record.digest,
        tags=record.tags,
        restore=True,
        on_conflict="reject",
        messages_above=max((getattr(event, "seq", 0) for event in events), default=0),
    )
    created = store.create([new])[0]
    if not created.new:
        raise RunConflict(f"the id {new_id!r} is taken; choose another with --id", workflow_id=new_id)
    return created.record
