"""What the workflow asks for, carried into the activation: each command that newly waits becomes records and effects.

One method per kind of command, in a table. A method that can answer at once records the answer and folds it; the
interpreter then goes on and may ask for more, so `settle` repeats until nothing new is asked. Nothing here acts on the
world: bodies, children and messages are only noted, and are started after the commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dalsegno.core.commands import Receive, RunStep, Send, SideEffect, Sleep, SleepUntil, StartChild
from dalsegno.core.engine.bodies import Job
from dalsegno.core.engine.live import Activation, LiveRun, grown
from dalsegno.core.engine.surroundings import Surroundings, child_id
from dalsegno.core.errors import BadOption, RunConflict, SendFailed, StepOutcomeUnknown, StoreDamaged, WorkflowError
from dalsegno.core.events import (
    ChildNotStarted,
    ChildStarted,
    PatchAdopted,
    RaceDecided,
    ScopeCompleted,
    SideEffectRecorded,
    SignalNotSent,
    SignalSent,
    StepFailed,
    StepStarted,
    TimerCancelled,
    TimerSet,
)
from dalsegno.core.interpreter import Waiting
from dalsegno.core.queues import NewTask
from dalsegno.core.store import Message
from dalsegno.core.text import WORKFLOW_ID_MAX


class Requests:
    """Answers the commands of a run, as far as they can be answered without acting."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._registered, self._steps_queue = frozenset(around.steps), around.steps_queue
        self._ask = {
            "step": self.step,
            "child": self._child,
            "sleep": self._sleep,
            "sleep until": self._sleep_until,
            "receive": self._receive,
            "side effect": self._side_effect,
            "send": self._send,
            "race": self._race,
            "scope": self._scope,
            "checkpoint": self._checkpoint,
            "patched": self._patched,
        }

    def settle(self, run: LiveRun, act: Activation, *, replayed: bool = False) -> None:
        """Answer what is newly asked until the run waits for the outside, or has ended.

        `replayed`: what was published so far went to the store with the events that led to it. A replay would say it
        again, but not what it passes over inside scopes, and so might put back an older value.
        """
        interpreter = run.interpreter
        assert interpreter is not None
        if run.paused:  # just read back: all that its code has asked for waits
            run.held = [*run.held, *interpreter.take().issued]
            return
        while True:
            waiting = interpreter.take_step()
            if waiting is not None:
                if self.step(run, act, waiting):
                    return  # the common case: a body was noted, which asks for nothing more
                continue
            if interpreter.asked_changes:
                self._decide(run, act)
            advance = interpreter.take()
            if advance.published and not replayed:
                act.also.published.update(advance.published)
            replayed = False
            if not (advance.withdrawn or advance.issued):
                return
            for waiting in advance.withdrawn:
                self._withdraw(run, act, waiting)
            self.answer(run, act, advance.issued)

    def answer(self, run: LiveRun, act: Activation, asked: Sequence[Waiting]) -> None:
        """Answer these, as far as they still wait: an answer may withdraw the next one (a race decided)."""
        interpreter = run.interpreter
        assert interpreter is not None
        for waiting in asked:
            if interpreter.outcome is None and interpreter.waiting.get(waiting.id) is waiting:
                ask = self._ask.get(waiting.kind)
                if ask is not None:
                    ask(run, act, waiting)
                    if interpreter.asked_changes:
                        self._decide(run, act)

    def _decide(self, run: LiveRun, act: Activation) -> None:
        """Settle the changes that code has just asked about, before anything else is recorded."""
        interpreter = run.interpreter
        assert interpreter is not None
        while (undecided := interpreter.undecided) and interpreter.outcome is None:
            self._patched(run, act, undecided[0])

    # --- steps -----------------------------------------------------------------------------------------------------

    def step(self, run: LiveRun, act: Activation, waiting: Waiting) -> bool:
        """Note a body to be started, unless it runs already or waits for its next attempt. False if an event was
        folded, after which the code may ask for more."""
        if waiting.id in run.running or waiting.retry_at_us is not None:
            return True
        command = waiting.command
        assert isinstance(command, RunStep)
        if run.tasks and waiting.id in run.tasks:
            self._know(run, waiting.id, command)
            return True
        options = command.options
        if options.total_timeout is not None and waiting.deadline_us is None:
            self._set_timer(run, act, waiting, self._now() + round(options.total_timeout * 1_000_000))
        queue = options.queue or self._steps_queue
        if queue:
            self._enqueue(run, act, waiting, queue)
            return True
        if options.once:
            if waiting.started:
                self._unknown(run, waiting)
                return False
            run.happened(
                StepStarted(self._now(), waiting.id, waiting.name, waiting.digest, waiting.line, waiting.attempt + 1)
            )
            act.urgent = True
            act.bodies.append(self.job(run, waiting, 1))
            return False
        act.bodies.append(self.job(run, waiting, waiting.attempt + 1))
        return True

    def _enqueue(self, run: LiveRun, act: Activation, waiting: Waiting, queue: str) -> None:
        """Have the next attempt of a step put on a queue, by the transition that records why."""
        if not self._around.backend.has_queues:
            raise WorkflowError(
                f"step {waiting.name!r} is for the queue {queue!r}, and {type(self._around.backend).__name__} keeps no "
                "queues: use a store that does (lmdb:, memory:, postgresql://), or leave out queue="
            )
        command = waiting.command
        assert isinstance(command, RunStep)
        options, now_us = command.options, self._now()
        if options.transactional:
            raise WorkflowError(
                f"step {waiting.name!r} is transactional, so it runs where its run is, and this worker has no threads "
                "for steps: give it some (step_threads=), or leave the workflow to a worker that has"
            )
        start_us = now_us + round(options.delay * 1e6) if options.delay and not waiting.attempt else 0
        act.urgent = True
        act.also.tasks = grown(
            act.also.tasks,
            NewTask(
                queue=queue,
                step=waiting.id,
                name=waiting.name,
                attempt=waiting.attempt + 1,
                payload=waiting.payload,
                key=options.key,
                priority=options.priority,
                timeout_us=None if options.timeout is None else round(options.timeout * 1e6),
                once=options.once,
                not_before_us=start_us,
                at_us=now_us,
            ),
        )
        if options.start_timeout is not None:
            act.also.timers_set.append(((start_us or now_us) + round(options.start_timeout * 1e6), f"s:{waiting.id}"))
        run.tasks |= {waiting.id}
        self._know(run, waiting.id, command)

    def _know(self, run: LiveRun, id: str, command: RunStep[Any]) -> None:
        """Learn the function of a step that is out at a queue. Where it was not registered, only this run can tell it:
        the run counts as active, so that it is loaded, and tells it again, by whoever takes it over."""
        if (
            self._around.steps.setdefault(command.step, command.fn) is command.fn
            and command.step not in self._registered
        ):
            run.own |= {id}

    def stop(self, run: LiveRun, act: Activation, waiting: Waiting) -> None:
        """Nobody waits for this step's attempt any more: stop what can be stopped."""
        id = waiting.id
        job = run.running.pop(id, None)
        if job is not None and job.cancel is not None:
            job.cancel()
        act.bodies = [body for body in act.bodies if body.id != id]
        if id in run.tasks:
            self.end_task(run, act, id)
            act.also.tasks_dropped = grown(act.also.tasks_dropped, id)
            act.urgent = True
        if waiting.retry_at_us is not None:
            act.also.timers_cleared.append((waiting.retry_at_us, f"r:{id}"))

    @staticmethod
    def end_task(run: LiveRun, act: Activation, id: str) -> None:
        """A step is out at a queue no longer, not even by what this activation was about to put there."""
        run.tasks -= {id}
        run.own -= {id}
        if act.more is not None and act.more.tasks:
            act.more.tasks = [task for task in act.more.tasks if task.step != id]

    @staticmethod
    def job(run: LiveRun, waiting: Waiting, attempt: int) -> Job:
        """The job that carries out a waiting step."""
        command = waiting.command
        assert isinstance(command, RunStep)
        return Job(run, waiting.id, waiting.name, command.fn, waiting.payload, command.options, attempt)

    def _unknown(self, run: LiveRun, waiting: Waiting) -> None:
        error = StepOutcomeUnknown(
            f"step {waiting.name!r} (once=True) was started and the process ended before its outcome was recorded: "
            "it may or may not have happened, and is not tried again",
            step=waiting.name,
            attempt=waiting.attempt,
        )
        run.happened(
            StepFailed(
                self._now(),
                waiting.id,
                waiting.name,
                waiting.digest,
                waiting.line,
                max(1, waiting.attempt),
                0,
                self._around.codec.encode_error(error),
            )
        )
        assert run.activation is not None
        run.activation.urgent = True

    # --- timers ----------------------------------------------------------------------------------------------------

    def _sleep(self, run: LiveRun, act: Activation, waiting: Waiting) -> None:
        assert isinstance(waiting.command, Sleep)
        self._set_timer(run, act, waiting, self._now() + round(waiting.command.duration * 1_000_000))

    def _sleep_until(self, run: LiveRun, act: Activation, waiting: Waiting) -> None:
        assert isinstance(waiting.command, SleepUntil)
        self._set_timer(run, act, waiting, round(waiting.command.moment.timestamp() * 1_000_000))

    def _receive(self, run: LiveRun, act: Activation, waiting: Waiting) -> None:
        assert isinstance(waiting.command, Receive)
        if waiting.command.timeout is not None:
            self._set_timer(run, act, waiting, self._now() + round(waiting.command.timeout * 1_000_000))

    def _set_timer(self, run: LiveRun, act: Activation, waiting: Waiting, deadline_us: int) -> None:
        if waiting.deadline_us is not None:
            return  # set before a crash: the store has it
        act.urgent = True
        act.also.timers_set.append((deadline_us, f"t:{waiting.id}"))
        run.happened(
            TimerSet(self._now(), waiting.id, waiting.kind, waiting.name, waiting.digest, waiting.line, deadline_us)
        )

    # --- others ----------------------------------------------------------------------------------------------------

    def _child(self, run: LiveRun, act: Activation, waiting: Waiting) -> None:
        if waiting.child_id is not None:
            return  # started before; it reports when it ends
        command, record = waiting.command, run.record
        assert isinstance(command, StartChild)
        assert record is not None
        act.urgent = True
        id = child_id(record.workflow_id, record.generation, waiting.id, command)
        place = (waiting.id, waiting.name, waiting.digest, waiting.line)
        error: Exception | None = None
        if len(id) > WORKFLOW_ID_MAX:
            error = BadOption(
                f"child {waiting.id}, a {waiting.name}, would be called {id[:40]!r}… after its parent: that has "
                f"{len(id)} characters, and an id has {WORKFLOW_ID_MAX} at most; give it one of its own, like "
                f"{waiting.name}.options(id=…)(…)"
            )
        elif id in run.refused:
            error = RunConflict(
                f"a child of {record.workflow_id!r} asked for the id {id!r}, which another run has; "
                "give it an id of its own, or leave id= out",
                workflow_id=id,
            )
        if error is not None:
            run.happened(ChildNotStarted(self._now(), *place, self._around.codec.encode_error(error)))
            return
        new, _ = self._around.new_run(
            id,
            self._around.workflow(command.workflow),
            waiting.payload,
            owner=self._around.owner,
            parent=(record.workflow_id, record.generation, waiting.id),
            tags=record.tags,
            timeout=command.options.timeout,
            options=command.options,
        )
        act.also.children.append(new)
        run.happened(ChildStarted(self._now(), *place, id, command.options.on_parent_close))

    def _side_effect(self, run: LiveRun, act: Activation, waiting: Waiting) -> None:
        assert isinstance(waiting.command, SideEffect)
        codec, result, error = self._around.codec, b"", b""
        fn = waiting.command.fn

        def look() -> None:
            nonlocal result, error
            try:
                result = codec.encode(fn())
            except Exception as raised:
                error = codec.encode_error(raised)

        run.watched(look)
        act.urgent = True
        run.happened(
            SideEffectRecorded(self._now(), waiting.id, waiting.name, waiting.digest, waiting.line, result, error)
        )

    def _send(self, run: LiveRun, act: Activation, waiting: Waiting) -> None:
        command = waiting.command
        assert isinstance(command, Send)
        act.urgent = True
        place = (waiting.id, waiting.name, waiting.digest, waiting.line)
        target, stands = None, "there is no run of that id"
        try:
            target = self._around.backend.find(command.workflow_id)
        except StoreDamaged as damage:
            stands = str(damage)
        here = any(child.workflow_id == command.workflow_id for child in act.also.children)
        if not here and (target is None or not target.status.open):
            stands = stands if target is None else f"it has ended ({target.status.value})"
            error = SendFailed(
                f"signal {command.signal!r} cannot be sent to {command.workflow_id!r}: {stands}",
                workflow_id=command.workflow_id,
            )
            run.happened(SignalNotSent(self._now(), *place, self._around.codec.encode_error(error)))
            return
        act.also.messages.append(
            Message(workflow_id=command.workflow_id, kind="signal", name=command.signal, payload=waiting.payload)
        )
        run.happened(SignalSent(self._now(), *place, command.workflow_id))

    def _race(self, run: LiveRun, act: Activation, waiting: Waiting) -> None:
        act.urgent = True
        run.happened(RaceDecided(self._now(), waiting.id, waiting.name, waiting.digest, waiting.line, waiting.winner))

    def _scope(self, run: LiveRun, act: Activation, waiting: Waiting) -> None:
        act.urgent = True
        run.happened(
            ScopeCompleted(self._now(), waiting.id, waiting.line, waiting.result, waiting.error, waiting.consumed)
        )

    def _checkpoint(self, run: LiveRun, act: Activation, waiting: Waiting) -> None:
        # Answered by the loop once the commit is through: that is what a checkpoint means.
        act.urgent = True
        act.also.checkpoints.append(waiting.id)

    def _patched(self, run: LiveRun, act: Activation, waiting: Waiting) -> None:
        act.urgent = True
        run.happened(PatchAdopted(self._now(), waiting.name))

    def _withdraw(self, run: LiveRun, act: Activation, waiting: Waiting) -> None:
        """Nobody waits for this one any more: stop what can be stopped."""
        if waiting.kind == "step":
            self.stop(run, act, waiting)
        elif waiting.kind == "child":
            self._cancel_child(act, waiting)
        if waiting.deadline_us is not None:
            act.urgent = True
            act.also.timers_cleared.append((waiting.deadline_us, f"t:{waiting.id}"))
            run.happened(TimerCancelled(self._now(), waiting.id))

    @staticmethod
    def _cancel_child(act: Activation, waiting: Waiting) -> None:
        command: Any = waiting.command
        if waiting.child_id is not None and command.options.on_parent_close != "abandon":
            act.urgent = True
            act.also.messages.append(
                Message(workflow_id=waiting.child_id, kind="cancel", payload=b"the parent no longer waits for it")
            )

    def _now(self) -> int:
        return self._around.clock.now_us()
