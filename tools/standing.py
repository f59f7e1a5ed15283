"""What a run waits for, and since when: read from its history, and told by its code where that is at hand.

Without code, what is open is what the history began and did not end: attempts of steps to come, timers, children. A
step in its first attempt, a `Receive` without time-out and a callback leave no trace until they end, so that where
nothing is open one can only say after which line the run stands.

With code, the history is replayed, and everything that waits is known, with its line. Since when is found by replaying
prefixes: a command that is open at the end was open from the first event on after which it is there.
"""

from __future__ import annotations

import linecache
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final

import attrs

from dalsegno.core import events as ev
from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.errors import AlienYield, DalsegnoError, HistoryMismatch
from dalsegno.core.events import Event
from dalsegno.core.interpreter import Interpreter, Waiting
from dalsegno.core.values.codec import Codec

DATED_MAX: Final = 5
"""Waits whose beginning is looked up by replaying prefixes; each takes some ten replays."""


@attrs.frozen(kw_only=True)
class Wait:
    """One thing a run waits for. `attempts` and `error` are of a step that failed and is tried again at `until_us`;
    `until_us` is otherwise the deadline. `child` is the id of the child run, `source` what stands at the line today."""

    id: str
    kind: str
    name: str = ""
    line: int = 0
    file: str = ""
    source: str = ""
    since_us: int = 0
    until_us: int | None = None
    attempts: int = 0
    attempts_max: int | None = None
    began: bool = False
    error: bytes = b""
    child: str = ""

    @property
    def what(self) -> str:
        """In words: "step 'charge'"."""
        return f"{self.kind} {self.name!r}" if self.name else self.kind


@attrs.frozen
class Standing:
    """Where a run stands: what it waits for, the line of the last event that has one, and why code could not tell."""

    waits: tuple[Wait, ...]
    after_line: int | None = None
    by_code: bool = False
    problem: str = ""


def standing(events: Sequence[Event], definition: WorkflowDefinition[Any, Any] | None, codec: Codec) -> Standing:
    """Where a run stands that has this history."""
    recorded = open_by_history(events)
    after = next((line for event in reversed(events) if (line := getattr(event, "line", 0))), None)
    if definition is None:
        return Standing(tuple(recorded.values()), after)
    interpreter = Interpreter(definition, codec)
    try:
        interpreter.replay(list(events))
        found = [_with_code(waiting, recorded.get(waiting.id), events) for waiting in interpreter.waiting.values()]
    except (HistoryMismatch, AlienYield) as error:
        return Standing(tuple(recorded.values()), after, problem=_first_cause(error))
    except DalsegnoError as error:
        return Standing(tuple(recorded.values()), after, problem=str(error))
    finally:
        interpreter.evict()
    dated = [_dated(wait, events, definition, codec) if at < DATED_MAX else wait for at, wait in enumerate(found)]
    return Standing(tuple(dated), after, by_code=True)


def _first_cause(error: DalsegnoError) -> str:
    facts = vars(error)
    if "cause" not in facts:
        return str(error).partition("\n")[0]
    what = f"at event {facts['event_index']} it yields {facts['yielded']} where {facts['recorded']} is recorded"
    return f"{what}; {facts['cause']}"


# --- by the history --------------------------------------------------------------------------------------------------


def open_by_history(events: Sequence[Event]) -> dict[str, Wait]:
    """What the history began and did not end, by command."""
    found: dict[str, Wait] = {}
    for event in events:
        if event.closes:
            return {}
        id: str = getattr(event, "id", "")
        if isinstance(event, ev.StepStarted | ev.StepAttemptFailed):
            found[id] = _attempted(event, found.get(id))
        elif isinstance(event, ev.TimerSet):
            found[id] = Wait(
                id=id,
                kind=event.kind,
                name=event.name,
                line=event.line,
                since_us=event.at_us,
                until_us=event.deadline_us,
            )
        elif isinstance(event, ev.ChildStarted):
            found[id] = Wait(
                id=id, kind="child", name=event.name, line=event.line, since_us=event.at_us, child=event.workflow_id
            )
        else:
            found.pop(id, None)
            if isinstance(event, ev.ScopeCompleted):
                found = {key: wait for key, wait in found.items() if not key.startswith(f"{id}.")}
    return found


def _attempted(event: ev.StepStarted | ev.StepAttemptFailed, before: Wait | None) -> Wait:
    wait = before or Wait(id=event.id, kind="step", name=event.name, line=event.line, since_us=event.at_us)
    if isinstance(event, ev.StepStarted):
        return attrs.evolve(wait, began=True, until_us=None)
    since = event.at_us - event.took_us if before is None else wait.since_us
    return attrs.evolve(
        wait, attempts=event.attempt, until_us=event.retry_at_us, error=event.error, began=False, since_us=since
    )


# --- by the code -----------------------------------------------------------------------------------------------------


def _with_code(waiting: Waiting, recorded: Wait | None, events: Sequence[Event]) -> Wait:
    file, line = waiting.owner.place()
    command: Any = waiting.command
    retry = command.options.retry if waiting.kind == "step" else None
    wait = recorded or Wait(id=waiting.id, kind=waiting.kind, name=waiting.name, since_us=events[-1].at_us)
    return attrs.evolve(
        wait,
        line=line or wait.line,
        file=file,
        source=linecache.getline(file, line).strip() if line else "",
        attempts_max=getattr(retry, "max_attempts", None),
    )


def _dated(wait: Wait, events: Sequence[Event], definition: WorkflowDefinition[Any, Any], codec: Codec) -> Wait:
    """The wait with the time of the event after which it was there, unless the history says it itself."""

    def there(count: int) -> bool:
        interpreter = Interpreter(definition, codec)
        try:
            interpreter.replay(list(events), upto=count)
            return wait.id in interpreter.waiting
        finally:
            interpreter.evict()

    if any(getattr(event, "id", None) == wait.id for event in events):
        return wait
    first = bisect_left(range(len(events)), True, lo=1, key=there)
    return attrs.evolve(wait, since_us=events[max(first - 1, 0)].at_us)
