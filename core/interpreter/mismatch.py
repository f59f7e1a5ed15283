"""Saying how a workflow left its recorded path: what was recorded, what it yielded instead, what differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dalsegno.core.errors import HistoryMismatch
from dalsegno.core.events import (
    CheckpointTaken,
    ChildCompleted,
    ChildFailed,
    ChildNotStarted,
    ChildStarted,
    Event,
    PatchAdopted,
    RaceDecided,
    RunCancelled,
    RunCompleted,
    RunContinued,
    RunFailed,
    ScopeCompleted,
    SideEffectRecorded,
    SignalNotSent,
    SignalSent,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    StepStarted,
    TimerCancelled,
    TimerFired,
)
from dalsegno.core.interpreter.asked import CancelledOut, Continued, Finished, Raised, Waiting
from dalsegno.core.interpreter.machine import Machine

_KINDS: dict[type[Event], str] = {
    StepStarted: "step",
    StepAttemptFailed: "step",
    StepCompleted: "step",
    StepFailed: "step",
    TimerFired: "timer",
    TimerCancelled: "timer",
    SignalSent: "send",
    SignalNotSent: "send",
    ChildStarted: "child",
    ChildNotStarted: "child",
    ChildCompleted: "child",
    ChildFailed: "child",
    SideEffectRecorded: "side effect",
    RaceDecided: "the winner of a First",
    ScopeCompleted: "the end of a Scope",
    CheckpointTaken: "checkpoint",
    PatchAdopted: "patched",
    RunCompleted: "the end: the workflow returned",
    RunFailed: "the end: the workflow raised",
    RunCancelled: "the end: the workflow was cancelled",
    RunContinued: "the end: the workflow continued as new",
}
_ENDINGS: dict[type[Any], str] = {
    Finished: "the end: the workflow returned",
    Raised: "the end: the workflow raised",
    CancelledOut: "the end: the workflow was cancelled",
    Continued: "the end: the workflow continued as new",
}
CAUSE = "Most often a clock, a random choice or an edit to the workflow."


def mismatch(
    machine: Machine, event: Event, differs: str, yielded: str | None = None, waiting: Waiting | None = None
) -> HistoryMismatch:
    """The error for an event that does not fit; the event is the one folded last. What was yielded is looked up when
    it is not given."""
    index = machine.count - 1
    id: str = getattr(event, "id", "")
    waiting = waiting or _nearest(machine, id)
    if yielded is None:
        yielded = _yielded(machine, id, waiting)
    file, line = waiting.owner.place() if waiting is not None else ("", 0)
    workflow_id = machine.info.workflow_id if machine.info is not None else "?"
    recorded = describe_event(event)
    return HistoryMismatch(
        f"workflow {workflow_id!r} left its recorded path at event {index}\n"
        f"  recorded  {recorded}\n"
        f"  yielded   {yielded}\n"
        f"  differs   {differs}\n"
        f"{CAUSE} See: replay show {workflow_id} --around {index}",
        workflow_id=workflow_id,
        event_index=index,
        recorded=recorded,
        yielded=yielded,
        differs=differs,
        line_then=getattr(event, "line", None) or None,
        line_now=line or None,
        source=file or None,
    )


def describe_event(event: Event) -> str:
    """What an event says was yielded: "step 'charge' (id 3, line 12)"."""
    kind = getattr(event, "kind", None) or _KINDS.get(type(event), type(event).__name__)
    name = getattr(event, "name", "") or getattr(event, "change", "")
    place = [f"id {event.id}"] if hasattr(event, "id") else []
    if line := getattr(event, "line", 0):
        place.append(f"line {line}")
    return f"{kind} {name!r}".removesuffix(" ''") + (f" ({', '.join(place)})" if place else "")


def describe_waiting(waiting: Waiting) -> str:
    """What the workflow yielded: "step 'refund' (id 3, shop.py:14)"."""
    file, line = waiting.owner.place()
    where = f", {file.rpartition('/')[2]}:{line}" if line else ""
    return f"{waiting.describe()} (id {waiting.id}{where})"


def describe_call(waiting: Waiting) -> str:
    """The same with the arguments, for when these are what differs."""
    command: Any = waiting.command
    if hasattr(command, "args"):
        shown = ", ".join([*map(repr, command.args), *(f"{key}={value!r}" for key, value in command.kwargs.items())])
    else:
        shown = ", ".join(map(repr, command.arguments()))
    shown = f"{shown[:119]}…" if len(shown) > 120 else shown
    return f"{describe_waiting(waiting)} with ({shown})"


def _nearest(machine: Machine, id: str) -> Waiting | None:
    """The open command at this id, or the one whose id shares most of its path with it, or any."""
    exact = machine.waiting.get(id)
    if exact is not None or not machine.waiting:
        return exact
    wanted = id.split(".")

    def closeness(waiting: Waiting) -> int:
        same = 0
        for ours, theirs in zip(wanted, waiting.id.split("."), strict=False):
            if ours != theirs:
                break
            same += 1
        return same

    return max(machine.waiting.values(), key=closeness)


def _yielded(machine: Machine, id: str, nearest: Waiting | None) -> str:
    if machine.outcome is not None:
        return _ENDINGS[type(machine.outcome)]
    node = next((node for node in nodes(machine.root) if getattr(node, "id", None) == id), None)
    if node is not None and not isinstance(node, Waiting):
        file, line = node.place()
        return f"{node.describe()} (id {id}, {file.rpartition('/')[2]}:{line})"
    if nearest is None:
        return "nothing that waits for an event"
    return describe_waiting(nearest)


def nodes(top: Any) -> Iterator[Any]:
    """Everything that is open beneath a node, the node included."""
    todo = [top] if top is not None else []
    while todo:
        node = todo.pop()
        yield node
        todo.extend(reversed(node.parts()))
