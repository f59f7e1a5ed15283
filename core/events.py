"""Events: what is recorded. Facts, in the past tense; a history is a list of them and nothing else.

There is one event per step in the common case, `StepCompleted`. Events that answer a command carry its id (`3`,
`3.2.1`: the path of its fiber and its ordinal there), its fingerprint (the class says the kind, then `name` and
`digest`) and the source `line` the workflow stood at, so that a replay can compare and a debugger can point.

Times are integers, microseconds since 1970 in UTC (`at_us`), as the clock of the recording engine had them. Payloads
are bytes made by the codec; events do not know what is in them.

Every class has a `tag` (its number in the stored form, never reused) and a `version`. `core.history` turns events
into bytes and back, and upgrades those of earlier versions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, TypeAlias

import attrs

Payload: TypeAlias = bytes


def _names(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)  # read back from a record it is a list


class Event:
    """What every event is: it happened, at a time."""

    __slots__ = ()
    tag: ClassVar[int]
    version: ClassVar[int] = 1
    closes: ClassVar[bool] = False
    """Whether the run ends with this event; nothing follows it."""

    at_us: int

    # Written once for all, because attrs would compile them anew for each of thirty classes: a tenth of the time that
    # `import dalsegno` takes.

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__qualname__}({shown})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__match_args__)

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in self.__match_args__)))

    __match_args__: ClassVar[tuple[str, ...]] = ()


@attrs.frozen(slots=True, kw_only=True)
class CarriedSignal:
    """A signal that the previous run of this workflow id had not received when it continued as new."""

    seq: int
    name: str
    payload: Payload


# --- the run -------------------------------------------------------------------------------------------------------


@attrs.frozen(slots=True, repr=False, eq=False)
class RunStarted(Event):
    """The run exists. First event of every history; holds everything its replay needs from outside.

    `seed` feeds `Uuid`, `Random` and callback tokens. `parent` is (workflow id, generation, command id) or empty.
    `origin` says where a continued, forked or imported run came from.
    """

    tag: ClassVar[int] = 1
    at_us: int
    workflow: str
    workflow_id: str
    generation: int
    arguments: Payload
    seed: bytes
    deadline_us: int | None = None
    parent: tuple[str, int, str] | tuple[()] = ()
    tags: dict[str, str] = attrs.field(factory=dict)
    carried: tuple[CarriedSignal, ...] = ()
    origin: str = ""


@attrs.frozen(slots=True, repr=False, eq=False)
class RunCompleted(Event):
    """The workflow returned. `unread` counts signals by name that nobody received; `unawaited` names tasks that
    failed without anybody waiting for them."""

    tag: ClassVar[int] = 2
    closes: ClassVar[bool] = True
    at_us: int
    result: Payload
    unread: dict[str, int] = attrs.field(factory=dict)
    unawaited: tuple[str, ...] = attrs.field(default=(), converter=_names)


@attrs.frozen(slots=True, repr=False, eq=False)
class RunFailed(Event):
    """The workflow raised."""

    tag: ClassVar[int] = 3
    closes: ClassVar[bool] = True
    at_us: int
    error: Payload
    unread: dict[str, int] = attrs.field(factory=dict)


@attrs.frozen(slots=True, repr=False, eq=False)
class RunCancelled(Event):
    """The workflow let the `Cancelled` it was asked to end with pass, after its clean-up."""

    tag: ClassVar[int] = 4
    closes: ClassVar[bool] = True
    at_us: int
    error: Payload


@attrs.frozen(slots=True, repr=False, eq=False)
class RunTerminated(Event):
    """The run was ended from outside without asking its code."""

    tag: ClassVar[int] = 5
    closes: ClassVar[bool] = True
    at_us: int
    reason: str


@attrs.frozen(slots=True, repr=False, eq=False)
class RunTimedOut(Event):
    """The run took longer than its `timeout`; its code was not asked."""

    tag: ClassVar[int] = 6
    closes: ClassVar[bool] = True
    at_us: int
    deadline_us: int


@attrs.frozen(slots=True, repr=False, eq=False)
class RunContinued(Event):
    """The workflow continued as new: the next generation under the same id has these arguments."""

    tag: ClassVar[int] = 7
    closes: ClassVar[bool] = True
    at_us: int
    id: str
    arguments: Payload


@attrs.frozen(slots=True, repr=False, eq=False)
class CancelRequested(Event):
    """Somebody asked the run to end itself; `Cancelled` is raised where it waits."""

    tag: ClassVar[int] = 8
    at_us: int
    reason: str


@attrs.frozen(slots=True, repr=False, eq=False)
class RunPaused(Event):
    """Somebody paused the run: its code stands still until it is resumed, and what came of bodies that were at work is
    recorded behind this. A replay takes no notice."""

    tag: ClassVar[int] = 9
    at_us: int
    reason: str


@attrs.frozen(slots=True, repr=False, eq=False)
class RunResumed(Event):
    """A paused run goes on. A replay takes no notice."""

    tag: ClassVar[int] = 10
    at_us: int


# --- steps ---------------------------------------------------------------------------------------------------------


@attrs.frozen(slots=True, repr=False, eq=False)
class StepStarted(Event):
    """The body of a `once=True` step is about to be called. With no outcome after it, nobody knows whether it was."""

    tag: ClassVar[int] = 20
    at_us: int
    id: str
    name: str
    digest: bytes
    line: int
    attempt: int


@attrs.frozen(slots=True, repr=False, eq=False)
class StepAttemptFailed(Event):
    """An attempt failed and another follows at `retry_at_us`. Leaves the step open."""

    tag: ClassVar[int] = 21
    at_us: int
    id: str
    name: str
    digest: bytes
    line: int
    attempt: int
    took_us: int
    error: Payload
    retry_at_us: int


@attrs.frozen(slots=True, repr=False, eq=False)
class StepCompleted(Event):
    """The step's body returned. On replay it is what makes that `yield` return; the body never runs again."""

    tag: ClassVar[int] = 22
    at_us: int
    id: str
    name: str
    digest: bytes
    line: int
    attempt: int
    took_us: int
    result: Payload


@attrs.frozen(slots=True, repr=False, eq=False)
class StepFailed(Event):
    """The step failed for good: a final error, or no attempts left. The error is raised at that `yield`."""

    tag: ClassVar[int] = 23
    at_us: int
    id: str
    name: str
    digest: bytes
    line: int
    attempt: int
    took_us: int
    error: Payload


# --- timers --------------------------------------------------------------------------------------------------------


@attrs.frozen(slots=True, repr=False, eq=False)
class TimerSet(Event):
    """A deadline was fixed for a `Sleep`, a `SleepUntil`, or a `Receive` with a time-out (`kind` says which)."""

    tag: ClassVar[int] = 30
    at_us: int
    id: str
    kind: str
    name: str
    digest: bytes
    line: int
    deadline_us: int


@attrs.frozen(slots=True, repr=False, eq=False)
class TimerFired(Event):
    """The deadline passed. Answers the sleep, or makes the `Receive` raise `TimedOut`."""

    tag: ClassVar[int] = 31
    at_us: int
    id: str


@attrs.frozen(slots=True, repr=False, eq=False)
class TimerCancelled(Event):
    """Nobody waits for this deadline any more: its command was answered otherwise, or cancelled."""

    tag: ClassVar[int] = 32
    at_us: int
    id: str


# --- messages ------------------------------------------------------------------------------------------------------


@attrs.frozen(slots=True, repr=False, eq=False)
class SignalReceived(Event):
    """A message from the run's inbox entered its history; a `Receive` of that name takes it, now or later."""

    tag: ClassVar[int] = 40
    at_us: int
    seq: int
    name: str
    payload: Payload


@attrs.frozen(slots=True, repr=False, eq=False)
class SignalSent(Event):
    """The signal of a `Send` stands in the target's inbox; both were written in one commit."""

    tag: ClassVar[int] = 41
    at_us: int
    id: str
    name: str
    digest: bytes
    line: int
    workflow_id: str


@attrs.frozen(slots=True, repr=False, eq=False)
class SignalNotSent(Event):
    """The target of a `Send` is not there or has ended; the `Send` raises."""

    tag: ClassVar[int] = 42
    at_us: int
    id: str
    name: str
    digest: bytes
    line: int
    error: Payload


@attrs.frozen(slots=True, repr=False, eq=False)
class CallbackCompleted(Event):
    """Somebody outside kept the promise of a `NewCallback`."""

    tag: ClassVar[int] = 43
    at_us: int
    seq: int
    id: str
    result: Payload


@attrs.frozen(slots=True, repr=False, eq=False)
class CallbackFailed(Event):
    """Somebody outside reported that the promise of a `NewCallback` cannot be kept."""

    tag: ClassVar[int] = 44
    at_us: int
    seq: int
    id: str
    error: Payload


# --- children ------------------------------------------------------------------------------------------------------


@attrs.frozen(slots=True, repr=False, eq=False)
class ChildStarted(Event):
    """The child run was created, in the commit that records this; `on_parent_close` is what becomes of it when this
    run ends first."""

    tag: ClassVar[int] = 50
    at_us: int
    id: str
    name: str
    digest: bytes
    line: int
    workflow_id: str
    on_parent_close: str = "cancel"


@attrs.frozen(slots=True, repr=False, eq=False)
class ChildNotStarted(Event):
    """The child's id is taken by somebody else's run; the error is raised at that `yield`."""

    tag: ClassVar[int] = 51
    at_us: int
    id: str
    name: str
    digest: bytes
    line: int
    error: Payload


@attrs.frozen(slots=True, repr=False, eq=False)
class ChildCompleted(Event):
    """The child returned."""

    tag: ClassVar[int] = 52
    at_us: int
    seq: int
    id: str
    result: Payload


@attrs.frozen(slots=True, repr=False, eq=False)
class ChildFailed(Event):
    """The child failed, was cancelled, terminated or timed out; the error says which."""

    tag: ClassVar[int] = 53
    at_us: int
    seq: int
    id: str
    error: Payload


# --- decisions and marks -------------------------------------------------------------------------------------------


@attrs.frozen(slots=True, repr=False, eq=False)
class SideEffectRecorded(Event):
    """What the function of a `SideEffect` returned (`error` empty) or raised."""

    tag: ClassVar[int] = 60
    at_us: int
    id: str
    name: str
    digest: bytes
    line: int
    result: Payload
    error: Payload = b""


@attrs.frozen(slots=True, repr=False, eq=False)
class RaceDecided(Event):
    """Which branch of a `First` won (its position among the branches); never recomputed."""

    tag: ClassVar[int] = 61
    at_us: int
    id: str
    name: str
    digest: bytes
    line: int
    winner: int


@attrs.frozen(slots=True, repr=False, eq=False)
class ScopeCompleted(Event):
    """The branch of a `Scope` ended; a replay takes the outcome from here and passes over what lies inside.

    `consumed` are the inbox numbers of the signals received inside, so that a replay takes them away too.
    """

    tag: ClassVar[int] = 62
    at_us: int
    id: str
    line: int
    result: Payload
    error: Payload = b""
    consumed: tuple[int, ...] = ()


@attrs.frozen(slots=True, repr=False, eq=False)
class CheckpointTaken(Event):
    """Everything before this is durable."""

    tag: ClassVar[int] = 63
    at_us: int
    id: str
    line: int


@attrs.frozen(slots=True, repr=False, eq=False)
class PatchAdopted(Event):
    """This run reached a `Patched` for the first time with the new code, and takes the new branch for ever."""

    tag: ClassVar[int] = 64
    at_us: int
    change: str


EVENTS: tuple[type[Event], ...] = tuple(
    sorted(
        (c for c in list(globals().values()) if isinstance(c, type) and issubclass(c, Event) and c is not Event),
        key=lambda cls: cls.tag,
    )
)
"""Every event class, by tag."""

CLOSING = frozenset(cls for cls in EVENTS if cls.closes)


def fields(event: Event) -> dict[str, Any]:
    """The fields of an event by name, for people and tools."""
    return {a.name: getattr(event, a.name) for a in attrs.fields(type(event))}  # type: ignore[arg-type]  # every event is an attrs class
