"""The state of one interpreted run, and what all parts of the interpreter do to it.

The machine holds what waits, what was buffered, and the queue of fibers that can go on. It knows nothing of events
(`fold` does) and nothing of single commands (`issue` and the nodes do).

A *site* is where a command stands: a fiber that yielded it, or the seat of a branch that is a plain command. Whatever
the command leads to (a `Waiting`, a node of several branches) is the site's `node`, and ends by calling
`site.settle(ok, value)` exactly once, at once or later.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from dalsegno.core.commands import Command
from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.errors import Cancelled, EncodeError, RemoteError, TimedOut
from dalsegno.core.events import CarriedSignal, Event, RunStarted
from dalsegno.core.interpreter.asked import CancelledOut, Finished, Raised, RunOutcome, Waiting
from dalsegno.core.interpreter.sparse import NONE, owned
from dalsegno.core.values.codec import Codec


class Site(Protocol):
    """Where a command stands, and who hears of its end."""

    machine: Machine
    path: str
    region: Any
    node: Any

    def next_id(self) -> str:
        """The id for a command that is counted."""

    def draw(self, what: str) -> int:
        """How many times `what` ("uuid", "random") was asked for here, counting this one."""

    def place(self) -> tuple[str, int]:
        """The source file and line of the `yield`, or ("", 0)."""

    def settle(self, ok: bool, value: Any) -> None:
        """The command has ended with a value, or with an error to be raised."""


Starter = Callable[[Any, Any], object]


class Watcher:
    """A site that waits for something others may wait for as well: a task, a callback, a change to be adopted."""

    __slots__ = ("group", "site", "what")
    shielded = False

    def __init__(self, site: Site, group: Watchers, what: str) -> None:
        self.site, self.group, self.what = site, group, what

    def cancel(self, reason: str) -> None:
        """Stop watching; what was watched goes on."""
        if self.group.hold:
            return
        self.group.sites.remove(self)
        if self.group.waiting is not None and not self.group.sites:
            self.site.machine.drop(self.group.waiting)
            self.group.waiting = None
        self.site.settle(False, Cancelled(reason))

    def parts(self) -> tuple[Any, ...]:
        """Nothing is beneath."""
        return ()

    def describe(self) -> str:
        """What is watched, for people."""
        return self.what


class Watchers:
    """Sites that wait for one thing. `waiting` is what the engine was asked, if it was; `hold` keeps watchers until the
    answer is there, even when they are cancelled."""

    __slots__ = ("hold", "sites", "waiting")

    def __init__(self, hold: bool = False) -> None:
        self.sites: list[Watcher] = []
        self.waiting: Waiting | None = None
        self.hold = hold

    def add(self, site: Site, what: str) -> None:
        """Let a site wait."""
        watcher = Watcher(site, self, what)
        site.node = watcher
        self.sites.append(watcher)

    def tell(self, answer: Callable[[], tuple[bool, Any]]) -> None:
        """End the wait of all, in the order they came; each gets an answer of its own."""
        sites, self.sites, self.waiting = self.sites, [], None
        for watcher in sites:
            watcher.site.settle(*answer())


@attrs.define(slots=True, eq=False)
class Machine:
    """The state of one run. `settled` callbacks end in `run`, which lets fibers go on, first in first out."""

    definition: WorkflowDefinition[Any, Any]
    codec: Codec
    bare: Codec  # the codec without layers: fingerprints have to be the same each time, and encryption is not
    starters: Mapping[type[Command[Any]], Starter]
    context: contextvars.Context

    info: RunStarted | None = None
    root: Any = None
    queue: deque[Any] = attrs.field(factory=deque)
    waiting: dict[str, Waiting] = attrs.field(factory=dict)
    issued: list[Waiting] = attrs.field(factory=list)
    withdrawn: Sequence[Waiting] = ()
    published: Mapping[str, bytes] = NONE
    outcome: RunOutcome | None = None
    closed: bool = False
    now_us: int = 0
    count: int = 0
    cancel_requested: bool = False
    warnings: Sequence[str] = ()

    # What is known of the recorded future: the last event that speaks of code having run, changes and scopes.
    last_of_code: int = -1
    adopted: frozenset[str] = frozenset()
    finished_scopes: frozenset[str] = frozenset()
    reserved: frozenset[int] = frozenset()

    # Written to by way of `owned`.
    receivers: Mapping[str, dict[str, Waiting]] = NONE
    signals: Mapping[str, deque[CarriedSignal]] = NONE
    timers: Mapping[str, Waiting] = NONE  # withdrawn, and the history does not say so yet
    tasks: Mapping[str, Any] = NONE
    changes: Mapping[str, bool] = NONE
    askers: Mapping[str, Watchers] = NONE
    promises: Mapping[str, Event] = NONE
    awaiting: Mapping[str, Watchers] = NONE

    # --- fibers ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Let every fiber that can go on do so, until all wait."""
        queue = self.queue
        while queue and self.outcome is None:
            queue.popleft().advance()

    def started(self) -> RunStarted:
        """The run's first event."""
        assert self.info is not None
        return self.info

    # --- fingerprints ----------------------------------------------------------------------------------------------

    def fingerprint(self, arguments: tuple[Any, ...]) -> bytes:
        """The digest of a command's arguments. Raises `EncodeError` for what cannot be stored."""
        return self.bare.digest(self.bare.encode_call(arguments, {}))

    def call(self, command: Any) -> tuple[bytes, bytes]:
        """Payload and digest of a step's or workflow's arguments."""
        payload = self.codec.encode_call(command.args, command.kwargs)
        if self.bare is self.codec:
            return payload, self.codec.digest(payload)
        return payload, self.bare.digest(self.bare.encode_call(command.args, command.kwargs))

    def same_value(self, a: bytes, b: bytes) -> bool:
        """Whether two payloads hold the same value; layers may have written them differently."""
        if a == b or self.bare is self.codec:
            return a == b
        return self.bare.encode(self.codec.decode(a)) == self.bare.encode(self.codec.decode(b))

    def error(self, payload: bytes, what: str) -> BaseException:
        """A fresh exception from a recorded one, with a note that says where in which history it stands."""
        error = self.codec.decode_error(payload)
        if not isinstance(error, Exception) or isinstance(error, StopIteration | StopAsyncIteration):
            kind = type(error).__qualname__
            error = RemoteError(f"{kind}: {error}", type_name=kind, details={}, traceback_text="")
        error.add_note(f"[run {self.started().workflow_id!r}, event {self.count - 1}: {what}]")
        return error

    # --- what the engine is asked ------------------------------------------------------------------------------------

    def ask(
        self, site: Site, command: Command[Any], id: str, kind: str, name: str, digest: bytes, payload: bytes = b""
    ) -> Waiting:
        """Let a site wait for the outside."""
        waiting = Waiting(site, command, id, kind, name, digest, payload)
        self.waiting[id] = waiting
        self.issued.append(waiting)
        site.node = waiting
        return waiting

    def drop(self, waiting: Waiting) -> None:
        """Nobody waits for this any more; tell the engine if it knows of it."""
        del self.waiting[waiting.id]
        if waiting.kind == "receive":
            del self.receivers[waiting.name][waiting.id]
        if waiting.deadline_us is not None:
            self.give_back(waiting)
        elif waiting.handed:
            self.withdraw(waiting)

    def withdraw(self, waiting: Waiting) -> None:
        """Have the engine told that this is no longer waited for."""
        self.withdrawn = [*self.withdrawn, waiting]

    def give_back(self, waiting: Waiting) -> None:
        """Have a timer cancelled that was set for a command, if one was."""
        if waiting.deadline_us is not None:
            self.timers = timers = owned(self.timers)
            timers[waiting.id] = waiting
            self.withdraw(waiting)

    def cancel_waiting(self, waiting: Waiting, reason: str) -> None:
        """Cancel a leaf: over at once, except for a child, which is told and has to end first."""
        if waiting.child_id is not None and not waiting.goes_on_alone:
            if not waiting.withdrawn:
                waiting.withdrawn = True
                self.withdraw(waiting)
            return
        self.drop(waiting)
        waiting.owner.settle(False, Cancelled(reason))

    # --- signals -----------------------------------------------------------------------------------------------------

    def receive(self, signal: CarriedSignal) -> None:
        """A signal came in: it goes to the `Receive` that has waited longest for this name, or into the buffer."""
        if signal.seq in self.reserved:
            return  # a scope that is passed over has received it
        receivers = self.receivers.get(signal.name)
        if not receivers or self.outcome is not None:
            self.signals = signals = owned(self.signals)
            signals.setdefault(signal.name, deque()).append(signal)
            return
        waiting = next(iter(receivers.values()))
        value = self.taken(waiting.owner, waiting.command, signal)
        del self.waiting[waiting.id]
        del receivers[waiting.id]
        self.give_back(waiting)
        waiting.owner.settle(True, value)

    def taken(self, site: Site, command: Any, signal: CarriedSignal) -> Any:
        """The value a signal brings; the scopes around the receiver remember that they consumed it."""
        self.consume(site.region, (signal.seq,))
        return self.codec.decode(signal.payload, command.type)

    @staticmethod
    def consume(region: Any, seqs: Sequence[int]) -> None:
        """Note in a region and all around it that signals were received inside."""
        while region is not None:
            if region.consumed is not None:
                region.consumed.extend(seqs)
            region = region.around

    @staticmethod
    def timed_out(waiting: Waiting) -> TimedOut:
        """What a `Receive`, or a step with a bound on all of it, raises when its deadline has passed."""
        command: Any = waiting.command
        if waiting.kind == "step":
            limit = command.options.total_timeout
            of = "" if limit is None else f" of {limit:g} s"  # None: other code than that which set the timer
            message = f"step {waiting.name!r} did not end within its total_timeout{of}"
            return TimedOut(message, step=waiting.name, timeout=limit)
        message = f"no signal {waiting.name!r} came within {command.timeout:g} s"
        return TimedOut(message, signal=waiting.name, timeout=command.timeout)

    # --- the end -----------------------------------------------------------------------------------------------------

    def finish(self, ok: bool, value: Any, unawaited: tuple[str, ...]) -> None:
        """The root has ended, and so have its tasks. What held them is let go, so that no cycle is left to collect."""
        self.root = None
        self.tasks = NONE
        if ok:
            try:
                self.outcome = Finished(self.codec.encode(value), unawaited)
                return
            except EncodeError as error:
                what = f"the value returned by workflow {self.definition.name!r}"
                value = EncodeError(f"{what} cannot be stored: {error}", **vars(error))
        payload = self.codec.encode_error(value)
        cancelled = self.cancel_requested and isinstance(value, Cancelled)
        self.outcome = CancelledOut(payload) if cancelled else Raised(payload)

    def halt(self, outcome: RunOutcome) -> None:
        """Stop where everything stands."""
        self.outcome = outcome
        self.queue.clear()
