"""What arrives for a run, turned into events: outcomes of steps, messages from the inbox, timers that came due.

Each is folded the moment it is recorded, and what the workflow asks in answer is settled before the next one, so that
a replay, which sees only the order of events, goes the same way.
"""

from __future__ import annotations

import attrs

from dalsegno.core.engine.bodies import Job, judge
from dalsegno.core.engine.ending import Ended
from dalsegno.core.engine.live import Activation, LiveRun
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
                self._fold(run, act, CheckpointTaken(self._now(), waiting.id, waiting.line))
        else:
            self._requests.settle(run, act)

    def _fold(self, run: LiveRun, act: Activation, event: Event) -> None:
        run.happened(event)
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
        if waiting is None or waiting.kind != "step" or waiting.retry_at_us is not None:
            return
        outcome = unpack_outcome(message.payload)
        if outcome.attempt != waiting.attempt + 1:
            return  # of an attempt that was given up
        self._requests.end_task(run, act, waiting.id)
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
            run.happened(
                StepCompleted(
                    self._now(),
                    job.id,
                    job.name,
                    waiting.digest,
                    waiting.line,
                    job.attempt,
                    job.took_us,
                    job.result,
                )
            )
        else:
            act.urgent = True
            self._failed(run, act, job, job.error, waiting)
        self._requests.settle(run, act)

    def _failed(self, run: LiveRun, act: Activation, job: Job, error: BaseException, waiting: Waiting) -> None:
        verdict = judge(job, error, self._around.spread)
        if isinstance(verdict.error, EncodeError):
            verdict.error.add_note(f"(in the result of step {job.name!r}; it has run, and is not tried again)")
        told = self._around.codec.encode_error(verdict.error)
        now_us = self._now()
        place = (job.id, job.name, waiting.digest, waiting.line, job.attempt, job.took_us)
        if verdict.delay_us is None:
            run.happened(StepFailed(now_us, *place, told))
            return
        retry_at_us = now_us + verdict.delay_us
        act.also.timers_set.append((retry_at_us, f"r:{job.id}"))
        run.happened(StepAttemptFailed(now_us, *place, told, retry_at_us))

    # --- timers ----------------------------------------------------------------------------------------------------

    def _timer(self, run: LiveRun, act: Activation, due: DueTimer) -> None:
        act.urgent = True
        act.also.timers_cleared.append((due.deadline_us, due.key))
        if due.key == RUN_DEADLINE:
            raise Ended(Status.FAILED, "", due.deadline_us)
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
        act.also.tasks_withdrawn.append(waiting.id)
        limit = "" if options.start_timeout is None else f" of {options.start_timeout:g} s"
        error = TimedOut(
            f"step {waiting.name!r}: no worker began it within its start_timeout{limit}, in queue {options.queue!r}",
            step=waiting.name,
            timeout=options.start_timeout,
        )
        place = (waiting.id, waiting.name, waiting.digest, waiting.line, waiting.attempt + 1, 0)
        self._fold(run, act, StepFailed(self._now(), *place, self._around.codec.encode_error(error)))

    # --- messages --------------------------------------------------------------------------------------------------

    def _mail(self, run: LiveRun, act: Activation) -> None:
        for message in self._around.backend.inbox(run.number, run.seen):
            run.seen = message.seq
            act.also.consumed.append(message.seq)
            self._message(run, act, message)

    def _message(self, run: LiveRun, act: Activation, message: StoredMessage) -> None:
        interpreter = run.interpreter
        assert interpreter is not None
        now_us, kind = self._now(), message.kind
        if kind == "terminate":
            raise Ended(Status.TERMINATED, message.payload.decode(errors="replace"))
        if kind == "pause":
            self._pause(run, act, message.payload.decode(errors="replace"))
        elif kind == "resume":
            self._resume(run, act)
        elif kind == "signal":
            self._fold(run, act, SignalReceived(now_us, message.seq, message.name, message.payload))
        elif interpreter.outcome is not None:
            return  # the workflow has ended in this very activation; only signals are still told of
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
        if not run.paused:
            run.paused = act.urgent = True
            self._hold_back(run, act)
            act.also.status, act.also.reason = Status.PAUSED, reason
            run.happened(RunPaused(self._now(), reason))

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
        if run.paused:
            run.paused, act.urgent = False, True
            act.also.status, act.also.reason = Status.RUNNING, ""
            run.happened(RunResumed(self._now()))
            held, run.held = run.held, ()
            self._requests.answer(run, act, held)
            self._requests.settle(run, act)

    def _now(self) -> int:
        return self._around.clock.now_us()
