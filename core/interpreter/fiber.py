"""Fibers: generators that are driven side by side, and seats: the places of branches.

A fiber sends values into its generator until a command has to wait, and is put into the machine's queue when the
command has been answered. Nothing here recurses with the length of a history: an answer only queues the fiber.

A cancelled fiber has its current command cancelled, and when that is done `Cancelled` is raised at the `yield`. It is
cancelled once in its life, so that what its `finally` blocks yield runs to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping
from typing import Any

from dalsegno.core.commands import Command
from dalsegno.core.errors import Cancelled, EncodeError, RemoteError, UseError
from dalsegno.core.interpreter.alien import alien_branch, alien_loop, alien_yield, needs_a_loop
from dalsegno.core.interpreter.frames import innermost
from dalsegno.core.interpreter.machine import Machine, Starter
from dalsegno.core.interpreter.sparse import NONE, owned

NOTHING: Any = object()

Drive = tuple[Callable[[Any], Any], Callable[[BaseException], Any]]

watch: Callable[[str, Any], Drive] | None = None
"""Put here by a determinism guard while it is on: it is told, in the run's own context, the workflow's name and each
generator before that is driven, and answers the `send` and `throw` to drive it by."""


class Fiber:
    """One generator or coroutine of commands, its counters, and what it waits for."""

    __slots__ = (
        "cancelled",
        "counts",
        "done",
        "generator",
        "interrupted",
        "machine",
        "node",
        "ok",
        "ordinal",
        "owner",
        "path",
        "pending",
        "prefix",
        "ready",
        "reason",
        "region",
        "running",
        "send",
        "started",
        "throw",
        "value",
    )
    shielded = False

    def __init__(self, machine: Machine, generator: Any, path: str, owner: Any, region: Any) -> None:
        self.machine = machine
        self.generator = generator
        drive: Drive = (generator.send, generator.throw)
        if watch is not None:
            drive = watch(machine.definition.name, generator)
        self.send, self.throw = drive
        self.path = path
        self.prefix = f"{path}." if path else ""
        self.owner = owner
        self.region = region
        self.node: Any = None
        self.ordinal = 0
        self.counts: Mapping[str, int] = NONE
        self.ok = True
        self.value: Any = None
        self.started = self.running = self.ready = self.done = False
        self.cancelled = False  # once and for all
        self.interrupted = False  # `Cancelled` is raised when the node has ended, whatever it ended with
        self.pending = False  # `Cancelled` is raised at the next command
        self.reason = ""

    # --- as a site -------------------------------------------------------------------------------------------------

    def next_id(self) -> str:
        """The id of the command that was just yielded."""
        self.ordinal += 1
        return f"{self.prefix}{self.ordinal}"

    def draw(self, what: str) -> int:
        """How many times `what` was asked for here, counting this one."""
        self.counts = counts = owned(self.counts)
        counts[what] = counts.get(what, 0) + 1
        return counts[what]

    def place(self) -> tuple[str, int]:
        """The source file and line this fiber stands at."""
        frame = innermost(self.generator)
        return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("", 0)

    def settle(self, ok: bool, value: Any) -> None:
        """What the fiber waited for has ended."""
        self.node = None
        if self.interrupted:
            self.interrupted = False
            ok, value = False, Cancelled(self.reason)
        self.ok = ok
        self.value = value
        if self.running:
            self.ready = True
        else:
            self.machine.queue.append(self)

    # --- running ---------------------------------------------------------------------------------------------------

    def advance(self, command: Any = NOTHING) -> None:
        """Go on until a command has to wait. `command` was already yielded, when given."""
        machine = self.machine
        starters = machine.starters
        self.started = self.running = True
        while not self.done:
            if command is NOTHING:
                value, self.value = self.value, None
                try:
                    command = self.send(value) if self.ok else self.throw(value)
                except StopIteration as stop:
                    return self.finish(True, stop.value)
                except BaseException as error:
                    value = None  # the error's frames lead to this one
                    return self.finish(False, failure_of(error))
            starter = starters.get(type(command))
            if starter is None:
                raise alien_yield(machine.definition.name, self.generator, command)
            self.ready = False
            self._begin(starter, command)
            command = NOTHING
            if not self.ready or machine.outcome is not None:
                self.running = False
                return

    def _begin(self, starter: Starter, command: Any) -> None:
        pending, self.pending = self.pending, False
        if pending:
            self.settle(False, Cancelled(self.reason))
            return
        try:
            starter(self, command)
        except (EncodeError, UseError) as error:
            self.settle(False, error)
        if self.pending and not self.ready and not self.node.shielded:
            self.pending = False  # it cancelled itself, and what it waits for now might wait for it
            self._interrupt()

    def finish(self, ok: bool, value: Any) -> None:
        """The generator has ended."""
        self.done, self.running = True, False
        owner, self.owner = self.owner, None  # an error's frames lead here: no cycle is left to collect
        owner.settle(ok, value)

    def cancel(self, reason: str) -> None:
        """Have `Cancelled` raised where the fiber waits. A branch that has not begun never runs."""
        if self.cancelled or self.done:
            return
        self.cancelled, self.reason = True, reason
        if not self.started and self.path:
            self.generator.close()
            self.finish(False, Cancelled(reason))
        elif self.node is None or self.node.shielded:
            self.pending = True
        else:
            self._interrupt()

    def _interrupt(self) -> None:
        self.interrupted = True
        self.node.cancel(self.reason)

    # --- for people ------------------------------------------------------------------------------------------------

    def parts(self) -> tuple[Any, ...]:
        """The node beneath."""
        return (self.node,) if self.node is not None else ()

    def describe(self) -> str:
        """The name of the function."""
        return str(getattr(self.generator, "__qualname__", type(self.generator).__name__))


def failure_of(error: BaseException) -> BaseException:
    """What a workflow's failure is when its code let this pass. Ctrl-C is nobody's failure and goes through.

    The frame of ours that caught it is taken off the traceback, which then is the same live and on replay.
    """
    if error.__traceback__ is not None:
        error.__traceback__ = error.__traceback__.tb_next
    if isinstance(error, Exception):
        if needs_a_loop(error):
            raise alien_loop(error) from error
        return error
    if isinstance(error, KeyboardInterrupt):
        raise error
    wrapped = RemoteError(
        f"{type(error).__name__}: {error}", type_name=type(error).__qualname__, details={}, traceback_text=""
    )
    wrapped.__cause__ = error
    return wrapped


class Seat:
    """The place of one branch in a node of several: the site of a plain command, or the owner of a fiber."""

    __slots__ = ("ended", "index", "machine", "node", "ok", "owner", "path", "region", "stopped", "value")

    def __init__(self, owner: Any, index: int, path: str, region: Any) -> None:
        self.machine: Machine = owner.machine
        self.owner = owner
        self.index = index
        self.path = path
        self.region = region
        self.node: Any = None
        self.ended = self.stopped = False
        self.ok = False
        self.value: Any = None

    def begin(self, branch: Any) -> None:
        """Start the branch. A plain command starts at once; a generator is queued."""
        if isinstance(branch, Generator | Coroutine):
            self.node = Fiber(self.machine, branch, self.path, self, self.region)
            self.machine.queue.append(self.node)
            return
        starter = self.machine.starters.get(type(branch)) if isinstance(branch, Command) else None
        if starter is None:
            file, line = self.place()
            raise alien_branch(self.machine.definition.name, self.owner.describe(), self.index, branch, file, line)
        try:
            starter(self, branch)
        except (EncodeError, UseError) as error:
            self.settle(False, error)

    def cancel(self, reason: str) -> None:
        """Cancel the branch, if it has not ended."""
        if not self.ended:
            self.stopped = True
            self.node.cancel(reason)

    def next_id(self) -> str:
        """The id of a plain command: the branch's path."""
        return self.path

    def draw(self, what: str) -> int:
        """A plain command is the only one of its kind here."""
        return 1

    def place(self) -> tuple[str, int]:
        """The line at which the whole node was yielded."""
        place: tuple[str, int] = self.owner.place()
        return place

    def settle(self, ok: bool, value: Any) -> None:
        """The branch has ended."""
        self.node = None
        self.ended, self.ok, self.value = True, ok, value
        owner, self.owner = self.owner, None  # no cycle is left for the garbage collector
        owner.branch_ended(self)


def discard(branch: Any) -> None:
    """Put away a branch that will never run, without the warning Python has for a coroutine nobody awaited."""
    if isinstance(branch, Generator | Coroutine):
        branch.close()
