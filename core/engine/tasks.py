"""Tasks: the steps this engine takes from the store's queues, as long as it has hands for them.

A task goes through four moments. It is *taken* (a commit; from then on it is ours while our lease lives), its body
*runs* like any other, its outcome is *answered* (a commit that ends the task and puts the outcome into the inbox of its
run, wherever that is), and the run hears of it as it hears of a signal. A crash between taking and answering ends our
lease, and the task stands in line again: its body runs again, unless it is `once=True`; then, or when the task has been
there at the death of too many of its workers, nobody runs it any more and its run is told so.

While a body runs, what it tells by `heartbeat` goes to the store with a tick, and the tick finds out whether its run
still wants it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from dalsegno.core.engine.bodies import Job
from dalsegno.core.engine.committer import Committer, Request
from dalsegno.core.engine.notes import Notes
from dalsegno.core.engine.outcomes import Outcome, outcome_message
from dalsegno.core.engine.surroundings import Surroundings
from dalsegno.core.errors import (
    BadOption,
    DalsegnoError,
    Permanent,
    StepKilledWorkers,
    StepOutcomeUnknown,
    StoreError,
)
from dalsegno.core.policies import StepOptions
from dalsegno.core.queues import Queue, QueueState, Task, queue_name
from dalsegno.core.store import Sent

DEATHS_MAX = 5
"""A task that has been at work at so many deaths of its workers is suspected of causing them."""

log = logging.getLogger("dalsegno.engine")


class Assignment:
    """What a job of a task belongs to, where that of a run belongs to a `LiveRun`. Compare `bodies.Owner`."""

    __slots__ = ("_tasks", "number", "running", "task")

    def __init__(self, tasks: Tasks, task: Task) -> None:
        self._tasks, self.task = tasks, task
        self.number = task.run
        self.running: dict[str, Job] = {}

    @property
    def record(self) -> Assignment:
        """As far as a logger wants it, this is the run's record."""
        return self

    @property
    def workflow(self) -> str:
        return ""  # a task knows its run by its id only

    @property
    def workflow_id(self) -> str:
        return self.task.workflow_id

    @property
    def run_id(self) -> str:
        return f"{self.task.workflow_id}#{self.task.generation}"

    def ended(self, job: Job) -> None:
        """The body has an outcome."""
        self._tasks.answer(self, job)


class Tasks:
    """What this engine has taken from queues. `tick` by the clockwork's thread, `answer` by any."""

    def __init__(
        self,
        around: Surroundings,
        committer: Committer,
        notes: Notes,
        start: Callable[[list[Job]], object],
        arrived: Callable[[int], object],
    ) -> None:
        self._around, self._committer, self._notes = around, committer, notes
        self._start, self._arrived = start, arrived
        self.declared: Sequence[Queue] = ()  # limits this engine was given
        self.serves: frozenset[str] | None = None  # the queues it takes from; None: from all
        self.room: Callable[[], int] = int  # for how many more tasks there are hands
        self.run_room: Callable[[], int] = int
        self.held: dict[int, Assignment] = {}
        self.draining = False
        self._changes: object = None
        self.next_us: int | None = None  # when time alone lets something go
        self._turn = 0
        self._unanswered: list[tuple[Assignment, Job]] = []
        self._answering: set[int] = set()
        self._in_doubt = False  # whether the store may have given us what we do not know of

    def declare(self) -> None:
        """Tell the store the limits this engine was given."""
        if self.declared:
            self._around.backend.declare(self.declared)

    def tick(self) -> None:
        """Take what there is room for, tell what bodies have told, drop what nobody wants any more."""
        backend = self._around.backend
        if not backend.has_queues:
            return
        if self._unanswered:
            again, self._unanswered = self._unanswered, []
            for assignment, job in again:
                self.answer(assignment, job)
        changes = backend.changes()
        if self._in_doubt or (self.held and (changes != self._changes or self._notes.due())):
            self._look_after()
        now_us = self._around.clock.now_us()
        if changes == self._changes and (self.next_us is None or now_us < self.next_us):
            return
        states = [] if self.draining else [state for state in backend.queues(ages=False) if self._serves(state)]
        self._admit([state for state in states if state.kind == "run"], now_us)
        self._take([state for state in states if state.kind == "step"], now_us)
        # What was due by now has been asked for: if it did not go, something else has to happen first.
        times = [state.next_us for state in states if state.next_us is not None and state.next_us > now_us]
        self.next_us = min(times, default=None)
        self._changes = changes  # not before: if the store fails in between, the next tick looks again

    def _serves(self, state: QueueState) -> bool:
        return state.waiting > 0 and (self.serves is None or state.name in self.serves)

    def _names(self, states: list[QueueState]) -> list[str]:
        """Names of queues, with another one first each time, so that none is always the last."""
        self._turn += 1
        at = self._turn % len(states)
        return [state.name for state in states[at:] + states[:at]]

    def _admit(self, states: list[QueueState], now_us: int) -> None:
        """Let runs begin; they are claimed like any others, as what has news."""
        room = self.run_room()
        if states and room > 0:
            self._around.backend.admit(self._names(states), room, now_us)

    def _take(self, states: list[QueueState], now_us: int) -> None:
        room = self.room()
        if not states or not self._around.steps or room <= 0:
            return
        names, around = self._names(states), self._around
        self._in_doubt = True
        taken = around.backend.take(names, around.owner, room, now_us, around.steps.keys())
        self._in_doubt = False
        self._start([job for task in taken if (job := self._begin(task)) is not None])

    def _begin(self, task: Task) -> Job | None:
        """The job for a task; None for one that is not to run any more, whose run is told so."""
        timeout = None if task.timeout_us is None else task.timeout_us / 1e6
        options = StepOptions(timeout=timeout, once=task.once)
        assignment = self.held[task.number] = Assignment(self, task)
        job = Job(assignment, task.step, task.name, self._around.steps[task.name], task.payload, options, task.attempt)
        assignment.running[task.step] = job
        job.notes = self._notes
        job.error = _why_not(task)
        if job.error is None:
            return job
        self.answer(assignment, job)
        return None

    # --- at work ---------------------------------------------------------------------------------------------------

    def _look_after(self) -> None:
        """Tell what bodies have told, and hear which of them are wanted no more."""
        known = self.held.keys() | self._answering
        with self._notes.of_tasks() as told:
            wanted = set(self._around.backend.beat(self._around.owner, told))
        if self._in_doubt:
            unknown = sorted(wanted - known)
            if unknown:
                self._around.backend.give_back([(number, 0) for number in unknown], self._around.owner)
            self._in_doubt = False
        for number, assignment in list(self.held.items()):
            if number not in wanted and self.held.get(number) is assignment:
                self._cancel(assignment)

    def _cancel(self, assignment: Assignment) -> None:
        """Nobody wants the outcome any more, or the task is another's: the body is told. Its end frees its place, or
        this does, where nothing will be heard of its end."""
        for job in list(assignment.running.values()):
            assignment.running.clear()
            if job.cancel is not None:
                job.cancel()
            if job.cancel is not None or not job.beat_us:
                self._send(assignment, job)

    def answer(self, assignment: Assignment, job: Job) -> None:
        """Tell the run of a task how its body ended, or the store that a body which nobody waits for has ended."""
        if assignment.running.get(job.id) is job or not assignment.running:
            assignment.running.clear()
            if job.error is not None:
                self._tell_first()
            self._send(assignment, job)

    def _tell_first(self) -> None:
        """Tell what bodies have told before a task ends, for then nothing can be told of it: its next attempt, by
        whichever worker, is to read it."""
        try:
            with self._notes.of_tasks() as told:
                if told:
                    self._around.backend.beat(self._around.owner, told)
        except StoreError as error:
            log.warning("what a step has told last may be lost: %s", error)

    def _forget(self, assignment: Assignment) -> None:
        if self.held.get(assignment.task.number) is assignment:
            del self.held[assignment.task.number]

    def _send(self, assignment: Assignment, job: Job) -> None:
        self._answering.add(assignment.task.number)
        self._forget(assignment)
        codec, error = self._around.codec, job.error
        if job.result is None:
            if error is None:
                error = DalsegnoError("the body was cancelled before it began")
            payload, failed = codec.encode_error(_plain(error)), True
        else:
            payload, failed = job.result, False
        outcome = Outcome(job.attempt, job.took_us, payload, final=isinstance(error, Permanent))
        message = outcome_message(assignment.task, outcome, failed)

        def done(answer: tuple[Sent, int]) -> None:
            self._answering.discard(assignment.task.number)
            if answer[0] is Sent.ACCEPTED:
                self._arrived(answer[1])
            else:
                log.info("step %s of %s: nobody waits for its outcome", job.name, assignment.run_id)

        def refused(failure: Exception) -> None:
            # Also where it may have been taken: then the task is gone, and the next try goes nowhere.
            log.warning("the outcome of step %s of %s is told again: %s", job.name, assignment.run_id, failure)
            self._unanswered.append((assignment, job))

        self._committer.submit(Request(message, done, refused))

    def stop(self) -> None:
        """Give back what has not begun; what runs has its grace."""
        self.draining = True
        waiting = [a for a in list(self.held.values()) if not any(job.beat_us for job in a.running.values())]
        for assignment in waiting:
            assignment.running.clear()
            self._forget(assignment)
        if waiting:
            self._around.backend.give_back([(a.task.number, a.task.claim) for a in waiting], self._around.owner)


def _why_not(task: Task) -> Exception | None:
    """Why a task must not run again: the workers it had before have died at it."""
    if task.once and task.deaths:
        return StepOutcomeUnknown(
            f"step {task.name!r} (once=True) was begun and its worker died before its outcome was recorded: "
            "it may or may not have happened, and is not tried again",
            step=task.name,
            attempt=task.attempt,
        )
    if task.deaths >= DEATHS_MAX:
        return Permanent(
            StepKilledWorkers(
                f"step {task.name!r} was at work at {task.deaths} deaths of its workers, and is suspected of causing "
                "them; look at the workers' logs (memory?), mend it, and start the run again or fork it before this",
                step=task.name,
                deaths=task.deaths,
            )
        )
    return None


def _plain(error: BaseException) -> BaseException:
    """The error that a workflow is told: what a `Permanent` is about."""
    if isinstance(error, Permanent) and isinstance(error.error, BaseException):
        return error.error
    return error


def limits_given(queues: Iterable[Queue]) -> list[Queue]:
    """What an engine was given as `queues=`. Raises `BadOption`."""
    if not isinstance(queues, Iterable):
        raise BadOption(f"queues={queues!r}: takes limits, like queues=[Queue('mail', concurrency=2)]")
    limits = list(queues)
    for queue in limits:
        if not isinstance(queue, Queue):
            raise BadOption(f"queues={limits!r}: takes limits, like queues=[Queue('mail', concurrency=2)]")
    return limits


def names_given(serve: Iterable[str] | None) -> frozenset[str] | None:
    """What an engine was given as `serve=`. Raises `BadOption`."""
    if isinstance(serve, str) or not isinstance(serve, Iterable | None):
        raise BadOption(f"serve={serve!r}: takes names of queues, like serve=['mail'], or None for all")
    return None if serve is None else frozenset(map(queue_name, serve))
