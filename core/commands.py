"""Commands: what a workflow yields. Requests, in the imperative; nothing happens by making one.

Each is a small frozen attrs class, generic in its result, and says three things about itself:

* `kind`: the word for it in histories and messages;
* `name`: what it is about (a step, a signal, a change), or "";
* `arguments()`: what goes into its fingerprint besides the name, and has to be the same on every replay.

`x = yield command` and `x = yield from command` mean the same at run time: `__iter__` yields the command itself and
returns what is sent back. `yield from` (or `await`, in an `async def` workflow) tells a type checker the result's type.

A *branch* is what `All`, `Map`, `First`, `Spawn`, `Scope` and `Shield` run: a command, or a generator (or coroutine)
that yields commands. Constructors check their fields, so a wrong command cannot exist.
"""

from __future__ import annotations

import builtins
import random
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, Literal, Never, TypeAlias, TypeVar, overload
from uuid import UUID

import attrs

from dalsegno.core.errors import BadOption
from dalsegno.core.policies import Completion, StepOptions, WorkflowOptions, seconds

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")

NO_ARGUMENTS: tuple[Any, ...] = ()


class Command(Generic[T_co]):
    """What every command is: something to `yield`, `yield from` or `await` in a workflow."""

    __slots__ = ()
    kind: ClassVar[str] = "command"

    @property
    def name(self) -> str:
        """What the command is about; recorded, and compared on replay."""
        return ""

    def arguments(self) -> tuple[Any, ...]:
        """What is digested into the fingerprint; has to be encodable and the same on every replay."""
        return NO_ARGUMENTS

    def __iter__(self) -> Generator[Command[Any], Any, T_co]:
        return (yield self)  # type: ignore[no-any-return]  # the interpreter sends back what the command answers

    def __await__(self) -> Generator[Command[Any], Any, T_co]:
        return (yield self)  # type: ignore[no-any-return]


Flow: TypeAlias = Generator[Command[Any], Any, T]
"""The return type of a workflow written as a generator: `def fulfil(order: Order) -> Flow[Parcel]`."""

Branch: TypeAlias = Command[T] | Generator[Command[Any], Any, T] | Coroutine[Any, Any, T]
"""What can run beside others: a command, or a generator or coroutine of commands."""


# --- work ----------------------------------------------------------------------------------------------------------


@attrs.frozen(slots=True, eq=False)
class RunStep(Command[T_co]):
    """Run a step body outside the workflow and answer with its result. Made by calling a `@step` function."""

    kind: ClassVar[str] = "step"
    step: str
    fn: Callable[..., Any] = attrs.field(repr=False)
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)
    options: StepOptions = attrs.field(factory=StepOptions, repr=False)

    @property
    def name(self) -> str:
        return self.step

    def arguments(self) -> tuple[Any, ...]:
        return (self.args, self.kwargs)


@attrs.frozen(slots=True, eq=False)
class StartChild(Command[T_co]):
    """Run another workflow with a history of its own, and answer with its result. Made by calling a `@workflow`."""

    kind: ClassVar[str] = "child"
    workflow: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)
    options: WorkflowOptions = attrs.field(factory=WorkflowOptions, repr=False)

    @property
    def name(self) -> str:
        return self.workflow

    def arguments(self) -> tuple[Any, ...]:
        return (self.args, self.kwargs)


@attrs.frozen(slots=True, eq=False)
class SideEffect(Command[T_co]):
    """Call `fn` once, record what it returned, and answer the same on every replay. For a cheap read of something
    nondeterministic; anything that may fail or take long is a step. An exception of `fn` is raised, and recorded."""

    kind: ClassVar[str] = "side effect"
    fn: Callable[[], T_co]

    @property
    def name(self) -> str:
        return getattr(self.fn, "__name__", type(self.fn).__name__)


# --- waiting -------------------------------------------------------------------------------------------------------


@attrs.frozen(slots=True, eq=False)
class Sleep(Command[None]):
    """Wait so many seconds (or a timedelta) without holding anything. The absolute deadline is stored at once."""

    kind: ClassVar[str] = "sleep"
    duration: float = attrs.field(converter=seconds)

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.duration <= 10**11:
            raise BadOption(f"Sleep({self.duration}): between 0 seconds and 3,000 years")

    def arguments(self) -> tuple[Any, ...]:
        return (self.duration,)


@attrs.frozen(slots=True, eq=False)
class SleepUntil(Command[None]):
    """Wait until a moment, given with its time zone; a moment in the past is over at once."""

    kind: ClassVar[str] = "sleep until"
    moment: datetime

    def __attrs_post_init__(self) -> None:
        if getattr(self.moment, "tzinfo", None) is None:
            raise BadOption(f"SleepUntil({self.moment!r}): an aware datetime is needed, e.g. datetime(…, tzinfo=UTC)")

    def arguments(self) -> tuple[Any, ...]:
        return (self.moment,)


@attrs.frozen(slots=True, eq=False, init=False)
class Receive(Command[T_co]):
    """Wait for a signal of this name and answer with its payload; after `timeout` raise `TimedOut`.

    Signals wait in the run's inbox until a `Receive` asks for them, in the order the store accepted them. `type` tells
    the type checker, and turns payloads given as JSON on the command line into that type.
    """

    kind: ClassVar[str] = "receive"
    signal: str
    type: Any = Any
    timeout: float | None = attrs.field(default=None, converter=attrs.converters.optional(seconds))

    # Written out so that `Receive("approval", Approval)` is a `Receive[Approval]` to a type checker.
    @overload
    def __init__(
        self: Receive[A], name: str, type: builtins.type[A], *, timeout: float | timedelta | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: Receive[Any], name: str, type: Any = Any, *, timeout: float | timedelta | None = None
    ) -> None: ...
    def __init__(self, name: str, type: Any = Any, *, timeout: float | timedelta | None = None) -> None:
        if not (isinstance(name, str) and name):
            raise BadOption(f"Receive({name!r}): the first argument is the signal's name")
        self.__attrs_init__(name, type, timeout)

    @property
    def name(self) -> str:
        return self.signal

    def arguments(self) -> tuple[Any, ...]:
        return (self.timeout,)


@attrs.frozen(slots=True, eq=False, init=False)
class NewCallback(Command["Callback[T_co]"]):
    """Make a promise that somebody outside keeps: `engine.complete(token, value)` or `engine.fail(token, error)`."""

    kind: ClassVar[str] = "new callback"
    type: Any = Any

    @overload
    def __init__(self: NewCallback[A], type: builtins.type[A]) -> None: ...
    @overload
    def __init__(self: NewCallback[Any], type: Any = Any) -> None: ...
    def __init__(self, type: Any = Any) -> None:
        self.__attrs_init__(type)


@attrs.frozen(slots=True, eq=False)
class Callback(Command[T_co]):
    """What `NewCallback` answers: hand out `.token`, then yield the callback itself to wait for its value."""

    kind: ClassVar[str] = "callback"
    token: str
    id: str
    type: Any = Any

    @property
    def name(self) -> str:
        return self.id


# --- several at once -----------------------------------------------------------------------------------------------


@attrs.frozen(slots=True, eq=False, init=False)
class All(Command[T_co]):
    """Run branches side by side and answer with all their values: a tuple for `All(a, b)`, a list for `All([…])`.

    The first failure cancels the others, waits for their clean-up and is raised. `All()` answers `()`.
    """

    kind: ClassVar[str] = "all"
    branches: tuple[Any, ...]
    as_list: bool = False

    @overload
    def __init__(self: All[tuple[A]], a: Branch[A], /) -> None: ...
    @overload
    def __init__(self: All[list[A]], branches: Iterable[Branch[A]], /) -> None: ...
    @overload
    def __init__(self: All[tuple[()]], /) -> None: ...
    @overload
    def __init__(self: All[tuple[A, B]], a: Branch[A], b: Branch[B], /) -> None: ...
    @overload
    def __init__(self: All[tuple[A, B, C]], a: Branch[A], b: Branch[B], c: Branch[C], /) -> None: ...
    @overload
    def __init__(self: All[tuple[A, B, C, D]], a: Branch[A], b: Branch[B], c: Branch[C], d: Branch[D], /) -> None: ...
    @overload
    def __init__(
        self: All[tuple[A, B, C, D, E]], a: Branch[A], b: Branch[B], c: Branch[C], d: Branch[D], e: Branch[E], /
    ) -> None: ...
    @overload
    def __init__(self: All[tuple[Any, ...]], /, *branches: Branch[Any]) -> None: ...
    def __init__(self, /, *branches: Any) -> None:
        as_list = len(branches) == 1 and not is_branch(branches[0])
        if as_list:
            if not isinstance(branches[0], Iterable):
                raise BadOption(f"All({branches[0]!r}): branches, or one list of branches")
            branches = tuple(branches[0])
        self.__attrs_init__(branches, as_list)


@attrs.frozen(slots=True)
class BranchOutcome(Generic[T_co]):
    """How one branch of a `Map` with a `Completion` ended. `value` when it succeeded, `error` when it failed."""

    index: int
    status: Literal["succeeded", "failed", "cancelled", "not started"]
    value: T_co | None = None
    error: BaseException | None = None


@attrs.frozen(slots=True, eq=False, init=False)
class Map(Command[T_co]):
    """Run `fn(item)` for every item, at most `concurrency` at a time, and answer with the values in the items' order.

    `fn` makes a branch: a `@step`, a `@workflow`, or a generator function. Without `completion` the first failure
    cancels the rest and is raised; with it the answer is a list of `BranchOutcome`. Empty input answers `[]`.
    """

    kind: ClassVar[str] = "map"
    fn: Callable[[Any], Any]
    items: tuple[Any, ...]
    concurrency: int | None = None
    completion: Completion | None = None

    @overload
    def __init__(
        self: Map[list[B]], fn: Callable[[A], Branch[B]], items: Iterable[A], *, concurrency: int | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: Map[list[BranchOutcome[B]]],
        fn: Callable[[A], Branch[B]],
        items: Iterable[A],
        *,
        concurrency: int | None = None,
        completion: Completion,
    ) -> None: ...
    def __init__(
        self,
        fn: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        concurrency: int | None = None,
        completion: Completion | None = None,
    ) -> None:
        if not callable(fn):
            raise BadOption(f"Map({fn!r}, …): the first argument is a function that makes a branch of an item")
        if concurrency is not None and concurrency < 1:
            raise BadOption(f"Map(concurrency={concurrency}): at least 1, or None for all at once")
        self.__attrs_init__(fn, tuple(items), concurrency, completion)

    @property
    def name(self) -> str:
        return getattr(self.fn, "__name__", type(self.fn).__name__)


@attrs.frozen(slots=True)
class Winner(Generic[T_co]):
    """Which branch of a `First` ended first: its name (or index) and its value."""

    key: Any
    value: T_co


@attrs.frozen(slots=True, eq=False, init=False)
class First(Command[T_co]):
    """Run branches side by side until the first one ends; the others are cancelled. Answers a `Winner`.

    The decision is recorded, never recomputed. A branch that ends first by failing wins too, and its error is raised.
    """

    kind: ClassVar[str] = "first"
    branches: Mapping[Any, Any]

    @overload
    def __init__(self: First[Winner[A | B]], a: Branch[A], b: Branch[B], /) -> None: ...
    @overload
    def __init__(self: First[Winner[A | B | C]], a: Branch[A], b: Branch[B], c: Branch[C], /) -> None: ...
    @overload
    def __init__(self: First[Winner[A]], /, *branches: Branch[A]) -> None: ...
    @overload
    def __init__(self: First[Winner[Any]], /, **named: Branch[Any]) -> None: ...
    def __init__(self, /, *branches: Any, **named: Any) -> None:
        if bool(branches) == bool(named):
            raise BadOption(
                "First() of nothing would wait for ever" if not branches else "First(…): all named, or none"
            )
        held: dict[Any, Any] = dict(named) if named else dict(enumerate(branches))
        self.__attrs_init__(held)


@attrs.frozen(slots=True, eq=False, init=False)
class Spawn(Command["Task[T_co]"]):
    """Start a branch beside this one and answer at once with a `Task`, which can be yielded later for its value."""

    kind: ClassVar[str] = "spawn"
    branch: Any = attrs.field()

    def __init__(self, branch: Branch[T_co]) -> None:
        self.__attrs_init__(branch)


@attrs.frozen(slots=True, eq=False)
class Task(Command[T_co]):
    """What `Spawn` answers. Yield it to wait for the branch's value; `Cancel` takes it."""

    kind: ClassVar[str] = "task"
    id: str

    @property
    def name(self) -> str:
        return self.id


@attrs.frozen(slots=True, eq=False)
class Cancel(Command[None]):
    """Cancel a spawned task and wait until its clean-up is done. A task that has ended stays as it is."""

    kind: ClassVar[str] = "cancel"
    task: Task[Any]

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.task, Task):
            raise BadOption(f"Cancel({self.task!r}): takes the Task that Spawn answered")

    @property
    def name(self) -> str:
        return self.task.id


@attrs.frozen(slots=True, eq=False, init=False)
class Scope(Command[T_co]):
    """Run a branch of which, once it has ended, only the outcome is replayed: recovery costs what is open."""

    kind: ClassVar[str] = "scope"
    branch: Any = attrs.field()

    def __init__(self, branch: Branch[T_co]) -> None:
        self.__attrs_init__(branch)


@attrs.frozen(slots=True, eq=False, init=False)
class Shield(Command[T_co]):
    """Run a branch that a cancellation does not reach; the cancellation is raised at the next yield after it."""

    kind: ClassVar[str] = "shield"
    branch: Any = attrs.field()

    def __init__(self, branch: Branch[T_co]) -> None:
        self.__attrs_init__(branch)


# --- messages and marks --------------------------------------------------------------------------------------------


@attrs.frozen(slots=True, eq=False)
class Send(Command[None]):
    """Deliver a signal to another run's inbox, exactly once. Raises `SendFailed` when it is not there or has ended."""

    kind: ClassVar[str] = "send"
    workflow_id: str
    signal: str
    payload: Any = None

    @property
    def name(self) -> str:
        return self.signal

    def arguments(self) -> tuple[Any, ...]:
        return (self.workflow_id, self.payload)


@attrs.frozen(slots=True, eq=False)
class Publish(Command[None]):
    """Show a value to the outside as `run.state[key]`, also after the run has closed."""

    kind: ClassVar[str] = "publish"
    key: str
    value: Any


@attrs.frozen(slots=True, eq=False)
class Patched(Command[bool]):
    """True in runs that reach this point for the first time with the new code, False in runs that passed it before."""

    kind: ClassVar[str] = "patched"
    change: str

    @property
    def name(self) -> str:
        return self.change


@attrs.frozen(slots=True, eq=False)
class Checkpoint(Command[None]):
    """Everything so far is durable when this returns."""

    kind: ClassVar[str] = "checkpoint"


@attrs.frozen(slots=True, eq=False, init=False)
class ContinueAsNew(Command[Never]):
    """End this run and start the next one under the same workflow id with a fresh history; never returns.

    Signals that were not received yet are carried over. Whatever else is open is dropped without clean-up, so finish
    it first.
    """

    kind: ClassVar[str] = "continue as new"
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        self.__attrs_init__(args, kwargs)

    def arguments(self) -> tuple[Any, ...]:
        return (self.args, self.kwargs)


# --- answered from the history, without an event of their own ------------------------------------------------------


@attrs.frozen(slots=True, eq=False)
class Now(Command[datetime]):
    """The time of the latest event of this run, as an aware datetime in UTC. It never goes back."""

    kind: ClassVar[str] = "now"


@attrs.frozen(slots=True, eq=False)
class Uuid(Command[UUID]):
    """A UUID that is the same on every replay, derived from the run's seed."""

    kind: ClassVar[str] = "uuid"


@attrs.frozen(slots=True, eq=False)
class Random(Command[random.Random]):
    """A `random.Random` seeded from the run's seed: the same draws on every replay.

    This module imports `random` for that one class; nothing here draws from the process-wide generator.
    """

    kind: ClassVar[str] = "random"

    @staticmethod
    def seeded(seed: bytes) -> random.Random:
        """The generator that answers this command, made from bytes the interpreter derived."""
        return random.Random(int.from_bytes(seed, "big"))


@attrs.frozen(slots=True, kw_only=True)
class RunInfo:
    """What `Info` answers. `attempt` is the number of this run under its workflow id (it grows with each continue as
    new or restart; not the number of crashes, which a replay could not know), `history_length` the events so far;
    `continue_suggested` is true when starting afresh with `ContinueAsNew` would pay."""

    workflow_id: str
    run_id: str
    attempt: int
    workflow: str
    started_at: datetime
    history_length: int
    continue_suggested: bool
    parent_id: str | None = None
    tags: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(slots=True, eq=False)
class Info(Command[RunInfo]):
    """Ids, history length, and whether continuing as new is advisable."""

    kind: ClassVar[str] = "info"


def is_branch(thing: Any) -> bool:
    """Whether `thing` can run beside others: a command, a generator or a coroutine.

    >>> is_branch(Sleep(1)), is_branch([Sleep(1)])
    (True, False)

    A generator expression is not one, though Python makes a generator of it: `All(charge(o) for o in orders)` is meant
    as the branches, one after another.
    """
    if isinstance(thing, Command | Coroutine):
        return True
    code = getattr(thing, "gi_code", None)
    return isinstance(thing, Generator) and getattr(code, "co_name", "") != "<genexpr>"
