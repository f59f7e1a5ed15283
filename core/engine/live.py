"""A run in memory: its interpreter, what has arrived for it, and what has happened since its last transition.

A run is advanced by one thread at a time, the one that holds its *turn*. Whatever arrives is appended to `inputs`
first; then whoever gets the turn takes them. The turn passes from thread to thread (a plain lock may), and stays taken
while a transition is on its way to the store.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from dalsegno.core.engine.bodies import Job
from dalsegno.core.events import Event, RunStarted
from dalsegno.core.history import encode_event
from dalsegno.core.interpreter import Continued, Interpreter, Waiting
from dalsegno.core.store import Message, NewRun, RunRecord, Status, Transition

STUBBORN: list[Interpreter] = []
"""Interpreters whose code would not be put away. They live as long as the process: if they were collected, Python would
run that code's clean-up, which is no business of a run that goes on elsewhere or has ended."""


def put_away(interpreter: Interpreter) -> None:
    """Let go of an interpreter without running any clean-up of the workflow's."""
    if not interpreter.evict():
        STUBBORN.append(interpreter)


class Activation:
    """What has happened to a run since its last transition, waiting to become the next one.

    `inputs` are kept so that a refused transition can be thought over again from what arrived. `urgent`: something is
    in it that must be durable before anything else starts; without it (only results of idempotent steps) the
    checkpoint policy decides.
    """

    __slots__ = (
        "bodies",
        "checkpoints",
        "children",
        "closed_at_us",
        "consumed",
        "continued",
        "events",
        "inputs",
        "messages",
        "published",
        "reason",
        "restored",
        "results",
        "since_us",
        "status",
        "timers_cleared",
        "timers_set",
        "urgent",
    )

    def __init__(self) -> None:
        self.inputs: list[Any] = []
        self.events: list[bytes] = []
        self.consumed: list[int] = []
        self.timers_set: list[tuple[int, str]] = []
        self.timers_cleared: list[tuple[int, str]] = []
        self.messages: list[Message] = []
        self.children: list[NewRun] = []
        self.published: dict[str, bytes] = {}
        self.bodies: list[Job] = []
        self.checkpoints: list[str] = []
        self.status: Status | None = None
        self.reason: str | None = None
        self.closed_at_us: int | None = None
        self.continued: NewRun | None = None
        self.restored = False
        self.urgent = False
        self.results = 0
        self.since_us = 0

    @property
    def empty(self) -> bool:
        """Whether there is nothing to record."""
        return not (
            self.events
            or self.urgent
            or self.published
            or self.consumed
            or self.timers_set
            or self.timers_cleared
            or self.status
            or self.restored
        )

    def _has_work(self, run: LiveRun) -> bool:
        """Whether something is to be done for the run after this, which a crash would leave undone: a body, or what
        follows a checkpoint."""
        if self.closed_at_us is not None or self.status is Status.BLOCKED:
            return False
        return bool(self.bodies or run.running or self.checkpoints)

    def transition(self, run: LiveRun) -> Transition:
        """The one value that says all of this to the store."""
        if self.timers_set and self.timers_cleared:  # set and cancelled in one go: the store need not know
            both = set(self.timers_set).intersection(self.timers_cleared)
            self.timers_set = [timer for timer in self.timers_set if timer not in both]
        return Transition(
            run=run.number,
            epoch=run.epoch,
            head=run.head,
            events=tuple(self.events),
            seen=run.seen,
            consumed=tuple(self.consumed),
            timers_set=tuple(self.timers_set),
            timers_cleared=tuple(self.timers_cleared),
            messages=tuple(self.messages),
            children=tuple(self.children),
            published=self.published,
            status=self.status,
            active=self._has_work(run),
            closed_at_us=self.closed_at_us,
            reason=self.reason,
            continued=self.continued,
            restored=self.restored,
        )


class LiveRun:
    """One run in memory. Everything but `inputs` and `running.get` belongs to the holder of the turn."""

    __slots__ = (
        "_turn",
        "activation",
        "epoch",
        "first",
        "head",
        "held",
        "idle_since_us",
        "inputs",
        "interpreter",
        "number",
        "paused",
        "record",
        "refused",
        "running",
        "seen",
        "stored_active",
        "submitted",
    )

    def __init__(self, number: int, record: RunRecord | None = None, first: RunStarted | None = None) -> None:
        self.number = number
        self.record = record
        self.first = first  # the event of a run this engine has just created: no need to read it back
        self.interpreter: Interpreter | None = None
        self.activation: Activation | None = None
        self.submitted = False
        self.inputs: deque[Any] = deque()
        self.running: dict[str, Job] = {}
        self.held: list[Waiting] = []
        self.refused: set[str] = set()
        self.paused = False
        self.stored_active = False
        self.epoch = self.head = self.seen = 0
        self.idle_since_us = 0
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
        self.interpreter.apply(event)

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
        self.held.clear()


def is_loaded(run: LiveRun) -> bool:
    """Whether a run can be moved at once, without reading its history."""
    return run.interpreter is not None or run.first is not None
