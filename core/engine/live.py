"""A run in memory: its interpreter, what has arrived for it, and what has happened since its last transition.

A run is advanced by one thread at a time, the one that holds its *turn*. Whatever arrives is appended to `inputs`
first; then whoever gets the turn takes them. The turn passes from thread to thread (a plain lock may), and stays taken
while a transition is on its way to the store.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from dalsegno.core.engine.bodies import Job
from dalsegno.core.events import Event, RunStarted
from dalsegno.core.history import encode_event
from dalsegno.core.interpreter import Continued, Interpreter, Waiting
from dalsegno.core.queues import NewTask
from dalsegno.core.store import Message, NewRun, RunRecord, Status, Transition

T = TypeVar("T")

STUBBORN: list[Interpreter] = []
"""Interpreters whose code would not be put away. They live as long as the process: if they were collected, Python would
run that code's clean-up, which is no business of a run that goes on elsewhere or has ended."""


def put_away(interpreter: Interpreter) -> None:
    """Let go of an interpreter without running any clean-up of the workflow's."""
    if not interpreter.evict():
        STUBBORN.append(interpreter)


NO_IDS: frozenset[str] = frozenset()


def grown(items: Sequence[T], item: T) -> list[T]:
    """A sequence with one more item, to be put in its place: the same list, or a first one."""
    if type(items) is list:
        items.append(item)
        return items
    return [*items, item]


class Also:
    """What few activations have: everything besides the results of steps and the bodies to be started."""

    __slots__ = (
        "checkpoints",
        "children",
        "closed_at_us",
        "consumed",
        "continued",
        "messages",
        "published",
        "reason",
        "restored",
        "status",
        "tasks",
        "tasks_dropped",
        "tasks_withdrawn",
        "timers_cleared",
        "timers_set",
    )

    def __init__(self) -> None:
        self.consumed: list[int] = []
        self.timers_set: list[tuple[int, str]] = []
        self.timers_cleared: list[tuple[int, str]] = []
        self.messages: list[Message] = []
        self.children: list[NewRun] = []
        self.published: dict[str, bytes] = {}
        self.checkpoints: list[str] = []
        self.tasks: Sequence[NewTask] = ()
        self.tasks_dropped: Sequence[str] = ()
        self.tasks_withdrawn: Sequence[str] = ()
        self.status: Status | None = None
        self.reason: str | None = None
        self.closed_at_us: int | None = None
        self.continued: NewRun | None = None
        self.restored = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it to record."""
        return not (
            self.published
            or self.consumed
            or self.timers_set
            or self.timers_cleared
            or self.tasks
            or self.tasks_dropped
            or self.status
            or self.restored
        )

    @property
    def only_tells(self) -> bool:
        """Whether it is nothing but published values, which may wait as long as the results beside them."""
        return not (
            self.consumed
            or self.timers_set
            or self.timers_cleared
            or self.messages
            or self.children
            or self.checkpoints
            or self.tasks
            or self.tasks_dropped
            or self.status
            or self.restored
        )

    @property
    def last(self) -> bool:
        """Whether the run is not to be moved any more after it: it has ended, or is blocked."""
        return self.closed_at_us is not None or self.status is Status.BLOCKED


class Activation:
    """What has happened to a run since its last transition, waiting to become the next one.

    `inputs` are kept so that a refused transition can be thought over again from what arrived. `urgent`: something is
    in it that must be durable before anything else starts; without it (only results of idempotent steps) the
    checkpoint policy decides. Most activations are a step's result and the next body; the rest stands in `also`, which
    comes into being when it is first asked for: made each time, it was a tenth of what a step costs.
    """

    __slots__ = ("bodies", "events", "inputs", "more", "results", "since_us", "urgent")

    def __init__(self) -> None:
        self.inputs: list[Any] = []
        self.events: list[bytes] = []
        self.bodies: list[Job] = []
        self.more: Also | None = None
        self.urgent = False
        self.results = 0
        self.since_us = 0

    @property
    def also(self) -> Also:
        """What few activations have, to be written to."""
        more = self.more
        if more is None:
            more = self.more = Also()
        return more

    @property
    def empty(self) -> bool:
        """Whether there is nothing to record."""
        return not self.events and not self.urgent and (self.more is None or self.more.empty)

    @property
    def lets_start(self) -> bool:
        """Whether something waits for it to be recorded."""
        more = self.more
        return bool(self.bodies) or (
            more is not None and bool(more.checkpoints or more.children or more.messages or more.tasks)
        )

    def transition(self, run: LiveRun) -> Transition:
        """The one value that says all of this to the store."""
        events, more = tuple(self.events), self.more
        if more is None:
            return Transition(
                run.number, run.epoch, run.head, events, run.seen, bool(self.bodies or run.running or run.own)
            )
        # Whether something is to be done for the run after this, which a crash would leave undone: a body, or what
        # follows a checkpoint.
        active = not more.last and bool(self.bodies or run.running or more.checkpoints or run.own)
        timers_set, timers_cleared = more.timers_set, more.timers_cleared
        if timers_set and timers_cleared:  # set and cancelled in one go: the store need not know
            both = set(timers_set).intersection(timers_cleared)
            timers_set = [timer for timer in timers_set if timer not in both]
        return Transition(
            run.number,
            run.epoch,
            run.head,
            events,
            run.seen,
            active,
            consumed=tuple(more.consumed),
            timers_set=tuple(timers_set),
            timers_cleared=tuple(timers_cleared),
            messages=tuple(more.messages),
            children=tuple(more.children),
            published=more.published,
            status=more.status,
            closed_at_us=more.closed_at_us,
            reason=more.reason,
            continued=more.continued,
            restored=more.restored,
            tasks=tuple(more.tasks),
            tasks_dropped=tuple(more.tasks_dropped),
            tasks_withdrawn=tuple(more.tasks_withdrawn),
        )


class LiveRun:
    """One run in memory. Everything but `inputs` and `running.get` belongs to the holder of the turn."""

    __slots__ = (
        "_turn",
        "activation",
        "ahead",
        "begun",
        "epoch",
        "facts",
        "first",
        "head",
        "held",
        "idle_since_us",
        "inputs",
        "interpreter",
        "laid_by",
        "note",
        "number",
        "own",
        "paused",
        "record",
        "refused",
        "rests_until_us",
        "running",
        "seen",
        "stalled",
        "stored_active",
        "tasks",
    )

    def __init__(self, number: int, record: RunRecord | None = None, first: RunStarted | None = None) -> None:
        self.number = number
        self.record = record
        self.first = first  # the event of a run this engine has just created: no need to read it back
        self.interpreter: Interpreter | None = None
        self.activation: Activation | None = None
        self.ahead: Activation | None = None  # a checkpoint on its way to the store, which the run does not wait for;
        self.laid_by: Sequence[Any] = ()  # what has arrived and has to wait for it;
        self.stalled = False  # and whether the run has come to where it must wait
        self.inputs: deque[Any] = deque()
        self.running: dict[str, Job] = {}
        self.held: Sequence[Waiting] = ()  # while it is paused, what its code has asked for;
        self.facts: Sequence[Event] = ()  # and what has been recorded since, which its code is told when it goes on
        self.refused = NO_IDS
        self.tasks = NO_IDS  # steps that are out at a queue
        self.own = NO_IDS  # those of them that were known to no one here but for this run
        self.begun = NO_IDS  # and those that were found to have begun when they were to be withdrawn
        self.paused = False
        self.stored_active = False
        self.epoch = self.head = self.seen = 0
        self.idle_since_us = self.rests_until_us = 0
        self.note: Any = None  # the watchdog's, while it watches
        self._turn = threading.Lock()

    @property
    def workflow_id(self) -> str:
        assert self.record is not None
        return self.record.workflow_id

    @property
    def run_id(self) -> str:
        assert self.record is not None
        return self.record.run_id

    def seize(self) -> bool:
        """Take the turn if nobody has it."""
        return self._turn.acquire(blocking=False)

    def yield_turn(self) -> bool:
        """Give the turn up; true if it was taken again at once because something has arrived meanwhile."""
        self._turn.release()
        return bool(self.inputs) and self.seize()

    def happened(self, event: Event) -> None:
        """Record an event in the current activation and fold it: the one way a live run moves.

        The record comes first: if folding it stops the run (code that no longer fits), what happened is still told.
        """
        assert self.activation is not None
        assert self.interpreter is not None
        self.activation.events.append(encode_event(event))
        note = self.note
        if note is None:
            self.interpreter.apply(event)
            return
        note.inside = event
        try:
            self.interpreter.apply(event)
        finally:  # as in `watched`, without a call that every step would pay for
            note.inside = None
            if note.strikes:
                note.leave()

    def watched(self, code: Callable[[], None]) -> None:
        """Call what may run code of the workflow, which the watchdog, if there is one, may interrupt in there."""
        note = self.note
        if note is None:
            code()
            return
        note.inside = code
        try:
            code()
        finally:
            note.inside = None
            if note.strikes:
                note.leave()

    def drop_code(self) -> None:
        """Have no interpreter any more."""
        interpreter, self.interpreter = self.interpreter, None
        if interpreter is not None and (interpreter.outcome is None or isinstance(interpreter.outcome, Continued)):
            put_away(interpreter)  # otherwise all of its code has ended

    def forget(self) -> None:
        """Drop the interpreter; the history is the truth, and is read again when needed."""
        self.drop_code()
        self.first = None
        self.head = self.seen = 0
        self.held = self.facts = ()
        self.tasks = self.own = NO_IDS


def timers_of(interpreter: Interpreter) -> Iterator[tuple[int, str]]:
    """The timers that are open for what the code waits for, as a store keeps them; not the run's own time-out."""
    for waiting in interpreter.waiting.values():
        if waiting.deadline_us is not None:
            yield waiting.deadline_us, f"t:{waiting.id}"
        if waiting.retry_at_us is not None:
            yield waiting.retry_at_us, f"r:{waiting.id}"


def is_loaded(run: LiveRun) -> bool:
    """Whether a run can be moved at once, without reading its history."""
    return run.interpreter is not None or run.first is not None
