"""Regions own spawned tasks: the root of the run, and every `Scope`. Also `Shield`, and the tasks themselves.

A region is over when its branch has ended and all tasks spawned inside have. A branch that returned waits for them; one
that failed or was cancelled has them cancelled first. So no task outlives what it belongs to, and what lies inside a
finished scope can be passed over by a replay as a whole. The run itself does not wait for tasks that are nothing but
children with `on_parent_close="abandon"`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

from dalsegno.core.commands import Command, Scope, Shield, Spawn, Task
from dalsegno.core.errors import Cancelled, EncodeError
from dalsegno.core.interpreter.asked import Waiting
from dalsegno.core.interpreter.fiber import Fiber, Seat, discard
from dalsegno.core.interpreter.machine import Machine, Site, Watchers
from dalsegno.core.interpreter.sparse import NONE, owned

ENDED = "what this task belongs to has ended"


class TaskNode:
    """A spawned branch."""

    def __init__(self, site: Site, command: Spawn[Any]) -> None:
        self.machine: Machine = site.machine
        self.id = site.next_id()
        self.region: Region = site.region
        self.at = site.place()
        self.name = _name_of(command.branch)
        self.watchers = Watchers()  # those who want its value
        self.enders = Watchers()  # those who cancelled it, and wait for its end
        self.awaited = False
        self.seat = Seat(self, 0, f"{self.id}.1", site.region)
        self.region.open = inside = owned(self.region.open)
        self.machine.tasks = tasks = owned(self.machine.tasks)
        inside[self.id] = tasks[self.id] = self
        self.seat.begin(command.branch)
        site.settle(True, Task(self.id))

    def branch_ended(self, seat: Seat) -> None:
        """The task has ended: whoever waits for it hears of it, and so does its region."""
        self.watchers.tell(self.answer)
        self.enders.tell(lambda: (True, None))
        del owned(self.region.open)[self.id]
        self.region.task_ended(self)

    def answer(self) -> tuple[bool, Any]:
        """How it ended."""
        self.awaited = True
        return self.seat.ok, self.seat.value

    def was_cancelled(self) -> bool:
        """Whether it ended as it was told to."""
        return self.seat.stopped and isinstance(self.seat.value, Cancelled)

    def outlives_run(self) -> bool:
        """Whether it is a child run alone, which goes on when its parent has ended."""
        return isinstance(self.seat.node, Waiting) and self.seat.node.goes_on_alone

    def place(self) -> tuple[str, int]:
        """Where it was spawned."""
        return self.at

    def parts(self) -> tuple[Any, ...]:
        """The branch."""
        return (self.seat.node,) if self.seat.node is not None else ()

    def describe(self) -> str:
        """What it is, for people."""
        return f"task {self.id}"


class Region(abc.ABC):
    """What owns tasks. `around` is the region it lies in; `consumed` the signals received inside, where that counts."""

    consumed: list[int] | None = None
    around: Region | None = None

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.open: Mapping[str, TaskNode] = NONE
        self.failed: Sequence[TaskNode] = ()
        self.over = self.ended = False
        self.ok = False
        self.value: Any = None

    def branch_over(self, ok: bool, value: Any, stop: bool) -> None:
        """The branch has ended; its tasks are waited for, and cancelled first if `stop`."""
        self.over, self.ok, self.value = True, ok, value
        if stop:
            self.stop_tasks(ENDED)
        self.conclude()

    def stop_tasks(self, reason: str) -> None:
        """Cancel every task that is open."""
        for task in list(self.open.values()):
            task.seat.cancel(reason)

    def task_ended(self, task: TaskNode) -> None:
        """A task of this region has ended."""
        if not task.seat.ok and not task.was_cancelled():
            self.failed = [*self.failed, task]
        self.conclude()

    def conclude(self) -> None:
        """End, if everything has."""
        if self.over and not self.open and not self.ended:
            self.ended = True
            self.end()

    @abc.abstractmethod
    def end(self) -> None:
        """Everything has ended."""


class Root(Region):
    """The run as a whole: owns the root fiber."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.fiber: Fiber | None = None

    def begin(self, generator: Any) -> None:
        """Start the workflow's own generator."""
        self.fiber = Fiber(self.machine, generator, "", self, self)
        self.machine.queue.append(self.fiber)

    def settle(self, ok: bool, value: Any) -> None:
        """The workflow returned or raised."""
        self.branch_over(ok, value, stop=not ok or self.machine.cancel_requested)

    def cancel(self, reason: str) -> None:
        """The run was asked to end itself: its root is cancelled, or, when that has returned, the tasks it left."""
        if self.over:
            self.stop_tasks(reason)
        elif self.fiber is not None:
            self.fiber.cancel(reason)

    def conclude(self) -> None:
        """End, if everything has but for children that are to go on alone. As long as there is anything else, it may
        still ask for what they come to."""
        if self.over and self.open and all(task.outlives_run() for task in self.open.values()):
            self.stop_tasks(ENDED)
        super().conclude()

    def end(self) -> None:
        self.fiber = None
        unseen = [task for task in self.failed if not task.awaited]
        names = tuple(f"{task.id} {task.name}: {_short(task.seat.value)}" for task in unseen)
        self.machine.finish(self.ok, self.value, names)

    def parts(self) -> tuple[Any, ...]:
        """The root fiber, and tasks."""
        root = (self.fiber,) if self.fiber is not None and not self.fiber.done else ()
        return (*root, *self.open.values())


def _name_of(branch: Any) -> str:
    if isinstance(branch, Command):
        return branch.name or branch.kind
    return str(getattr(branch, "__name__", type(branch).__name__))


def _short(error: BaseException) -> str:
    shown = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return shown if len(shown) < 200 else f"{shown[:199]}…"


class ScopeNode(Region):
    """`Scope`: its outcome is recorded as one event, and a replay that finds the event does not run the inside."""

    shielded = False

    def __init__(self, site: Site, command: Scope[Any]) -> None:
        super().__init__(site.machine)
        self.site = site
        self.command = command
        self.id = site.next_id()
        self.around = site.region
        self.consumed = []
        self.cancelled: Cancelled | None = None
        self.proposal: Waiting | None = None
        self.seat = Seat(self, 0, f"{self.id}.1", self)
        site.node = self
        if self.id in self.machine.finished_scopes:
            discard(command.branch)
            self.propose(b"", b"").handed = True  # its event is in the history: the engine has nothing to do
        else:
            self.seat.begin(command.branch)

    def branch_ended(self, seat: Seat) -> None:
        """The branch has ended; tasks spawned inside come next."""
        self.branch_over(seat.ok, seat.value, stop=not seat.ok or self.cancelled is not None)

    def end(self) -> None:
        if self.cancelled is not None:
            self.site.settle(False, self.cancelled)
            return
        codec = self.machine.codec
        if self.ok:
            try:
                self.propose(codec.encode(self.value), b"")
                return
            except EncodeError as error:
                self.value = EncodeError(f"the value of Scope {self.id} cannot be stored: {error}", **vars(error))
        self.propose(b"", codec.encode_error(self.value))

    def propose(self, result: bytes, error: bytes) -> Waiting:
        """Ask the engine to record the outcome."""
        proposal = self.machine.ask(self.site, self.command, self.id, "scope", "", b"")
        self.site.node = self
        proposal.node = self
        proposal.propose_outcome(result, error, tuple(self.consumed or ()))
        self.proposal = proposal
        return proposal

    def cancel(self, reason: str) -> None:
        """Cancel the branch, or take the proposal back."""
        if self.cancelled is not None:
            return
        self.cancelled = Cancelled(reason)
        if self.proposal is not None:
            self.machine.drop(self.proposal)
            self.proposal = None
            self.site.settle(False, self.cancelled)
        elif self.over:
            self.stop_tasks(reason)
        else:
            self.seat.cancel(reason)

    def completed(self, result: bytes, error: bytes, consumed: tuple[int, ...]) -> None:
        """The outcome was recorded; what the workflow gets is what the record says."""
        if not self.over:  # passed over: what was received inside is known from the record alone
            self.machine.consume(self.around, consumed)
        self.proposal = None
        if error:
            self.site.settle(False, self.machine.error(error, f"scope {self.id}"))
        else:
            self.site.settle(True, self.machine.codec.decode(result))

    def place(self) -> tuple[str, int]:
        """The line at which the scope was yielded."""
        return self.site.place()

    def parts(self) -> tuple[Any, ...]:
        """The branch, and tasks spawned inside."""
        branch = (self.seat.node,) if self.seat.node is not None else ()
        return (*branch, *self.open.values())

    def describe(self) -> str:
        """What it is, for people."""
        return "Scope"


class ShieldNode:
    """`Shield`: a cancellation from outside does not reach the branch."""

    shielded = True

    def __init__(self, site: Site, command: Shield[Any]) -> None:
        self.machine: Machine = site.machine
        self.site = site
        self.id = site.next_id()
        self.seat = Seat(self, 0, f"{self.id}.1", site.region)
        site.node = self
        self.seat.begin(command.branch)

    def branch_ended(self, seat: Seat) -> None:
        """The branch has ended, and so has the shield."""
        self.site.settle(seat.ok, seat.value)

    def cancel(self, reason: str) -> None:
        """Let it pass."""

    def place(self) -> tuple[str, int]:
        """The line at which the shield was yielded."""
        return self.site.place()

    def parts(self) -> tuple[Any, ...]:
        """The branch."""
        return (self.seat.node,) if self.seat.node is not None else ()

    def describe(self) -> str:
        """What it is, for people."""
        return "Shield"
