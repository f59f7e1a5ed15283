"""Saying how a workflow left its recorded path: what was recorded, what it yielded instead, what differs, and why."""

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
from dalsegno.core.interpreter.causes import Case, cause_of, said_error
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
_DECISIONS = {"race": "the winner of a First", "scope": "the end of a Scope"}
_ENDINGS: dict[type[Any], str] = {
    Finished: "the end: the workflow returned",
    Raised: "the end: the workflow raised",
    CancelledOut: "the end: the workflow was cancelled",
    Continued: "the end: the workflow continued as new",
}
REMEDY = "Runs in flight need the path they took: keep it beside the new one with Patched, or leave them the old code."


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
    if error := getattr(event, "error", b"") if event.closes else b"":
        recorded += f" {said_error(machine, error)}"
    cause = _cause(machine, event, differs, waiting)
    return HistoryMismatch(
        f"workflow {workflow_id!r} left its recorded path at event {index}\n"
        f"  recorded  {recorded}\n"
        f"  yielded   {yielded}\n"
        f"  differs   {differs}\n"
        f"  cause     {cause}\n"
        f"{REMEDY} See: replay show {workflow_id} --around {index}",
        workflow_id=workflow_id,
        event_index=index,
        recorded=recorded,
        yielded=yielded,
        differs=differs,
        cause=cause,
        line_then=getattr(event, "line", None) or None,
        line_now=line or None,
        source=file or None,
    )


def _cause(machine: Machine, event: Event, differs: str, nearest: Waiting | None) -> str:
    id: str = getattr(event, "id", "")
    open_ = {node.id: node for node in nodes(machine.root) if hasattr(node, "id")}
    around = sorted((at for at in open_ if id.startswith(f"{at}.")), key=len)
    return cause_of(
        Case(
            machine=machine,
            event=event,
            id=id,
            kind=_kind(event),
            name=getattr(event, "name", "") or getattr(event, "change", ""),
            differs=differs,
            waiting=machine.waiting.get(id),
            node=open_.get(id),
            nearest=nearest,
            around=tuple(open_[at] for at in around),
        )
    )


def _kind(event: Event) -> str:
    return getattr(event, "kind", None) or _KINDS.get(type(event), type(event).__name__)


def describe_event(event: Event) -> str:
    """What an event says was yielded: "step 'charge' (id 3, line 12)"."""
    kind = _kind(event)
    name = getattr(event, "name", "") or getattr(event, "change", "")
    place = [f"id {event.id}"] if hasattr(event, "id") else []
    if line := getattr(event, "line", 0):
        place.append(f"line {line}")
    return f"{kind} {name!r}".removesuffix(" ''") + (f" ({', '.join(place)})" if place else "")


def describe_waiting(waiting: Waiting) -> str:
    """What the workflow yielded: "step 'refund' (id 3, shop.py:14)"."""
    file, line = waiting.owner.place()
    where = f", {file.rpartition('/')[2]}:{line}" if line else ""
    what = _DECISIONS.get(waiting.kind) or waiting.describe()
    return f"{what} (id {waiting.id}{where})"


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
    if isinstance(machine.outcome, Raised | CancelledOut):
        return f"{_ENDINGS[type(machine.outcome)]} {said_error(machine, machine.outcome.payload)}"
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
