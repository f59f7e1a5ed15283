"""A toy engine: answers what an interpreter asks for, in virtual time, and keeps the history.

Steps run as soon as they are asked for, unless they are named in `by_hand`: then the test says how and when they end.
After every event the state is noted, so that `check()` can compare each prefix of the history, replayed by a fresh
interpreter, with what the live one waited for at that moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.events import (
    CallbackCompleted,
    CallbackFailed,
    CancelRequested,
    CarriedSignal,
    CheckpointTaken,
    ChildCompleted,
    ChildFailed,
    ChildStarted,
    Event,
    PatchAdopted,
    RaceDecided,
    RunCancelled,
    RunCompleted,
    RunContinued,
    RunFailed,
    RunStarted,
    ScopeCompleted,
    SideEffectRecorded,
    SignalNotSent,
    SignalReceived,
    SignalSent,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    StepStarted,
    TimerCancelled,
    TimerFired,
    TimerSet,
)
from dalsegno.core.interpreter import CancelledOut, Continued, Finished, Interpreter, Raised, Waiting
from dalsegno.core.values.codec import Codec

SECOND = 1_000_000
START_US = 1_700_000_000 * SECOND
CODEC = Codec()


def started(
    definition: WorkflowDefinition[Any, Any], *args: Any, carried: tuple[CarriedSignal, ...] = (), **kwargs: Any
) -> RunStarted:
    """The first event of a run."""
    arguments = CODEC.encode_call(args, kwargs)
    return RunStarted(START_US, definition.name, "order-17", 1, arguments, b"seed", carried=carried)


def note(interpreter: Interpreter) -> Any:
    """What an interpreter waits for and how it ended: everything an engine would act on."""
    waiting = [(w.id, w.kind, w.name, w.digest, w.payload, w.line) for w in interpreter.waiting.values()]
    marks = [
        (w.attempt, w.started, w.retry_at_us, w.deadline_us, w.child_id, w.withdrawn)
        for w in interpreter.waiting.values()
    ]
    outcome: Any = interpreter.outcome
    if isinstance(outcome, Raised | CancelledOut):  # without addresses, as in "<lock object at 0x7f…>"
        outcome = re.sub("0x[0-9a-f]+", "0x", str(CODEC.to_json(outcome.payload)))
    ended = (outcome, interpreter.closed, interpreter.cancel_requested)
    return waiting, marks, ended, interpreter.unread(), interpreter.carried(), interpreter.now_us, interpreter.count


ALIVE: list[Interpreter] = []
"""Interpreters to be put away after the test, since dropping a generator inside `try` runs its clean-up."""


def fresh(definition: WorkflowDefinition[Any, Any], codec: Codec = CODEC) -> Interpreter:
    """An interpreter that is put away after the test."""
    interpreter = Interpreter(definition, codec)
    ALIVE.append(interpreter)
    return interpreter


class Drive:
    """One run of a workflow under the toy engine."""

    def __init__(
        self,
        definition: WorkflowDefinition[Any, Any],
        *args: Any,
        by_hand: Iterable[str] = (),
        unreachable: Iterable[str] = (),
        carried: tuple[CarriedSignal, ...] = (),
        codec: Codec = CODEC,
    ) -> None:
        self.definition = definition
        self.codec = codec
        self.by_hand = set(by_hand)
        self.unreachable = set(unreachable)
        self.events: list[Event] = [started(definition, *args, carried=carried)]
        self.now_us = START_US
        self.seq = 100
        self.state: dict[str, Any] = {}
        self.ran: list[str] = []
        self.withdrawn: list[str] = []
        self.interpreter = self.fresh(definition)
        self.notes: list[Any] = []
        self.interpreter.replay(self.events)
        self.notes.append(note(self.interpreter))
        self.settle()

    # --- recording -------------------------------------------------------------------------------------------------

    def record(self, event: Event) -> None:
        """Fold one event, and note where that leads."""
        self.events.append(event)
        self.interpreter.apply(event)
        self.notes.append(note(self.interpreter))

    def settle(self) -> Drive:
        """Answer everything that can be answered, until nothing new is asked for."""
        asked: list[Waiting] = []
        while True:
            advance = self.interpreter.take()
            for key, value in advance.published.items():
                self.state[key] = self.codec.decode(value)
            for given in advance.withdrawn:
                self.withdrawn.append(given.id)
                if given.deadline_us is not None:
                    self.record(TimerCancelled(self.now_us, given.id))
            asked = sorted([*asked, *advance.issued], key=lambda waiting: waiting.kind != "patched")
            if not asked and not advance.withdrawn:
                break
            waiting = asked.pop(0) if asked else None
            if waiting and self.interpreter.waiting.get(waiting.id) is waiting and self.interpreter.outcome is None:
                self.answer(waiting)
        if self.interpreter.outcome is not None and not self.interpreter.closed:
            self.close()
        return self

    def answer(self, w: Waiting) -> None:
        """Answer one command, if that can be done at once."""
        command: Any = w.command
        mark = (self.now_us, w.id, w.name, w.digest, w.line)
        match w.kind:
            case "step" if w.name not in self.by_hand:
                self.run_step(w)
            case "sleep":
                self.set_timer(w, self.now_us + round(command.duration * SECOND))
            case "sleep until":
                self.set_timer(w, round(command.moment.timestamp() * SECOND))
            case "receive" if command.timeout is not None:
                self.set_timer(w, self.now_us + round(command.timeout * SECOND))
            case "side effect":
                result, error = self.attempt(command.fn)
                self.record(SideEffectRecorded(*mark, result, error))
            case "send" if command.workflow_id in self.unreachable:
                error = self.codec.encode_error(LookupError(command.workflow_id))
                self.record(SignalNotSent(*mark, error))
            case "send":
                self.record(SignalSent(*mark, command.workflow_id))
            case "child":
                self.record(ChildStarted(*mark, f"child-{w.id}"))
            case "race":
                self.record(RaceDecided(*mark, w.winner))
            case "scope":
                self.record(ScopeCompleted(self.now_us, w.id, w.line, w.result, w.error, w.consumed))
            case "checkpoint":
                self.record(CheckpointTaken(self.now_us, w.id, w.line))
            case "patched":
                self.record(PatchAdopted(self.now_us, w.name))
            case _:
                pass

    def attempt(self, fn: Any, *args: Any, **kwargs: Any) -> tuple[bytes, bytes]:
        """Encoded result and error of a call."""
        try:
            return self.codec.encode(fn(*args, **kwargs)), b""
        except Exception as error:
            return b"", self.codec.encode_error(error)

    def run_step(self, w: Waiting) -> None:
        """Run a step's body and record its outcome."""
        args, kwargs = self.codec.decode_call(w.payload)
        command: Any = w.command
        self.ran.append(w.name)
        result, error = self.attempt(command.fn, *args, **kwargs)
        mark = (self.now_us, w.id, w.name, w.digest, w.line, w.attempt + 1, 5)
        self.record(StepFailed(*mark, error) if error else StepCompleted(*mark, result))

    def set_timer(self, w: Waiting, deadline_us: int) -> None:
        """Record a deadline."""
        self.record(TimerSet(self.now_us, w.id, w.kind, w.name, w.digest, w.line, deadline_us))

    def close(self) -> None:
        """Record how the run ended."""
        match self.interpreter.outcome:
            case Finished() as end:
                self.record(RunCompleted(self.now_us, end.payload, self.interpreter.unread(), end.unawaited))
            case CancelledOut() as end:
                self.record(RunCancelled(self.now_us, end.payload))
            case Continued() as end:
                self.record(RunContinued(self.now_us, end.id, end.payload))
            case Raised() as end:
                self.record(RunFailed(self.now_us, end.payload, self.interpreter.unread()))

    # --- what tests do ---------------------------------------------------------------------------------------------

    def open(self, id: str) -> Waiting:
        """The command that waits under this id."""
        return self.interpreter.waiting[id]

    @property
    def ids(self) -> list[str]:
        """What waits, by id."""
        return list(self.interpreter.waiting)

    def complete(self, id: str, value: Any = None) -> Drive:
        """Let a step return."""
        w = self.open(id)
        mark = (self.now_us, w.id, w.name, w.digest, w.line, w.attempt + 1, 5)
        self.record(StepCompleted(*mark, self.codec.encode(value)))
        return self.settle()

    def fail(self, id: str, error: BaseException) -> Drive:
        """Let a step fail for good."""
        w = self.open(id)
        mark = (self.now_us, w.id, w.name, w.digest, w.line, w.attempt + 1, 5)
        self.record(StepFailed(*mark, self.codec.encode_error(error)))
        return self.settle()

    def start_step(self, id: str) -> Drive:
        """Note the start of a step that runs at most once."""
        w = self.open(id)
        self.record(StepStarted(self.now_us, w.id, w.name, w.digest, w.line, w.attempt + 1))
        return self.settle()

    def fail_attempt(self, id: str, error: BaseException, retry_in_s: float = 1) -> Drive:
        """Let one attempt of a step fail."""
        w = self.open(id)
        mark = (self.now_us, w.id, w.name, w.digest, w.line, w.attempt + 1, 5)
        retry_at_us = self.now_us + round(retry_in_s * SECOND)
        self.record(StepAttemptFailed(*mark, self.codec.encode_error(error), retry_at_us))
        return self.settle()

    def pass_time(self, seconds: float = 0) -> Drive:
        """Let time pass, or go on to the next deadline; timers fire in the order of their deadlines."""
        until = self.now_us + round(seconds * SECOND) if seconds else None
        while True:
            timers = [w for w in self.interpreter.waiting.values() if w.deadline_us is not None]
            due = min(timers, key=lambda w: w.deadline_us or 0, default=None)
            if due is None or due.deadline_us is None or (until is not None and due.deadline_us > until):
                break
            self.now_us = max(self.now_us, due.deadline_us)
            self.record(TimerFired(self.now_us, due.id))
            self.settle()
            if until is None:
                break
        self.now_us = max(self.now_us, until or 0)
        return self

    def signal(self, name: str, payload: Any = None) -> Drive:
        """Deliver a signal."""
        self.seq += 1
        self.record(SignalReceived(self.now_us, self.seq, name, self.codec.encode(payload)))
        return self.settle()

    def cancel(self, reason: str = "enough") -> Drive:
        """Ask the run to end itself."""
        self.record(CancelRequested(self.now_us, reason))
        return self.settle()

    def child_returns(self, id: str, value: Any = None) -> Drive:
        """Let a child return."""
        self.seq += 1
        self.record(ChildCompleted(self.now_us, self.seq, id, self.codec.encode(value)))
        return self.settle()

    def child_fails(self, id: str, error: BaseException) -> Drive:
        """Let a child fail."""
        self.seq += 1
        self.record(ChildFailed(self.now_us, self.seq, id, self.codec.encode_error(error)))
        return self.settle()

    def complete_callback(self, token: str, value: Any = None) -> Drive:
        """Keep a promise from outside."""
        self.seq += 1
        id = self.interpreter.check_token(token)
        self.record(CallbackCompleted(self.now_us, self.seq, id, self.codec.encode(value)))
        return self.settle()

    def fail_callback(self, token: str, error: BaseException) -> Drive:
        """Report from outside that a promise cannot be kept."""
        self.seq += 1
        id = self.interpreter.check_token(token)
        self.record(CallbackFailed(self.now_us, self.seq, id, self.codec.encode_error(error)))
        return self.settle()

    # --- what tests ask --------------------------------------------------------------------------------------------

    def result(self) -> Any:
        """The value the workflow returned, or raise what it raised, after comparing every replay with the run."""
        self.check()
        match self.interpreter.outcome:
            case Finished(payload):
                return self.codec.decode(payload)
            case Raised(payload) | CancelledOut(payload):
                raise self.codec.decode_error(payload)
            case Continued(payload):
                return self.codec.decode_call(payload)
            case None:
                raise AssertionError(f"the run still waits for {list(self.interpreter.waiting.values())}")

    def check(self) -> Drive:
        """Every prefix of the history, replayed, waits for what the live run waited for after it; scopes or none."""
        for length, noted in enumerate(self.notes, 1):
            for skip_scopes in (True, False):
                again = self.fresh(self.definition)
                again.replay(self.events[:length], skip_scopes=skip_scopes)
                assert note(again) == noted, f"prefix of {length}, skip_scopes={skip_scopes}"
        return self

    def replay(self, definition: WorkflowDefinition[Any, Any] | None = None) -> Interpreter:
        """A fresh interpreter that has replayed the history, with other code if that is given."""
        again = self.fresh(definition or self.definition)
        again.replay(self.events)
        return again

    def fresh(self, definition: WorkflowDefinition[Any, Any]) -> Interpreter:
        """An interpreter that is put away after the test."""
        return fresh(definition, self.codec)
