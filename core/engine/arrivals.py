"""What arrives for a run, turned into events: outcomes of steps, messages from the inbox, timers that came due.

Each is folded the moment it is recorded, and what the workflow asks in answer is settled before the next one, so that
a replay, which sees only the order of events, goes the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import attrs

from dalsegno.core.engine.bodies import Job, judge
from dalsegno.core.engine.ending import Ended
from dalsegno.core.engine.live import Activation, LiveRun, grown, timers_of
from dalsegno.core.engine.outcomes import unpack_outcome
from dalsegno.core.engine.requests import Requests
from dalsegno.core.engine.surroundings import RUN_DEADLINE, Surroundings
from dalsegno.core.errors import EncodeError, Permanent, TimedOut
from dalsegno.core.events import (
    CallbackCompleted,
    CallbackFailed,
    CancelRequested,
    CheckpointTaken,
    ChildCompleted,
    ChildFailed,
    Event,
    RunPaused,
    RunResumed,
    SignalReceived,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    TimerFired,
)
from dalsegno.core.history import encode_event
from dalsegno.core.interpreter import Waiting
from dalsegno.core.store import DueTimer, Status, StoredMessage


class Mail:
    """An input that says: look into the inbox."""


MAIL = Mail()


@attrs.frozen(slots=True)
class Flushed:
    """An input that says: the checkpoint a command asked for is durable."""

    id: str


class Start:
    """An input that says: nothing has arrived, but look whether something is to be done."""


START = Start()

Input = Job | DueTimer | Mail | Flushed | Start


class Arrivals:
    """Folds inputs into a run."""

    def __init__(self, around: Surroundings, requests: Requests) -> None:
        self._around, self._requests = around, requests

    def absorb(self, run: LiveRun, act: Activation, arrived: Input) -> None:
        """Record and fold one input. Raises `Ended` when it ends the run by force."""
        if type(arrived) is Job:
            self._step(run, act, arrived)
        elif type(arrived) is Mail:
            self._mail(run, act)
        elif type(arrived) is DueTimer:
            self._timer(run, act, arrived)
        elif type(arrived) is Flushed:
            interpreter = run.interpreter
            assert interpreter is not None
            waiting = interpreter.waiting.get(arrived.id)
            if waiting is not None and waiting.kind == "checkpoint":
                act.urgent = True
                if waiting.id in act.also.checkpoints:
                    act.also.checkpoints.remove(waiting.id)  # asked for again by a replay: it is answered already
                self._record(run, act, CheckpointTaken(self._now(), waiting.id, waiting.line))
                self._settle(run, act)
        else:
            self._requests.settle(run, act)

    def _fold(self, run: LiveRun, act: Activation, event: Event) -> None:
        run.happened(event)
        self._requests.settle(run, act)

    @staticmethod
    def _record(run: LiveRun, act: Activation, event: Event) -> None:
        """Record what came of something that had begun before; the code of a paused run is told when it goes on."""
        if run.paused:
            act.events.append(encode_event(event))
            run.facts = [*run.facts, event]
        else:
            run.happened(event)

    def _settle(self, run: LiveRun, act: Activation) -> None:
        if not run.paused:
            self._requests.settle(run, act)

    # --- steps -----------------------------------------------------------------------------------------------------

    def _step(self, run: LiveRun, act: Activation, job: Job) -> None:
        if run.running.get(job.id) is not job:
            return  # it was cancelled or timed out meanwhile: nobody waits for this attempt
        del run.running[job.id]
        interpreter = run.interpreter
        assert interpreter is not None
        waiting = interpreter.waiting.get(job.id)
        if waiting is None or waiting.kind != "step":
            return
        if job.transaction is not None and job.transaction.strayed is not None:
            raise job.transaction.strayed
        self._outcome(run, act, job, waiting)

    def _answered(self, run: LiveRun, act: Activation, message: StoredMessage) -> None:
        """The outcome of a step that was out at a queue, from whichever worker has run it."""
        interpreter = run.interpreter
        assert interpreter is not None
        waiting = interpreter.waiting.get(message.name)
        if waiting is None or waiting.kind != "step":
            return
        outcome = unpack_outcome(message.payload)
        if outcome.attempt != waiting.attempt + 1:
            return  # of an attempt that was given up
        self._requests.end_task(run, act, waiting.id)
        if waiting.retry_at_us is not None:  # a replay waits for an attempt that was begun and is over
            act.also.timers_cleared.append((waiting.retry_at_us, f"r:{waiting.id}"))
            waiting.retry_at_us = None
        job = self._requests.job(run, waiting, outcome.attempt)
        job.took_us = outcome.took_us
        if message.failed:
            error = self._around.codec.decode_error(outcome.payload)
            job.error = Permanent(error) if outcome.final else error
        else:
            job.result = outcome.payload
        act.urgent = True
        self._outcome(run, act, job, waiting)

    def _outcome(self, run: LiveRun, act: Activation, job: Job, waiting: Waiting) -> None:
        act.results += 1
        if job.error is None:
            assert job.result is not None
            if not job.options.idempotent:
                act.urgent = True
            now_us = self._around.clock.now_us()
            event = StepCompleted(
                now_us, job.id, job.name, waiting.digest, waiting.line, job.attempt, job.took_us, job.result
            )
            if not run.paused:  # written out, as it is done for every step
                run.happened(event)
                self._requests.settle(run, act)
                return
            self._record(run, act, event)
        else:
            act.urgent = True
            self._failed(run, act, job, job.error, waiting)
        self._settle(run, act)

    def _failed(self, run: LiveRun, act: Activation, job: Job, error: BaseException, waiting: Waiting) -> None:
        verdict = judge(job, error, self._around.spread)
        if isinstance(verdict.error, EncodeError):
            verdict.error.add_note(f"(in the result of step {job.name!r}; it has run, and is not tried again)")
        told = self._around.codec.encode_error(verdict.error)
        now_us = self._now()
        place = (job.id, job.name, waiting.digest, waiting.line, job.attempt, job.took_us)
        if verdict.delay_us is None:
            self._record(run, act, StepFailed(now_us, *place, told))
            return
        retry_at_us = now_us + verdict.delay_us
        if not run.paused:
            act.also.timers_set.append((retry_at_us, f"r:{job.id}"))
        self._record(run, act, StepAttemptFailed(now_us, *place, told, retry_at_us))

    # --- timers ----------------------------------------------------------------------------------------------------

    def _timer(self, run: LiveRun, act: Activation, due: DueTimer) -> None:
        act.urgent = True
        act.also.timers_cleared.append((due.deadline_us, due.key))
        if due.key == RUN_DEADLINE:
            raise Ended(Status.FAILED, "", due.deadline_us)
        if run.paused and not due.key.startswith("s:"):
            return  # it is set again when the run goes on
        interpreter = run.interpreter
        assert interpreter is not None
        waiting = interpreter.waiting.get(due.key[2:])
        if waiting is None:
            return
        if due.key.startswith("t:") and waiting.deadline_us == due.deadline_us:
            if waiting.kind == "step":
                self._requests.stop(run, act, waiting)
            self._fold(run, act, TimerFired(max(self._now(), due.deadline_us), waiting.id))
        elif due.key.startswith("r:") and waiting.retry_at_us == due.deadline_us and waiting.id not in run.running:
            waiting.retry_at_us = None  # this wait is over; the next failed attempt sets another
            self._requests.step(run, act, waiting)
        elif due.key.startswith("s:") and waiting.id in run.tasks - run.begun:
            self._not_begun(run, act, waiting)

    def _not_begun(self, run: LiveRun, act: Activation, waiting: Waiting) -> None:
        """A step has waited in its queue for as long as it may. If it has begun meanwhile, the store refuses this, and
        it is thought over with that in mind."""
        options = self._requests.job(run, waiting, waiting.attempt + 1).options
        self._requests.end_task(run, act, waiting.id)
        act.also.tasks_withdrawn = grown(act.also.tasks_withdrawn, waiting.id)
        limit = "" if options.start_timeout is None else f" of {options.start_timeout:g} s"
        error = TimedOut(
            f"step {waiting.name!r}: no worker began it within its start_timeout{limit}, in queue {options.queue!r}",
            step=waiting.name,
            timeout=options.start_timeout,
        )
        place = (waiting.id, waiting.name, waiting.digest, waiting.line, waiting.attempt + 1, 0)
        self._record(run, act, StepFailed(self._now(), *place, self._around.codec.encode_error(error)))
        self._settle(run, act)

    # --- messages --------------------------------------------------------------------------------------------------

    def _mail(self, run: LiveRun, act: Activation) -> None:
        come = self._around.backend.inbox(run.number, run.seen)
        for at, message in enumerate(come):
            if run.paused and not self._goes_on(run, act, come[at:]):
                return
            run.seen = message.seq
            if message.seq not in act.also.consumed:
                act.also.consumed.append(message.seq)
                self._message(run, act, message)

    def _goes_on(self, run: LiveRun, act: Activation, come: Sequence[StoredMessage]) -> bool:
        """Look among the messages for what ends a pause: then all that has waited is taken in the order in which it
        came. Without it, it goes on waiting."""
        for message in come:
            if message.kind == "terminate":
                raise Ended(Status.TERMINATED, message.payload.decode(errors="replace"))
            if message.kind in ("resume", "cancel"):
                if message.kind == "resume":
                    act.also.consumed.append(message.seq)
                self._resume(run, act)
                return True
            if message.kind in ("pause", "wake") and message.seq not in act.also.consumed:
                act.also.consumed.append(message.seq)
        return False

    def _message(self, run: LiveRun, act: Activation, message: StoredMessage) -> None:
        interpreter = run.interpreter
        assert interpreter is not None
        now_us, kind = self._now(), message.kind
        if kind == "terminate":
            raise Ended(Status.TERMINATED, message.payload.decode(errors="replace"))
        if kind == "signal":
            self._fold(run, act, SignalReceived(now_us, message.seq, message.name, message.payload))
        elif interpreter.outcome is not None:
            return  # the workflow has ended in this very activation; only signals are still told of
        elif kind == "pause":
            self._pause(run, act, message.payload.decode(errors="replace"))
        elif kind == "cancel" and not interpreter.cancel_requested:
            self._fold(run, act, CancelRequested(now_us, message.payload.decode(errors="replace")))
        elif kind == "step":
            self._answered(run, act, message)
        elif kind == "child":
            made = ChildFailed if message.failed else ChildCompleted
            self._fold(run, act, made(now_us, message.seq, message.name, message.payload))
        elif kind == "callback":
            answered = CallbackFailed if message.failed else CallbackCompleted
            self._fold(run, act, answered(now_us, message.seq, message.name, message.payload))

    def _pause(self, run: LiveRun, act: Activation, reason: str) -> None:
        """Have the code stand still: what it has asked for and what arrives for it waits, in the store."""
        assert run.interpreter is not None
        run.paused = act.urgent = True
        self._hold_back(run, act)
        act.also.status, act.also.reason = Status.PAUSED, reason
        run.happened(RunPaused(self._now(), reason))
        act.also.timers_cleared.extend(timers_of(run.interpreter))  # so that they do not knock in vain

    def _hold_back(self, run: LiveRun, act: Activation) -> None:
        """Take back the bodies that were noted in this very activation, as by a run that was just loaded; a body whose
        beginning is recorded begins."""
        interpreter = run.interpreter
        assert interpreter is not None
        begun = [job for job in act.bodies if job.options.once]
        held = [interpreter.waiting[job.id] for job in act.bodies if not job.options.once]
        for task in () if act.more is None else tuple(act.more.tasks):
            held.append(interpreter.waiting[task.step])
            self._requests.end_task(run, act, task.step)
        act.bodies, run.held = begun, [*run.held, *held]

    def _resume(self, run: LiveRun, act: Activation) -> None:
        """Have the code go on: it is told what was recorded meanwhile, and what it has asked for is carried out."""
        interpreter = run.interpreter
        assert interpreter is not None
        run.paused, act.urgent = False, True
        act.also.status, act.also.reason = Status.RUNNING, ""
        facts, run.facts, held, run.held = run.facts, (), run.held, ()
        for fact in facts:
            run.watched(partial(interpreter.apply, fact))
        run.happened(RunResumed(self._now()))
        act.also.timers_set.extend(timers_of(interpreter))
        self._requests.answer(run, act, held)
        self._requests.settle(run, act)

    def _now(self) -> int:
        return self._around.clock.now_us()
