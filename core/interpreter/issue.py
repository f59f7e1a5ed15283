"""What each command does when it is yielded: a table of starters by class.

A starter settles the site at once where the answer is known from the history already, asks the engine where it is not,
or makes a node of branches. An `EncodeError` or `UseError` it raises is raised at the workflow's line.

Commands that are answered without an event of their own (`Now`, `Uuid`, `Random`, `Info`, `Publish`, `Patched`, and
awaiting a task or callback) take no ordinal, so that adding one shifts the id of nothing else.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

from dalsegno.core.commands import (
    All,
    Callback,
    Cancel,
    Checkpoint,
    Command,
    ContinueAsNew,
    First,
    Info,
    Map,
    NewCallback,
    Now,
    Patched,
    Publish,
    Random,
    Receive,
    RunInfo,
    RunStep,
    Scope,
    Send,
    Shield,
    SideEffect,
    Sleep,
    SleepUntil,
    Spawn,
    StartChild,
    Task,
    Uuid,
)
from dalsegno.core.errors import BadOption, UseError
from dalsegno.core.events import CallbackCompleted, CallbackFailed
from dalsegno.core.interpreter.asked import Continued
from dalsegno.core.interpreter.joins import AllNode, FirstNode, MapNode
from dalsegno.core.interpreter.machine import Machine, Site, Starter, Watchers
from dalsegno.core.interpreter.regions import ScopeNode, ShieldNode, TaskNode
from dalsegno.core.interpreter.sparse import owned
from dalsegno.core.interpreter.tokens import make_token, secret_of

CONTINUE_AFTER_EVENTS = 10_000  # replays in some 50 ms; a fresh history starts in less than one
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# --- answered by the engine ----------------------------------------------------------------------------------------


def _call(site: Site, command: Any) -> None:
    id = site.next_id()
    payload, digest = site.machine.call(command)
    site.machine.ask(site, command, id, command.kind, command.name, digest, payload)


def _plain(site: Site, command: Command[Any]) -> None:
    id = site.next_id()
    digest = site.machine.fingerprint(command.arguments())
    site.machine.ask(site, command, id, command.kind, command.name, digest)


def _receive(site: Site, command: Receive[Any]) -> None:
    machine, id = site.machine, site.next_id()
    buffered = machine.signals.get(command.signal)
    if buffered:
        signal = buffered.popleft()
        site.settle(True, machine.taken(site, command, signal))
        return
    digest = machine.fingerprint(command.arguments())
    waiting = machine.ask(site, command, id, "receive", command.signal, digest)
    machine.receivers = receivers = owned(machine.receivers)
    receivers.setdefault(command.signal, {})[id] = waiting


def _send(site: Site, command: Send) -> None:
    machine, id = site.machine, site.next_id()
    for what, value in (("workflow id", command.workflow_id), ("name", command.signal)):
        if type(value) is not str or not value:
            raise BadOption(f"Send({value!r}): the {what} is a string that is not empty")
    payload = machine.codec.encode(command.payload)
    digest = machine.fingerprint(command.arguments())
    machine.ask(site, command, id, "send", command.signal, digest, payload)


def _continue(site: Site, command: ContinueAsNew) -> None:
    id = site.next_id()
    payload, _ = site.machine.call(command)
    site.machine.halt(Continued(payload, id, site.place()[1]))


def _patched(site: Site, command: Patched) -> None:
    """A change whose adoption is recorded is waited for, not answered ahead of its event: whatever the workflow does
    next then meets the same time, the same buffered signals and the same order of fibers as it did live."""
    machine, change = site.machine, command.change
    known = machine.changes.get(change)
    if known is None and change not in machine.adopted and machine.last_of_code >= machine.count:
        machine.changes = changes = owned(machine.changes)
        known = changes[change] = False  # code without this change has been here before
    if known is not None:
        site.settle(True, known)
        return
    machine.askers = groups = owned(machine.askers)
    askers = groups.setdefault(change, Watchers(hold=True))
    if askers.waiting is None:
        askers.waiting = machine.ask(site, command, f"patched:{change}", "patched", change, b"")
    askers.add(site, f"patched {change!r}")


def _callback(site: Site, command: Callback[Any]) -> None:
    machine, id = site.machine, command.id
    if command.token != token_of(machine, id):
        raise UseError("this callback belongs to another run, and can only be awaited there")
    if id in machine.promises:
        site.settle(*promised(machine, id, command))
        return
    machine.awaiting = awaiting = owned(machine.awaiting)
    group = awaiting.setdefault(id, Watchers())
    if group.waiting is None:
        group.waiting = machine.ask(site, command, id, "callback", "", b"")
    group.add(site, f"callback {id}")


def promised(machine: Machine, id: str, command: Callback[Any]) -> tuple[bool, Any]:
    """What came of a callback that was completed or failed."""
    event = machine.promises[id]
    if isinstance(event, CallbackCompleted):
        return True, machine.codec.decode(event.result, command.type)
    assert isinstance(event, CallbackFailed)
    return False, machine.error(event.error, f"callback {id}")


# --- nodes ---------------------------------------------------------------------------------------------------------


def _task(site: Site, command: Task[Any]) -> None:
    node = _known_task(site, command)
    if node.seat.ended:
        site.settle(*node.answer())
        return
    inside = f"{node.seat.path}."
    if f"{site.path}.".startswith(inside):
        raise UseError(f"task {command.id} waits for itself, which would be for ever")
    node.watchers.add(site, f"task {command.id}")


def _cancel(site: Site, command: Cancel) -> None:
    site.next_id()
    node = _known_task(site, command.task)
    if node.seat.ended:
        site.settle(True, None)
        return
    node.enders.add(site, f"the end of task {command.task.id}")
    node.seat.cancel("the task was cancelled")


def _known_task(site: Site, task: Task[Any]) -> TaskNode:
    node: TaskNode | None = site.machine.tasks.get(task.id)
    if node is None:
        raise UseError(f"{task!r} was not spawned in this run")
    return node


# --- answered from the history -------------------------------------------------------------------------------------


def _now(site: Site, command: Now) -> None:
    site.settle(True, moment(site.machine.now_us))


def moment(at_us: int) -> datetime:
    """Microseconds since 1970 as an aware datetime.

    >>> moment(1_500_000)
    datetime.datetime(1970, 1, 1, 0, 0, 1, 500000, tzinfo=datetime.timezone.utc)
    """
    return EPOCH + timedelta(microseconds=at_us)


def _derive(site: Site, what: str) -> bytes:
    """Sixteen bytes for this draw: from the run's seed, the fiber's path, and how many were drawn there."""
    place = f"{what}\0{site.path}\0{site.draw(what)}".encode()
    return blake2b(site.machine.started().seed + place, digest_size=16).digest()


def _uuid(site: Site, command: Uuid) -> None:
    site.settle(True, uuid.UUID(bytes=_derive(site, "uuid"), version=4))


def _random(site: Site, command: Random) -> None:
    site.settle(True, Random.seeded(_derive(site, "random")))


def _info(site: Site, command: Info) -> None:
    machine, start = site.machine, site.machine.started()
    info = RunInfo(
        workflow_id=start.workflow_id,
        run_id=f"{start.workflow_id}#{start.generation}",
        attempt=start.generation,
        workflow=start.workflow,
        started_at=moment(start.at_us),
        history_length=machine.count,
        continue_suggested=machine.count >= CONTINUE_AFTER_EVENTS,
        parent_id=start.parent[0] if start.parent else None,
        tags=dict(start.tags),
    )
    site.settle(True, info)


def _publish(site: Site, command: Publish) -> None:
    if type(command.key) is not str:
        raise BadOption(f"Publish({command.key!r}, …): the key is a string")
    value = site.machine.codec.encode(command.value)
    site.machine.published = published = owned(site.machine.published)
    published[command.key] = value
    site.settle(True, None)


def _new_callback(site: Site, command: NewCallback[Any]) -> None:
    id = site.next_id()
    site.settle(True, Callback(token_of(site.machine, id), id, command.type))


def token_of(machine: Machine, id: str) -> str:
    """The token of the callback with this command id."""
    start = machine.started()
    return make_token(start.workflow_id, start.generation, id, secret_of(start.seed, id))


STARTERS: Mapping[type[Command[Any]], Starter] = {
    RunStep: _call,
    StartChild: _call,
    SideEffect: _plain,
    Sleep: _plain,
    SleepUntil: _plain,
    Receive: _receive,
    Send: _send,
    Checkpoint: _plain,
    ContinueAsNew: _continue,
    Patched: _patched,
    NewCallback: _new_callback,
    Callback: _callback,
    All: AllNode,
    Map: MapNode,
    First: FirstNode,
    Spawn: TaskNode,
    Task: _task,
    Cancel: _cancel,
    Scope: ScopeNode,
    Shield: ShieldNode,
    Now: _now,
    Uuid: _uuid,
    Random: _random,
    Info: _info,
    Publish: _publish,
}
"""What a command does, by its class. Whatever is not in here is alien."""
