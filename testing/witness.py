"""A witness: it notes which bodies ran and what was recorded, and knows what may never happen.

The engine says what it did in histories. The witness stands beside it, at the bodies and at the store, and compares:
no body begins once its outcome is recorded, no command has two outcomes, `once=True` begins once. What it sees broken
is raised as `PromiseBroken` at once, and told again at the end.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import attrs

from dalsegno.core.engine.bodies import Job
from dalsegno.core.events import (
    CallbackCompleted,
    CallbackFailed,
    ChildCompleted,
    ChildFailed,
    Event,
    RaceDecided,
    ScopeCompleted,
    SideEffectRecorded,
    StepCompleted,
    StepFailed,
    TimerCancelled,
    TimerFired,
)
from dalsegno.core.history import decode_event
from dalsegno.core.store import Transition

_OUTCOMES: dict[type[Event], str] = {
    StepCompleted: "step",
    StepFailed: "step",
    TimerFired: "timer",
    TimerCancelled: "timer",
    SideEffectRecorded: "side effect",
    ChildCompleted: "child",
    ChildFailed: "child",
    CallbackCompleted: "callback",
    CallbackFailed: "callback",
    RaceDecided: "race",
    ScopeCompleted: "scope",
}


class PromiseBroken(AssertionError):
    """The engine did what it promises never to do. A bug in dalsegno, or in the store: please report it."""


@attrs.frozen(kw_only=True)
class BodyRun:
    """One body that began: of which step of which run, the how manieth attempt, in which life of the process."""

    run: int
    run_id: str
    id: str
    step: str
    attempt: int
    life: int
    at_us: int


@attrs.frozen(kw_only=True)
class Repeat:
    """A body that began again, and why: `retry` (the attempt before failed, and the policy gave it another), `crash`
    (the process died before the outcome was recorded), or `dropped` (its outcome came to nobody: a lost lease, a
    time-out)."""

    step: str
    why: str


class Witness:
    """What happened in a simulation, over all lives of its process."""

    def __init__(self) -> None:
        self.bodies: list[BodyRun] = []
        self.broken: list[str] = []
        self.life = 0
        self._answered: dict[tuple[int, str, str], str] = {}
        self._begun: dict[tuple[int, str], list[BodyRun]] = {}

    def began(self, job: Job, at_us: int) -> None:
        """A body is about to begin."""
        run: Any = job.run
        body = BodyRun(
            run=run.number,
            run_id=run.run_id,
            id=job.id,
            step=job.name,
            attempt=job.attempt,
            life=self.life,
            at_us=at_us,
        )
        before = self._begun.setdefault((run.number, job.id), [])
        if (run.number, "step", job.id) in self._answered:
            self._break(f"step {job.name!r} ({run.run_id}, command {job.id}) began after its outcome was recorded")
        if job.options.once and before:
            self._break(f"step {job.name!r} ({run.run_id}, command {job.id}) is once=True and began twice")
        before.append(body)
        self.bodies.append(body)

    def committed(self, transition: Transition) -> None:
        """A transition was applied."""
        for stored in transition.events:
            event: Any = decode_event(stored)
            kind = _OUTCOMES.get(type(event))
            if kind is None:
                continue
            place, what = (transition.run, kind, event.id), type(event).__name__
            if place in self._answered:
                self._break(f"run {transition.run}, command {event.id}: {what} after {self._answered[place]}")
            self._answered[place] = what

    def forget(self) -> None:
        """Forget the bodies and the outcomes so far, for simulations of days that are not to grow. What began before is
        not compared any more with what comes; `broken` and `life` stay."""
        self.bodies.clear()
        self._answered.clear()
        self._begun.clear()

    def _break(self, what: str) -> None:
        self.broken.append(what)
        raise PromiseBroken(what)

    def began_count(self, step: Any) -> int:
        """How many bodies of a step began, given by its name or as the definition."""
        name = getattr(step, "name", step)
        return sum(body.step == name for body in self.bodies)

    def repeats(self) -> Counter[Repeat]:
        """The bodies that began more than once, by step and reason."""
        found: Counter[Repeat] = Counter()
        for bodies in self._begun.values():
            for before, body in pairwise(bodies):
                if body.attempt > before.attempt:
                    why = "retry"
                else:
                    why = "crash" if body.life != before.life else "dropped"
                found[Repeat(step=body.step, why=why)] += 1
        return found
