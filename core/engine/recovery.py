"""Recovery: how a run comes (back) into memory, and what is set up anew when it does.

A run this engine created a moment ago starts from its first event. Any other is claimed if it is not ours yet, its
history is read and replayed, and then stands where it stood. A run that was imported or forked has no timers and no
children of its own yet: they are made from what its history leaves open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dalsegno.core.commands import StartChild
from dalsegno.core.engine.ending import Ended
from dalsegno.core.engine.live import Activation, LiveRun, put_away, timers_of
from dalsegno.core.engine.surroundings import RUN_DEADLINE, Surroundings
from dalsegno.core.engine.whereabouts import Place
from dalsegno.core.errors import WorkflowError
from dalsegno.core.events import Event, RunPaused, RunStarted
from dalsegno.core.history import decode_history
from dalsegno.core.interpreter import Interpreter
from dalsegno.core.store import NewRun, RunRecord, Status

DEATHS_MAX = 5
"""A run that was active in so many deaths of its engine, without recording anything in between, is suspected of
causing them and is blocked until somebody resumes it."""


class Quarantined(WorkflowError):
    """The run is suspected of killing the processes that run it."""


def pause_in(events: Sequence[Event]) -> int:
    """How many events the code of a paused run has been told of: up to the last pause. What follows is news to it."""
    return max((at for at, event in enumerate(events, 1) if isinstance(event, RunPaused)), default=len(events))


class Loader:
    """Brings runs into memory."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self.may_take: Callable[[RunRecord], bool] = lambda record: True

    def load(self, run: LiveRun, act: Activation) -> bool:
        """Make the run's interpreter stand where the history ends. False if the run has ended or is gone.

        Raises `HistoryMismatch`, `AlienYield`, `UnknownDefinition` and `DecodeError`, which block the run.
        """
        first = run.first
        if not self._claim(run):
            return False
        record = run.record
        assert record is not None
        run.paused = record.status is Status.PAUSED
        if first is None:
            self._look_before_running(run, act, record)
        events = [first] if first is not None else decode_history(self._around.backend.history(run.number))
        run.first, run.head = None, len(events)
        stands = pause_in(events) if run.paused else len(events)
        run.facts = events[stands:]
        started = events[0]
        assert isinstance(started, RunStarted)
        place, definition = Place(record), self._around.workflow(started.workflow)
        with place.around():
            interpreter = Interpreter(definition, self._around.codec)

        def replay() -> None:
            # A fork or an import has published nothing yet: it goes through its scopes once, for what they publish.
            try:
                past = place.recalled(events, first is not None)
                interpreter.replay(past, stands, skip_scopes=not record.restore)
            except BaseException:
                put_away(interpreter)
                raise

        run.watched(replay)
        run.interpreter, place.replaying = interpreter, False
        if first is None and any(waiting.kind == "step" for waiting in interpreter.waiting.values()):
            # Before the inbox is read: a task that is not there any more has answered, or was never put.
            run.tasks = frozenset(task.step for task in self._around.backend.tasks_of(run.number))
        if record.status is Status.BLOCKED:
            act.also.status, act.also.reason, act.urgent = Status.RUNNING, "", True
            self._set_timers(run, act, interpreter)
        elif first is None and not record.restore and not run.paused:
            self._await_retries(run, act, interpreter)
        if record.restore:
            self._restore(run, act, interpreter)
        return True

    def _look_before_running(self, run: LiveRun, act: Activation, record: RunRecord) -> None:
        """What must be known before any code of this run is called: whether it is to be ended, or is suspected."""
        waiting = self._around.backend.inbox(run.number)
        for at, message in enumerate(waiting):
            if message.kind == "terminate":
                run.seen = message.seq
                act.also.consumed.extend(m.seq for m in waiting[: at + 1])
                raise Ended(Status.TERMINATED, message.payload.decode(errors="replace"))
        if record.deaths >= DEATHS_MAX and not any(m.kind == "resume" for m in waiting):
            raise Quarantined(
                f"quarantined: {record.deaths} times the process died while this run was active and before anything "
                f"of it was recorded. If the run is not the cause, let it go on with: dalsegno resume "
                f"{record.workflow_id}"
            )

    def _claim(self, run: LiveRun) -> bool:
        record = run.record if run.first is not None else self._around.backend.record(run.number)
        if record is None or not record.status.open:
            return False
        if record.owner != self._around.owner:
            if not self.may_take(record):
                return False
            claimed = self._around.backend.claim([run.number], self._around.owner)
            if not claimed:
                return False
            if self._around.observed is not None:
                self._around.observed.claimed([record], claimed)
            record = claimed[0]
        run.record, run.epoch, run.stored_active = record, record.epoch, record.active and record.status.open
        return True

    def _restore(self, run: LiveRun, act: Activation, interpreter: Interpreter) -> None:
        """Make the timers and children that an imported or forked history leaves open."""
        act.also.restored = act.urgent = True
        record = run.record
        assert record is not None
        self._set_timers(run, act, interpreter)
        for waiting in interpreter.waiting.values():
            if waiting.child_id is None or not isinstance(waiting.command, StartChild):
                continue
            place = (record.workflow_id, record.generation, waiting.id)
            child = self._around.backend.find(waiting.child_id)
            if child is None or child.parent != place:
                act.also.children.append(self._child(waiting.command, waiting.payload, place))

    @staticmethod
    def _await_retries(run: LiveRun, act: Activation, interpreter: Interpreter) -> None:
        """Set the timers of attempts to come once more. One that has fired left the store when the attempt began, which
        is no event: if the process died in that attempt, nothing else would ever begin it again."""
        for waiting in interpreter.waiting.values():
            if waiting.id in run.tasks:
                waiting.retry_at_us = None  # the next attempt is at its queue
            elif waiting.retry_at_us is not None and waiting.id not in run.running:
                act.also.timers_set.append((waiting.retry_at_us, f"r:{waiting.id}"))

    @staticmethod
    def _set_timers(run: LiveRun, act: Activation, interpreter: Interpreter) -> None:
        if interpreter.info.deadline_us is not None:
            act.also.timers_set.append((interpreter.info.deadline_us, RUN_DEADLINE))
        if not run.paused:
            act.also.timers_set.extend(timers_of(interpreter))

    def _child(self, command: StartChild[object], arguments: bytes, place: tuple[str, int, str]) -> NewRun:
        new, _ = self._around.new_run(
            f"{place[0]}/{place[2]}",
            self._around.workflow(command.workflow),
            arguments,
            owner=self._around.owner,
            parent=place,
            timeout=command.options.timeout,
            options=command.options,
            origin="started by a forked or imported run",
        )
        return new
