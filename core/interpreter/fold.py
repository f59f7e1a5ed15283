"""Folding events: what each does to the machine. A table of handlers by class.

Every event that carries an id is compared with the command that waits under it before it has any effect: same kind,
same name, same digest of the arguments. What does not fit raises `HistoryMismatch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from dalsegno.core.commands import RunStep
from dalsegno.core.errors import DecodeError, EncodeError
from dalsegno.core.events import (
    CallbackCompleted,
    CallbackFailed,
    CancelRequested,
    CarriedSignal,
    CheckpointTaken,
    ChildCompleted,
    ChildFailed,
    ChildNotStarted,
    ChildStarted,
    Event,
    PatchAdopted,
    RaceDecided,
    RunCancelled,
    RunCompleted,
    RunContinued,
    RunFailed,
    RunPaused,
    RunResumed,
    RunStarted,
    RunTerminated,
    RunTimedOut,
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
from dalsegno.core.interpreter.answers import ANSWERS
from dalsegno.core.interpreter.asked import CancelledOut, Continued, Finished, Raised, Waiting
from dalsegno.core.interpreter.fiber import NOTHING, Fiber, failure_of
from dalsegno.core.interpreter.issue import promised
from dalsegno.core.interpreter.machine import Machine
from dalsegno.core.interpreter.mismatch import describe_call, describe_waiting, mismatch
from dalsegno.core.interpreter.sparse import owned

Handler = Callable[[Machine, Any], None]

BESIDE_CODE = (RunPaused, RunResumed, RunTerminated, RunTimedOut, PatchAdopted, TimerCancelled)
"""Events that do not show that the code went on from the event before: it may still adopt another change there."""


def fold(machine: Machine, event: Event) -> None:
    """Fold one event, and let the fibers it frees go on until all wait."""
    machine.count += 1
    if event.at_us > machine.now_us:
        machine.now_us = event.at_us
    if machine.closed:
        raise mismatch(machine, event, "the history goes on after the event that closed it")
    if machine.finished_scopes and is_inside(getattr(event, "id", ""), machine.finished_scopes):
        if type(event) in (CallbackCompleted, CallbackFailed):
            _promise_kept(machine, event)
        return
    handler = HANDLERS.get(type(event))
    if handler is None:
        raise mismatch(machine, event, f"{type(event).__name__} is not an event that can be replayed")
    if machine.info is None and type(event) is not RunStarted:
        raise mismatch(machine, event, "a history begins with RunStarted")
    handler(machine, event)
    if machine.queue:
        machine.run()


def is_inside(id: str, scopes: frozenset[str]) -> bool:
    """Whether an id lies inside one of these scopes.

    >>> is_inside("3.1.2", frozenset({"3"})), is_inside("3", frozenset({"3"}))
    (True, False)
    """
    dot = id.find(".")
    while dot > 0:
        if id[:dot] in scopes:
            return True
        dot = id.find(".", dot + 1)
    return False


# --- the common case -----------------------------------------------------------------------------------------------


def streak(machine: Machine, events: Sequence[Event], index: int, end: int) -> int:
    """Fold `StepCompleted` events for as long as each answers what the same fiber has just yielded; return where it
    stopped, which is `index` itself when the general way has to be taken.

    This is `fold` for the case that most histories are made of, without queue, table and bookkeeping: a command that is
    answered by the very next event is never put down as waiting.
    """
    start, event = index, cast(Any, events[index])
    waiting = machine.waiting.get(event.id)
    if waiting is None or waiting.kind != "step" or type(waiting.owner) is not Fiber or machine.closed:
        return index
    if waiting.name != event.name or waiting.digest != event.digest or waiting.deadline_us is not None:
        return index
    fiber, codec = waiting.owner, machine.codec
    decode, encode_call, digest = codec.decode, machine.bare.encode_call, codec.digest
    send, prefix, ordinal, now_us = fiber.send, fiber.prefix, fiber.ordinal, machine.now_us
    del machine.waiting[event.id]
    fiber.node = None
    ended = ok = False
    command: Any = NOTHING
    fiber.running = True
    while True:
        index += 1
        if event.at_us > now_us:
            now_us = event.at_us
        try:
            value = decode(event.result)
        except DecodeError as error:
            at = machine.count + index - start - 1
            error.add_note(f"the result of step {event.name!r} (id {event.id}), event {at}")
            raise
        try:
            command = send(value)
        except StopIteration as stop:
            ended, ok, value = True, True, stop.value
            break
        except BaseException as error:
            ended, value = True, failure_of(error)
            break
        if index == end or type(command) is not RunStep:
            break
        event = events[index]
        if type(event) is not StepCompleted or event.name != command.step or event.id != f"{prefix}{ordinal + 1}":
            break
        try:
            if digest(encode_call(command.args, command.kwargs)) != event.digest:  # type: ignore[arg-type]  # a dict
                break
        except EncodeError:
            break
        ordinal += 1
    machine.count += index - start
    machine.now_us, fiber.ordinal = now_us, ordinal
    if ended:
        fiber.finish(ok, value)
    elif type(command) is not RunStep or fiber.pending or not _ask(machine, fiber, command):
        fiber.advance(command)
    if machine.queue:
        machine.run()
    return index


def _ask(machine: Machine, fiber: Fiber, command: RunStep[Any]) -> bool:
    """Let a fiber wait for a step, as its starter would; false if the general way has something to say about it."""
    try:
        payload, digest = machine.call(command)
    except EncodeError:
        return False
    fiber.ordinal += 1
    fiber.started, fiber.running = True, False
    machine.ask(fiber, command, f"{fiber.prefix}{fiber.ordinal}", "step", command.step, digest, payload)
    return True


# --- comparing -----------------------------------------------------------------------------------------------------


def find(machine: Machine, event: Any) -> Waiting:
    """The command an event answers, after comparing all that was recorded of it."""
    waiting = machine.waiting.get(event.id)
    if waiting is None:
        what = "the code had ended" if machine.outcome is not None else f"no command {event.id} is open"
        raise mismatch(machine, event, what)
    kinds = ANSWERS[type(event)].kinds
    if waiting.kind not in kinds or getattr(event, "kind", waiting.kind) != waiting.kind:
        raise mismatch(machine, event, "kind", describe_waiting(waiting), waiting)
    digest: bytes | None = getattr(event, "digest", None)
    if digest is not None:
        if event.name != waiting.name:
            raise mismatch(machine, event, "name", describe_waiting(waiting), waiting)
        if digest != waiting.digest:
            differ(machine, event, "arguments", describe_call(waiting), waiting)
    return waiting


def differ(machine: Machine, event: Event, what: str, yielded: str, waiting: Waiting | None = None) -> None:
    """Values differ: a mismatch, a warning or nothing, as the workflow's options say."""
    policy = machine.definition.workflow_options.arguments
    if policy == "ignore":
        return
    error = mismatch(machine, event, what, yielded, waiting)
    if policy == "strict":
        raise error
    machine.warnings = [*machine.warnings, str(error)]


def end_wait(machine: Machine, waiting: Waiting) -> Waiting:
    """Take a command out of those that wait."""
    del machine.waiting[waiting.id]
    if waiting.kind == "receive":
        del machine.receivers[waiting.name][waiting.id]
    elif waiting.deadline_us is not None and waiting.kind == "step":
        machine.give_back(waiting)
    return waiting


def give(machine: Machine, event: Any, payload: bytes, waiting: Waiting) -> None:
    """Answer a command with a recorded value."""
    try:
        value = machine.codec.decode(payload)
    except DecodeError as error:
        error.add_note(f"the answer to {waiting.describe()} (id {waiting.id}), event {machine.count - 1}")
        raise
    end_wait(machine, waiting).owner.settle(True, value)


def fail(machine: Machine, event: Any, waiting: Waiting) -> None:
    """Answer a command with a recorded error."""
    error = machine.error(event.error, f"{waiting.describe()} (id {waiting.id})")
    end_wait(machine, waiting).owner.settle(False, error)


# --- the run -------------------------------------------------------------------------------------------------------


def _run_started(machine: Machine, event: RunStarted) -> None:
    if machine.info is not None:
        raise mismatch(machine, event, "a history has one RunStarted, as its first event")
    machine.info = event
    for signal in event.carried:
        machine.receive(signal)
    args, kwargs = machine.codec.decode_call(event.arguments)
    try:
        generator = machine.definition.fn(*args, **kwargs)
    except Exception as error:  # the arguments do not fit the function
        machine.root.settle(False, error)
    else:
        machine.root.begin(generator)


def _run_completed(machine: Machine, event: RunCompleted) -> None:
    outcome = machine.outcome
    if not isinstance(outcome, Finished):
        raise mismatch(machine, event, "how the code ends")
    if not machine.same_value(event.result, outcome.payload):
        differ(machine, event, "the value returned", f"returned {machine.codec.decode(outcome.payload)!r:.120}")
    machine.closed = True


def _run_failed(machine: Machine, event: Event) -> None:
    if not isinstance(machine.outcome, CancelledOut if isinstance(event, RunCancelled) else Raised):
        raise mismatch(machine, event, "how the code ends")
    machine.closed = True


def _run_continued(machine: Machine, event: RunContinued) -> None:
    outcome = machine.outcome
    if not isinstance(outcome, Continued) or outcome.id != event.id:
        raise mismatch(machine, event, "how the code ends")
    if not machine.same_value(event.arguments, outcome.payload):
        args, kwargs = machine.codec.decode_call(outcome.payload)
        differ(machine, event, "arguments", f"continue as new (id {outcome.id}) with {args!r:.100} {kwargs!r:.100}")
    machine.closed = True


def _run_ended_from_outside(machine: Machine, event: Event) -> None:
    machine.queue.clear()
    machine.closed = True


def _cancel_requested(machine: Machine, event: CancelRequested) -> None:
    if not machine.cancel_requested and machine.outcome is None:
        machine.cancel_requested = True
        machine.root.cancel(event.reason)
    machine.cancel_requested = True


def _nothing(machine: Machine, event: Event) -> None:
    """Pausing is the engine's affair."""


# --- steps ---------------------------------------------------------------------------------------------------------


def _step_started(machine: Machine, event: StepStarted) -> None:
    waiting = find(machine, event)
    waiting.attempt, waiting.started, waiting.retry_at_us = event.attempt, True, None


def _step_attempt_failed(machine: Machine, event: StepAttemptFailed) -> None:
    waiting = find(machine, event)
    waiting.attempt, waiting.started, waiting.retry_at_us = event.attempt, False, event.retry_at_us


def _result(machine: Machine, event: Any) -> None:
    give(machine, event, event.result, find(machine, event))


def _error(machine: Machine, event: Any) -> None:
    fail(machine, event, find(machine, event))


def _nothing_returned(machine: Machine, event: Any) -> None:
    end_wait(machine, find(machine, event)).owner.settle(True, None)


# --- timers --------------------------------------------------------------------------------------------------------


def _timer_set(machine: Machine, event: TimerSet) -> None:
    find(machine, event).deadline_us = event.deadline_us


def _timer_fired(machine: Machine, event: TimerFired) -> None:
    waiting = find(machine, event)
    if waiting.deadline_us is None:
        raise mismatch(machine, event, "no timer was set for it", describe_waiting(waiting), waiting)
    waiting.deadline_us = None
    end_wait(machine, waiting)
    if waiting.kind in ("receive", "step"):
        waiting.owner.settle(False, machine.timed_out(waiting))
    else:
        waiting.owner.settle(True, None)


def _timer_cancelled(machine: Machine, event: TimerCancelled) -> None:
    if owned(machine.timers).pop(event.id, None) is None:
        waiting = machine.waiting.get(event.id)
        raise mismatch(machine, event, "its command still waits" if waiting else "no timer was set for it")


# --- messages ------------------------------------------------------------------------------------------------------


def _signal_received(machine: Machine, event: SignalReceived) -> None:
    machine.receive(CarriedSignal(seq=event.seq, name=event.name, payload=event.payload))


def _promise_kept(machine: Machine, event: Any) -> None:
    machine.promises = promises = owned(machine.promises)
    promises.setdefault(event.id, event)
    group = owned(machine.awaiting).pop(event.id, None)
    if group is None or group.waiting is None:
        return
    waiting = end_wait(machine, group.waiting)
    command: Any = waiting.command
    group.tell(lambda: promised(machine, event.id, command))


# --- children ------------------------------------------------------------------------------------------------------


def _child_started(machine: Machine, event: ChildStarted) -> None:
    find(machine, event).child_id = event.workflow_id
    machine.root.conclude()  # what it belongs to may have returned, and only have had it started


def _child_ended(machine: Machine, event: Any) -> None:
    waiting = machine.waiting.get(event.id)
    if waiting is None or waiting.kind != "child":
        return  # nobody waits for it any more
    if isinstance(event, ChildCompleted):
        give(machine, event, event.result, waiting)
    else:
        fail(machine, event, waiting)


# --- decisions and marks -------------------------------------------------------------------------------------------


def _side_effect_recorded(machine: Machine, event: SideEffectRecorded) -> None:
    waiting = find(machine, event)
    if event.error:
        fail(machine, event, waiting)
    else:
        give(machine, event, event.result, waiting)


def _race_decided(machine: Machine, event: RaceDecided) -> None:
    waiting = find(machine, event)
    if not waiting.node.has_ended(event.winner):
        what = f"branch {event.winner} won, and has not ended now"
        raise mismatch(machine, event, what, describe_waiting(waiting), waiting)
    end_wait(machine, waiting).node.decide(event.winner)


def _scope_completed(machine: Machine, event: ScopeCompleted) -> None:
    waiting = find(machine, event)
    node = waiting.node
    if node.over and (bool(event.error) != bool(waiting.error) or not machine.same_value(event.result, waiting.result)):
        differ(machine, event, "how the scope ended", describe_waiting(waiting), waiting)
    end_wait(machine, waiting)
    node.completed(event.result, event.error, event.consumed)


def _patch_adopted(machine: Machine, event: PatchAdopted) -> None:
    machine.changes = changes = owned(machine.changes)
    changes[event.change] = True
    group = owned(machine.askers).pop(event.change, None)
    if group is not None:
        assert group.waiting is not None
        end_wait(machine, group.waiting)
        group.tell(lambda: (True, True))


HANDLERS: Mapping[type[Event], Handler] = {
    RunStarted: _run_started,
    RunCompleted: _run_completed,
    RunFailed: _run_failed,
    RunCancelled: _run_failed,
    RunTerminated: _run_ended_from_outside,
    RunTimedOut: _run_ended_from_outside,
    RunContinued: _run_continued,
    CancelRequested: _cancel_requested,
    RunPaused: _nothing,
    RunResumed: _nothing,
    StepStarted: _step_started,
    StepAttemptFailed: _step_attempt_failed,
    StepCompleted: _result,
    StepFailed: _error,
    TimerSet: _timer_set,
    TimerFired: _timer_fired,
    TimerCancelled: _timer_cancelled,
    SignalReceived: _signal_received,
    SignalSent: _nothing_returned,
    SignalNotSent: _error,
    CallbackCompleted: _promise_kept,
    CallbackFailed: _promise_kept,
    ChildStarted: _child_started,
    ChildNotStarted: _error,
    ChildCompleted: _child_ended,
    ChildFailed: _child_ended,
    SideEffectRecorded: _side_effect_recorded,
    RaceDecided: _race_decided,
    ScopeCompleted: _scope_completed,
    CheckpointTaken: _nothing_returned,
    PatchAdopted: _patch_adopted,
}
"""What an event does, by its class. Complete: a test compares it with the list of all events."""
