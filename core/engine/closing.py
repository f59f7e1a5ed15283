"""How a run ends: the closing event, what becomes of its children and timers, and who is told.

Two ways lead here: the workflow's code ended (its outcome is known, its open children wait in the interpreter), or the
run is ended by force (terminated, out of time), for which no code is needed: what is open is read from the history.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from dalsegno.core.engine.ending import Ended
from dalsegno.core.engine.live import Activation, LiveRun
from dalsegno.core.engine.surroundings import RUN_DEADLINE, Surroundings
from dalsegno.core.errors import DecodeError, StoreDamaged, Terminated, TimedOut
from dalsegno.core.events import (
    ChildCompleted,
    ChildFailed,
    ChildStarted,
    Event,
    RunCancelled,
    RunCompleted,
    RunContinued,
    RunFailed,
    RunStarted,
    RunTerminated,
    RunTimedOut,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    TimerCancelled,
    TimerFired,
    TimerSet,
)
from dalsegno.core.history import decode_event, encode_event
from dalsegno.core.interpreter import CancelledOut, Continued, Finished, Raised
from dalsegno.core.store import Backend, Message, Status


@attrs.define
class Remains:
    """What is open in a history: child ids with their policies, and timers."""

    children: dict[str, tuple[str, str]] = attrs.field(factory=dict)
    timers: dict[str, int] = attrs.field(factory=dict)


def remains(events: Iterable[Event]) -> Remains:
    """What a history leaves open, told from its events alone."""
    left = Remains()
    for event in events:
        match event:
            case RunStarted(deadline_us=int(deadline_us)):
                left.timers[RUN_DEADLINE] = deadline_us
            case ChildStarted():
                left.children[event.id] = (event.workflow_id, event.on_parent_close)
            case ChildCompleted() | ChildFailed():
                left.children.pop(event.id, None)
            case TimerSet():
                left.timers[f"t:{event.id}"] = event.deadline_us
            case TimerFired() | TimerCancelled():
                left.timers.pop(f"t:{event.id}", None)
            case StepAttemptFailed():
                left.timers[f"r:{event.id}"] = event.retry_at_us
            case StepCompleted() | StepFailed():
                left.timers.pop(f"r:{event.id}", None)
    return left


def readable(stored: Iterable[bytes]) -> Iterator[Event]:
    """The events of a history that can be read, passing over those that cannot: a run may have to be ended or set
    aside just because of them."""
    for data in stored:
        try:
            yield decode_event(data)
        except DecodeError:
            continue


def undamaged(backend: Backend, run: int) -> tuple[int, list[bytes]]:
    """How long a history is, and the records in it that carry their checksums: a damaged one may be why it is read."""
    try:
        stored = backend.history(run)
        return len(stored), stored
    except StoreDamaged:
        head, stored = backend.head(run), []
    for at in range(head):
        try:
            stored += backend.history(run, at, 1)
        except StoreDamaged:
            continue
    return head, stored


class Closing:
    """Writes the end of a run into its activation."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    @staticmethod
    def has_sent_to_itself(run: LiveRun, act: Activation) -> bool:
        """Whether a signal to this very run stands in the way of its end. A continued run finds it in its inbox."""
        interpreter = run.interpreter
        assert interpreter is not None
        return not isinstance(interpreter.outcome, Continued) and any(
            message.kind == "signal" and message.workflow_id == run.workflow_id for message in act.also.messages
        )

    def by_code(self, run: LiveRun, act: Activation) -> None:
        """The workflow's code has ended: record how."""
        interpreter, record = run.interpreter, run.record
        assert interpreter is not None
        assert record is not None
        now_us, outcome = self._around.clock.now_us(), interpreter.outcome
        event: Event
        match outcome:
            case Finished():
                event = RunCompleted(now_us, outcome.payload, interpreter.unread(), outcome.unawaited)
                self._close(run, act, event, Status.COMPLETED, outcome.payload, failed=False)
            case Raised():
                event = RunFailed(now_us, outcome.payload, interpreter.unread())
                self._close(run, act, event, Status.FAILED, outcome.payload, failed=True)
            case CancelledOut():
                event = RunCancelled(now_us, outcome.payload)
                self._close(run, act, event, Status.CANCELLED, outcome.payload, failed=True)
            case Continued():
                event = RunContinued(now_us, outcome.id, outcome.payload)
                self._close(run, act, event, Status.CONTINUED, None, failed=False)
                act.also.continued, _ = self._around.new_run(
                    record.workflow_id,
                    self._around.workflow(record.workflow),
                    outcome.payload,
                    owner=self._around.owner,
                    parent=record.parent,
                    tags=record.tags,
                    carried=interpreter.carried(),
                    queued=False,  # it inherits the place
                    generation=record.generation + 1,
                    origin=f"continued from {record.run_id}",
                )
        for waiting in interpreter.waiting.values():
            if waiting.deadline_us is not None:
                act.also.timers_cleared.append((waiting.deadline_us, f"t:{waiting.id}"))
            if waiting.retry_at_us is not None:
                act.also.timers_cleared.append((waiting.retry_at_us, f"r:{waiting.id}"))
            if waiting.child_id is not None:
                self._leave(act, waiting.child_id, getattr(waiting.command, "options").on_parent_close)  # noqa: B009
        if interpreter.info.deadline_us is not None:
            act.also.timers_cleared.append((interpreter.info.deadline_us, RUN_DEADLINE))

    def by_force(self, run: LiveRun, act: Activation, ended: Ended) -> None:
        """The run is ended from outside its code, which need not even be known here."""
        now_us = self._around.clock.now_us()
        run.head, stored = undamaged(self._around.backend, run.number)
        act.also.messages = [message for message in act.also.messages if message.workflow_id != run.workflow_id]
        while rest := self._around.backend.inbox(run.number, run.seen):  # nobody will ask for these any more
            act.also.consumed.extend(message.seq for message in rest)
            run.seen = rest[-1].seq
        left = remains(readable([*stored, *act.events]))
        if ended.status is Status.TERMINATED:
            error: Exception = Terminated(f"terminated: {ended.reason}" if ended.reason else "terminated")
            event: Event = RunTerminated(now_us, ended.reason)
        else:
            error = TimedOut("the run took longer than its timeout", deadline_us=ended.deadline_us)
            event = RunTimedOut(now_us, ended.deadline_us)
        told = self._around.codec.encode_error(error)
        self._close(run, act, event, ended.status, told, failed=True)
        for key, deadline_us in left.timers.items():
            act.also.timers_cleared.append((deadline_us, key))
        for child, policy in left.children.values():
            self._leave(act, child, policy)

    def set_aside(self, run: LiveRun, act: Activation, reason: str) -> None:
        """The run cannot go on with this code: record that and why, and what has happened so far. Its timers leave the
        store until it is mended, so that they do not knock in vain."""
        run.head, stored = undamaged(self._around.backend, run.number)
        act.bodies.clear()
        act.also.checkpoints.clear()
        act.also.status, act.also.reason, act.urgent = Status.BLOCKED, reason, True
        act.also.timers_set.clear()
        left = remains(readable([*stored, *act.events]))
        act.also.timers_cleared.extend((deadline_us, key) for key, deadline_us in left.timers.items())

    def _close(
        self, run: LiveRun, act: Activation, event: Event, status: Status, payload: bytes | None, *, failed: bool
    ) -> None:
        record = run.record
        assert record is not None
        act.events.append(encode_event(event))
        also = act.also
        also.status, also.closed_at_us, act.urgent = status, event.at_us, True
        if run.paused or record.reason or also.reason:
            also.reason = ""  # why it was paused or blocked is over
        act.bodies.clear()
        for job in list(run.running.values()):
            if job.cancel is not None:
                job.cancel()
        run.running.clear()  # bodies that still run learn it from `step_context().cancelled`
        if record.parent and payload is not None:
            parent, generation, command = record.parent
            act.also.messages.append(
                Message(
                    workflow_id=parent,
                    generation=generation,
                    kind="child",
                    name=command,
                    payload=payload,
                    failed=failed,
                )
            )

    @staticmethod
    def _leave(act: Activation, child: str, policy: str) -> None:
        """Tell an open child that its parent has ended, as its policy wants."""
        if policy != "abandon":
            kind = "terminate" if policy == "terminate" else "cancel"
            act.also.messages.append(Message(workflow_id=child, kind=kind, payload=b"the parent has ended"))  # type: ignore[arg-type]
