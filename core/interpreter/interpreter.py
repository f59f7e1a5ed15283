"""The interpreter: folds a history into the state of a running workflow, and says what is to be done next.

**What replay is.** A generator cannot be stored. What can be stored is everything it was ever told: the events of its
history. Replay makes a fresh generator and tells it the same things in the same order, and it ends up at the same
`yield` with the same local variables. No step runs again, since its result is among the things told. There is no other
mode: a live run is a replay to which the engine adds events at the end, one `apply` at a time.

**What is assumed of a workflow.** Told the same, it yields the same. So it must not ask the machine for the time, for
chance, for files or the network, nor iterate over a set of strings, without yielding a command for it; and code that
has histories in flight is changed only with `Patched`. Nothing is assumed of threads: one call at a time, from any.

**How it is held to that.** The id of a command is its place in the program: the path of its fiber and its ordinal there
("3", "3.2.1"). An event that answers a command carries the command's id, kind, name and a digest of its arguments, and
has to find exactly that command open. Decisions between things that happen at once are made by the order of events,
nothing else: never by a clock, a set's order or a hash.

**What can go wrong.** `HistoryMismatch`: the code does not fit the history. `AlienYield`: it yielded what is not a
command. `DecodeError`: a payload cannot be read back. The interpreter then repeats the same error at every call; the
run is blocked, not failed, and goes on when a new interpreter with mended code has replayed it. Everything a workflow
raises by itself is not an error here but an outcome.

    interpreter = Interpreter(definition, codec)
    interpreter.replay(events)          # what is known
    for waiting in interpreter.take().issued:
        ...                             # carry it out, record an event
        interpreter.apply(event)        # what has become known

The parts: `machine` (the state), `fiber` (driving generators), `issue` (what each command does), `fold` (what each
event does), `answers` (which event may answer which command), `joins` and `regions` (commands with branches), `asked`
(what the engine gets to see), `mismatch` and `alien` (explaining), `frames` (looking into suspended generators).
"""

from __future__ import annotations

import contextvars
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.errors import InvalidToken, UseError
from dalsegno.core.events import CarriedSignal, Event, PatchAdopted, RunStarted, ScopeCompleted, StepCompleted
from dalsegno.core.interpreter.asked import NOTHING_NEW, Advance, RunOutcome, Waiting
from dalsegno.core.interpreter.evict import evict, generators
from dalsegno.core.interpreter.fold import BESIDE_CODE, fold, is_inside, streak
from dalsegno.core.interpreter.frames import is_suspended_inside_try
from dalsegno.core.interpreter.issue import STARTERS
from dalsegno.core.interpreter.machine import Machine
from dalsegno.core.interpreter.regions import Root
from dalsegno.core.interpreter.sparse import NONE
from dalsegno.core.interpreter.tokens import parse_token, secret_of
from dalsegno.core.interpreter.views import FiberView, view
from dalsegno.core.values.codec import Codec


class Interpreter:
    """One run of one workflow, as far as its history says. See the module for what it does and assumes.

    Not thread-safe, and does not care which thread calls. Workflow code runs inside `replay` and `apply`, in a
    `contextvars.Context` of the run's own.

    >>> from dalsegno.core.commands import Flow, Receive
    >>> from dalsegno.core.definitions import workflow
    >>> from dalsegno.core.events import SignalReceived
    >>> @workflow
    ... def greet(whom: str) -> Flow[str]:
    ...     word = yield from Receive("word", str)
    ...     return f"{word}, {whom}"
    >>> codec = Codec()
    >>> interpreter = Interpreter(greet, codec)
    >>> interpreter.replay([RunStarted(0, "greet", "hello-1", 1, codec.encode_call(("world",), {}), b"seed")])
    >>> interpreter.take().issued
    [<Waiting 1: receive 'word'>]
    >>> interpreter.apply(SignalReceived(5, 1, "word", codec.encode("Good morning")))
    >>> codec.decode(interpreter.outcome.payload)
    'Good morning, world'
    """

    def __init__(self, definition: WorkflowDefinition[Any, Any], codec: Codec) -> None:
        bare = attrs.evolve(codec, layers=()) if codec.layers else codec
        self._machine = Machine(definition, codec, bare, STARTERS, contextvars.copy_context())
        self._machine.root = Root(self._machine)
        self.waiting: dict[str, Waiting] = self._machine.waiting
        """Every command that waits for the outside, by id, in the order they were issued."""
        self.stubborn: Sequence[Any] = ()
        """Generators that could not be put away; kept alive by whoever keeps this list."""
        self._broken: BaseException | None = None

    # --- folding ---------------------------------------------------------------------------------------------------

    def replay(self, events: Sequence[Event], upto: int | None = None, *, skip_scopes: bool = True) -> None:
        """Fold a recorded history from its start. Raises `HistoryMismatch`, `AlienYield`, `DecodeError`.

        `upto` folds only the first so many events, knowing the whole: for debuggers. With `skip_scopes` the inside of a
        scope whose end is recorded is passed over; without it everything runs again, and what a scope published or left
        in variables around it is there too (a fork wants that, when the inside was not pruned).
        """
        if self._machine.count:
            raise UseError("a history is replayed once, by a fresh interpreter; add events with apply()")
        end = len(events) if upto is None else min(upto, len(events))
        self._guarded(self._replay, events, end, skip_scopes)

    def _replay(self, events: Sequence[Event], end: int, skip_scopes: bool) -> None:
        machine = self._machine
        look_ahead(machine, events, skip_scopes)
        index = 0
        while index < end:
            event = events[index]
            if type(event) is StepCompleted:
                reached = streak(machine, events, index, end)
                if reached != index:
                    index = reached
                    continue
            fold(machine, event)
            index += 1
        machine.issued = [waiting for waiting in machine.waiting.values() if not waiting.handed]
        machine.withdrawn = list(machine.timers.values())

    def apply(self, event: Event) -> None:
        """Fold one new event, and let the code it frees run until it waits again. Raises what `replay` raises."""
        if self._broken is not None:
            raise self._broken
        machine = self._machine
        try:  # `_guarded`, without a call that every step would pay for
            if type(event) is not StepCompleted or not machine.context.run(streak, machine, (event,), 0, 1):
                machine.context.run(fold, machine, event)
        except BaseException as error:
            self._broken = error
            raise

    def _guarded(self, function: Callable[..., None], *arguments: Any) -> None:
        if self._broken is not None:
            raise self._broken
        try:
            self._machine.context.run(function, *arguments)
        except BaseException as error:
            self._broken = error
            raise

    def take_step(self) -> Waiting | None:
        """The one step that is all that has become new since the last call: the common case, without the lists. None
        if it is another; then `take` tells."""
        machine = self._machine
        issued = machine.issued
        if len(issued) != 1 or machine.withdrawn or machine.published or machine.askers or machine.outcome:
            return None
        waiting = issued[0]
        if waiting.kind != "step" or waiting.handed or machine.waiting.get(waiting.id) is not waiting:
            return None
        issued.clear()
        waiting.handed = True
        return waiting

    def take(self) -> Advance:
        """What has become new since the last call. After a replay: all that still waits, and timers that nobody waits
        for but whose end is not recorded. Nothing is issued once there is an outcome."""
        machine = self._machine
        issued, withdrawn, published = machine.issued, machine.withdrawn, machine.published
        if not (issued or withdrawn or published):
            return NOTHING_NEW
        if issued:
            machine.issued = []
            open_ = machine.waiting
            issued = [] if machine.outcome else [w for w in issued if open_.get(w.id) is w]
            if machine.askers:  # what a change means for the code is settled before anything else is recorded
                issued.sort(key=_is_no_patch)
            for waiting in issued:
                waiting.handed = True
        if withdrawn:
            machine.withdrawn = ()
        if published:
            machine.published = NONE
        return Advance(issued, withdrawn, published)

    # --- looking ---------------------------------------------------------------------------------------------------

    @property
    def asked_changes(self) -> Mapping[str, object]:
        """Changes the code asks about, which no event has answered; `undecided` says more of them."""
        return self._machine.askers

    @property
    def warnings(self) -> Sequence[str]:
        """What `arguments="warn"` let pass."""
        return self._machine.warnings

    @property
    def outcome(self) -> RunOutcome | None:
        """How the code ended, payloads encoded; None while it goes on. The engine records the closing event."""
        return self._machine.outcome

    @property
    def closed(self) -> bool:
        """Whether a closing event was folded."""
        return self._machine.closed

    @property
    def now_us(self) -> int:
        """The latest time of any event folded: what `Now` answers."""
        return self._machine.now_us

    @property
    def count(self) -> int:
        """How many events were folded."""
        return self._machine.count

    @property
    def cancel_requested(self) -> bool:
        """Whether the run was asked to end itself."""
        return self._machine.cancel_requested

    @property
    def undecided(self) -> list[Waiting]:
        """Changes the code asks about, which no event has answered. They are to be settled before anything else is
        recorded: an event after that place would say that code without the change went on from there."""
        return [group.waiting for group in self._machine.askers.values() if group.waiting is not None]

    @property
    def info(self) -> RunStarted:
        """The run's first event."""
        return self._machine.started()

    def unread(self) -> dict[str, int]:
        """How many signals of each name were received and never asked for."""
        return {name: len(signals) for name, signals in self._machine.signals.items() if signals}

    def carried(self) -> tuple[CarriedSignal, ...]:
        """The same signals, in the order they came, for the next run of this workflow id."""
        buffered = [signal for signals in self._machine.signals.values() for signal in signals]
        return tuple(sorted(buffered, key=lambda signal: signal.seq))

    def callback_secret(self, id: str) -> bytes:
        """The secret in the token of the callback with this command id."""
        return secret_of(self.info.seed, id)

    def check_token(self, token: str) -> str:
        """The command id of the callback that a token completes. Raises `InvalidToken` for any token but this run's."""
        read, start = parse_token(token), self.info
        names = (read.workflow_id, read.generation) == (start.workflow_id, start.generation)
        if not names or not hmac.compare_digest(read.secret, self.callback_secret(read.id)):
            raise InvalidToken("this token belongs to no callback of this run")
        return read.id

    def fibers(self) -> FiberView:
        """Where everything stands: the root fiber and all beneath it, for debuggers."""
        return view(self._machine.root)

    # --- putting away ------------------------------------------------------------------------------------------------

    def droppable(self) -> bool:
        """Whether no generator is suspended inside `try` or `with`, so that dropping them runs no code."""
        return not any(is_suspended_inside_try(each) for each in generators(self._machine.root))

    def evict(self) -> bool:
        """Put the generators away; the interpreter is of no use afterwards. No command yielded by clean-up code is
        carried out, and none of it is recorded. False if some insist on living on: they are in `stubborn`."""
        for waiting in self.waiting.values():
            _ = waiting.line  # known while the frames are there
        self._broken = self._broken or UseError("this interpreter was put away; replay the history in a new one")
        machine = self._machine
        machine.queue.clear()
        self.stubborn = machine.context.run(evict, list(generators(machine.root)))
        return not self.stubborn


def _is_no_patch(waiting: Waiting) -> bool:
    return waiting.kind != "patched"


def look_ahead(machine: Machine, events: Sequence[Event], skip_scopes: bool) -> None:
    """Learn from the whole history what a replay has to know before it gets there: how far code has been, which changes
    were adopted, and which scopes have ended."""
    last = len(events) - 1
    if last == 0:
        machine.last_of_code = 0
        return
    while last >= 0 and isinstance(events[last], BESIDE_CODE):
        last -= 1
    machine.last_of_code = last
    marks = [event for event in events if type(event) in (PatchAdopted, ScopeCompleted)]
    if not marks:
        return
    machine.adopted = frozenset(event.change for event in marks if isinstance(event, PatchAdopted))
    if skip_scopes:
        scopes = [event for event in marks if isinstance(event, ScopeCompleted)]
        machine.finished_scopes = frozenset(event.id for event in scopes)
        outermost = [event for event in scopes if not is_inside(event.id, machine.finished_scopes)]
        machine.reserved = frozenset(seq for event in outermost for seq in event.consumed)
