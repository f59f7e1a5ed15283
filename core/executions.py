"""What has to hold between histories and what really happened: a ledger of the bodies that ran, and earlier readings.

A history cannot tell of itself that what it says was done. So whoever tests keeps a ledger: each step's body writes,
first of all, its idempotency key, its attempt and the time, to a file or a table that the engine knows nothing of.
`check_executions` compares that with the histories. `check_grown` compares a history with what was read of it before:
a place in it that was written once never holds anything else, so that no two executors can both have written it.

    >>> from dalsegno.core.events import RunStarted, StepCompleted
    >>> history = [RunStarted(0, "nap", "n", 1, b"", b""), StepCompleted(9, "1", "pay", b"", 3, 1, 2, b"")]
    >>> [str(found) for found in check_executions([], {"n#1": history})]
    ["n#1, event 1: StepCompleted of 'pay' (command 1), attempt 1, and no body ran [executed]"]
    >>> check_executions([Execution("n#1/1", 1, 5)], {"n#1": history})
    []

Pure, like `checks` and `crosschecks`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from dalsegno.core import events as ev
from dalsegno.core.checks import Violation
from dalsegno.core.events import Event

RULES: Final = {
    "executed": "Every recorded outcome of an attempt was executed at least once.",
    "never after": "No body begins once the outcome of its step, or of its attempt, is recorded.",
    "at most once": "A step run at most once has one body; no process runs one attempt of a step twice.",
    "grown": "A history only grows: what was read of it once is there for ever, in its place.",
}
"""Every rule of this module."""

_ATTEMPTS: Final = (ev.StepCompleted, ev.StepFailed, ev.StepAttemptFailed)


@attrs.frozen
class Execution:
    """A body that began, as a ledger has it: `key` and `attempt` are those of `step_context()`, `at_us` is when, and
    `by` names the process, where that is known.

    >>> Execution("order-42#1/3", attempt=1, at_us=1_700_000_000_000_000, by="worker-7").key
    'order-42#1/3'
    """

    key: str
    attempt: int
    at_us: int
    by: str = ""
    line: int | None = None
    """Where it stands in the ledger, where that is known."""


def check_executions(
    executions: Iterable[Execution],
    histories: Mapping[str, Sequence[Event | None]],
    *,
    slack_us: int = 0,
    once: Collection[str] = (),
) -> list[Violation]:
    """Everything that does not hold between a ledger and the histories of all runs it is about, by their run ids.

    The times of both have to be of one clock; `slack_us` is how far apart they may be, in microseconds. An event that
    is of no matter may be None. `once` names steps that may run once: a history tells that only of steps without a
    queue. A failure that took no time was recorded by the engine, and need have no body: nobody knows whether the step
    ran, or nobody began it in time.

    >>> from dalsegno import Flow, step, step_context, workflow
    >>> from dalsegno.testing import Simulation
    >>> ledger = []
    >>> @step
    ... def charge(amount: int) -> None:
    ...     about = step_context()
    ...     ledger.append(Execution(about.idempotency_key, about.attempt, simulation.clock.now_us()))
    >>> @workflow
    ... def pay() -> Flow[None]:
    ...     yield from charge(5)
    >>> with Simulation([pay]) as simulation:
    ...     run = simulation.start(pay)
    ...     run.result()
    ...     check_executions(ledger, {run.run_id: run.history()})
    []
    """
    begun: dict[str, list[Execution]] = {}
    for execution in executions:
        begun.setdefault(execution.key, []).append(execution)
    found: list[Violation] = []
    for run_id, events in histories.items():
        single = {event.id for event in events if isinstance(event, ev.StepStarted)}
        single |= {event.id for event in events if isinstance(event, _ATTEMPTS) and event.name in once}
        for index, event in enumerate(events):
            if isinstance(event, _ATTEMPTS):
                bodies = begun.get(f"{run_id}/{event.id}", ())
                found += _of_event(run_id, index, event, bodies, event.id in single, slack_us)
        for id in sorted(single):
            bodies = begun.get(f"{run_id}/{id}", ())
            if len(bodies) > 1:
                what = f"command {id} may run once, and {len(bodies)} bodies began"
                found.append(Violation("at most once", None, what, run_id, bodies[-1].line))
    return found + [violation for key in begun for violation in _twice(key, begun[key])]


def _of_event(
    run_id: str,
    index: int,
    event: ev.StepCompleted | ev.StepFailed | ev.StepAttemptFailed,
    bodies: Sequence[Execution],
    once: bool,
    slack_us: int,
) -> Iterator[Violation]:
    said = f"{type(event).__name__} of {event.name!r} (command {event.id}), attempt {event.attempt}"
    ran = any(body.attempt == event.attempt for body in bodies)
    by_engine = isinstance(event, ev.StepFailed) and (once or not event.took_us)
    if not ran and not by_engine:
        yield Violation("executed", index, f"{said}, and no body ran", run_id)
    final = not isinstance(event, ev.StepAttemptFailed)
    for body in bodies:
        if body.at_us > event.at_us + slack_us and (final or body.attempt <= event.attempt):
            late = body.at_us - event.at_us
            what = f"{said}, and a body (attempt {body.attempt}) began {late:,} µs after it"
            yield Violation("never after", index, what, run_id, body.line)


def _twice(key: str, bodies: Sequence[Execution]) -> Iterator[Violation]:
    seen: set[tuple[int, str]] = set()
    for body in bodies:
        place = (body.attempt, body.by)
        if body.by and place in seen:
            what = f"attempt {body.attempt} of {key} began twice in process {body.by}"
            yield Violation("at most once", None, what, key.rpartition("/")[0], body.line)
        seen.add(place)


def check_grown(earlier: Sequence[Event], later: Sequence[Event], run: str = "") -> list[Violation]:
    """Whether a history still begins with what was read of it before.

    >>> from dalsegno.core.events import RunPaused, RunResumed
    >>> check_grown([RunPaused(1, "lunch")], [RunPaused(1, "lunch"), RunResumed(2)])
    []
    >>> [str(violation) for violation in check_grown([RunPaused(1, "lunch")], [])]
    ['event 0: 1 events were read before, and 0 are there [grown]']
    """
    for index, (before, after) in enumerate(zip(earlier, later, strict=False)):
        if before != after:
            what = f"{type(after).__name__} stands where {type(before).__name__} was read before"
            what = f"{type(before).__name__} is not what was read before" if type(before) is type(after) else what
            return [Violation("grown", index, what, run)]
    if len(later) < len(earlier):
        what = f"{len(earlier)} events were read before, and {len(later)} are there"
        return [Violation("grown", len(later), what, run)]
    return []
